"""One trial of a calibration: a truth is drawn, observed and assimilated, and compared with its posterior."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.seeds import unit_seed
from sdaxr.inference.assimilate import assimilate
from sdaxr.observations.observe import observe
from sdaxr.operators import Operator
from sdaxr.schema import MEMBER, TIME, DivergenceError, check_units
from sdaxr.states.fields import StateLayout
from sdaxr.verification.alignment import align
from sdaxr.verification.quantities import Quantities
from sdaxr.verification.truths import Truths
from sdaxr.verification.uniformity import inside, ranks_among

_log = logging.getLogger(__name__)

TRUTH = "truth"
# What is kept of a truth: dimensions, meaning, and the value where its posterior could not be drawn.
_VARIABLES: dict[str, tuple[tuple[str, ...], str, Any]] = {
    "rank": (("quantity",), "number of members below the truth", np.int32(-1)),
    "value": (("quantity",), "quantity of the truth", np.nan),
    "mean": (("quantity",), "mean of the quantity over the members", np.nan),
    "spread": (("quantity",), "standard deviation of the quantity over the members", np.nan),
    "covered": (("variable", "level"), "share of the values of the truth in the intervals of the members", np.nan),
    "squared_error": (("variable",), "mean square of the error of the ensemble mean", np.nan),
    "squared_spread": (("variable",), "mean variance of the members", np.nan),
    "diverged": ((), "1 where the posterior could not be drawn", np.int8(1)),
}


@dataclass(frozen=True)
class Trials:
    """What is done for each truth.

    Attributes
    ----------
    source, operator, observing, drawing
        The truths, the operator, and the options of `observe` and of `assimilate`.
    layout, names
        Layout of the states of the model that is tested, and their variables.
    levels, seed
        Levels of the intervals, and the seed of all truths.
    """

    source: Truths
    operator: Operator
    observing: Mapping[str, Any]
    drawing: Mapping[str, Any]
    layout: StateLayout
    names: tuple[str, ...]
    levels: tuple[float, ...]
    seed: int

    def observed(self, number: int) -> tuple[xr.Dataset, xr.Dataset]:
        """A truth on the grid of the model, and its observations."""
        found = self.source.draw(number, unit_seed(self.seed, number, 1))
        for name in found.data_vars.keys() & set(self.names):
            units = self.layout.attrs[str(name)].get("units")
            check_units(str(name), found[name].attrs.get("units"), units, "the truth")
        blank = self.layout.template(found[TIME].reset_coords(drop=True))[list(self.names)]
        truth = align(blank, found)[1]
        return truth, observe(truth, self.operator, seed=unit_seed(self.seed, number, 2), **self.observing)

    def run(self, number: int, quantities: Quantities) -> dict[str, np.ndarray]:
        """The values of one truth, by variable of `template`."""
        truth, observations = self.observed(number)
        found = {str(n): v.values[0].copy() for n, v in self.template(1, quantities).data_vars.items()}
        try:
            drawn = assimilate(observations, seed=unit_seed(self.seed, number, 3), progress=False, **self.drawing)
        except DivergenceError as error:
            _log.warning("the posterior of truth %d diverged: %s", number, error)
            return found
        random = np.random.default_rng(unit_seed(self.seed, number, 4))
        members, truth = align(drawn, truth)
        values, value = quantities.of(members, observations), quantities.of(truth, observations)
        found |= {"value": value, "mean": values.mean(0), "spread": values.std(0, ddof=1)}
        found |= {"rank": ranks_among(value, values, random).astype(np.int32), "diverged": np.zeros((), np.int8)}
        for index, name in enumerate(self.names):
            ensemble = members[name].transpose(MEMBER, ...).astype(np.float64)
            right = truth[name].transpose(*ensemble.dims[1:]).values
            there = np.isfinite(right) & np.isfinite(ensemble.values).all(0)
            states, right = ensemble.values[:, there], right[there]
            covered = inside(ranks_among(right, states, random), len(states), self.levels)
            found["covered"][index] = covered.mean(0)
            found["squared_error"][index] = ((states.mean(0) - right) ** 2).mean()
            found["squared_spread"][index] = states.var(0, ddof=1).mean()
        return found

    def template(self, truths: int, quantities: Quantities) -> xr.Dataset:
        """The values of all truths with their labels, as if every posterior had diverged."""
        coords = dict(quantities.labels.coords) | {
            TRUTH: (TRUTH, np.arange(truths), {"long_name": "number of the truth"}),
            "variable": ("variable", np.array(self.names, object), {"long_name": "state variable"}),
            "level": ("level", np.array(self.levels), {"units": "1", "long_name": "nominal level of an interval"}),
        }
        sizes = xr.Dataset(coords=coords).sizes
        variables = {}
        for name, (dims, title, blank) in _VARIABLES.items():
            whole = (TRUTH, *dims)
            variables[name] = (whole, np.full([sizes[d] for d in whole], blank), {"long_name": title})
        return xr.Dataset(variables, coords)

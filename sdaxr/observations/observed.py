"""The values that a network has at the points of an operator's output, without the points where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import xarray as xr

from sdaxr.observations.correlation import error_correlation
from sdaxr.observations.low_rank import SharedCovariance
from sdaxr.observations.matching import describe_place, find
from sdaxr.observations.noise import family_of
from sdaxr.observations.screening import Screening
from sdaxr.observations.shared import Biases
from sdaxr.operators import Template
from sdaxr.schema import GridError


@dataclass(frozen=True)
class ObservedPoints:
    """The n observations of a network, one variable after the other.

    Attributes
    ----------
    data
        The observations with their labels.
    template
        Labels of the operator's output.
    where
        For each variable, the observed points as indices of its flattened output.
    values, errors
        Measured values and standard deviations of their whole errors, biases included, shape (n,), float64.
    own_errors
        Standard deviations of the errors without biases, shape (n,), float64.
    source
        For each variable, the observed points as indices of the flattened observations, dimensions in the order of the
        template.
    status
        For each variable, the status of all observations (`sdaxr.observations.screening`), int8, dimensions in the
        order of the template.
    biases
        For each variable, the biases of its observations; None where the errors have none.
    """

    data: xr.Dataset
    template: Template
    where: Mapping[str, np.ndarray]
    values: np.ndarray
    errors: np.ndarray
    own_errors: np.ndarray
    source: Mapping[str, np.ndarray]
    status: Mapping[str, np.ndarray]
    biases: Mapping[str, Biases | None]

    @classmethod
    def of(
        cls,
        data: xr.Dataset,
        template: Template,
        screening: Screening | None = None,
        steps: xr.DataArray | None = None,
    ) -> ObservedPoints:
        """The observations in ``data`` of the output with these labels; parameters and errors of `find`."""
        found = find(data, template, screening, steps)
        values, errors, own = (
            np.concatenate([getattr(f, key) for f in found.values()]).astype(float)
            for key in ("values", "errors", "own_errors")
        )
        where, source, status, biases = (
            {name: getattr(f, key) for name, f in found.items()} for key in ("where", "source", "status", "biases")
        )
        return cls(data, template, where, values, errors, own, source, status, biases)

    @property
    def count(self) -> int:
        """Number of observations, n."""
        return self.values.size

    @property
    def families(self) -> np.ndarray:
        """The family of the error of each observation (`sdaxr.observations.noise`), shape (n,)."""
        return np.repeat([family_of(self.data, n) for n in self.where], [len(i) for i in self.where.values()])

    @property
    def correlation(self) -> np.ndarray | None:
        """Correlation of the errors, biases included, shape (n, n); None where they are independent but for biases."""
        shared = self._independent_but_for_biases
        if self.own_correlation is None or shared is None:
            return self.own_correlation
        columns, own = shared.columns().numpy(), self.own_errors
        covariance = self.own_correlation * own * own[:, None] + columns @ columns.T
        return np.asarray(covariance / self.errors / self.errors[:, None])

    @property
    def shared(self) -> SharedCovariance | None:
        """Covariance of errors that are independent but for biases; None without biases, or with `correlation`."""
        return self._independent_but_for_biases if self.own_correlation is None else None

    @cached_property
    def own_correlation(self) -> np.ndarray | None:
        """Correlation of the errors without biases, shape (n, n); None where they are independent."""
        return error_correlation(self.data, self.template, self.where)

    @cached_property
    def _independent_but_for_biases(self) -> SharedCovariance | None:
        if all(b is None for b in self.biases.values()):
            return None
        own = self.own_errors**2
        return SharedCovariance.joined([SharedCovariance.of(own[r], self.biases[n]) for n, r in self.rows.items()])

    @property
    def rows(self) -> dict[str, slice]:
        """Where the observations of each variable stand."""
        ends = [0, *self._ends, self.count]
        return {name: slice(*pair) for name, pair in zip(self.where, pairwise(ends), strict=True)}

    @property
    def names(self) -> np.ndarray:
        """The variable of each observation, shape (n,)."""
        return np.repeat(list(self.where), [len(i) for i in self.where.values()])

    def predicted(self, output: xr.Dataset, leading: Sequence[str] = ()) -> np.ndarray:
        """The operator's output at the observations, shape (*leading, n), float64.

        Raises
        ------
        GridError
            If the output has other sizes than the template.
        """
        parts = []
        for name, index in self.where.items():
            values = output[name].transpose(*leading, *self.template.variables[name].dims).values
            if values.shape[len(leading) :] != (expected := tuple(self.template.shape(name))):
                raise GridError(
                    f"H(x) has {dict(output[name].sizes)} values of '{name}', expected {expected} along "
                    f"{self.template.variables[name].dims}; select the times and points of the other states"
                )
            parts.append(values.reshape(*values.shape[: len(leading)], -1)[..., index].astype(float))
        return np.concatenate(parts, axis=-1)

    def select(self, chosen: np.ndarray) -> ObservedPoints:
        """The observations for which ``chosen``, shape (n,), is true, or those with the sorted numbers ``chosen``."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        ends = np.searchsorted(chosen, self._ends)
        parts = {
            name: part - first
            for name, part, first in zip(self.where, np.split(chosen, ends), [0, *self._ends], strict=True)
        }
        where, source = ({n: index[parts[n]] for n, index in part.items()} for part in (self.where, self.source))
        biases = {n: b if b is None else b.select(parts[n]) for n, b in self.biases.items()}
        values, errors, own = (a[chosen] for a in (self.values, self.errors, self.own_errors))
        return replace(self, where=where, source=source, values=values, errors=errors, own_errors=own, biases=biases)

    def reject(self, bad: np.ndarray, reason: int) -> ObservedPoints:
        """Without the observations for which ``bad``, shape (n,), is true; ``reason`` becomes their status."""
        if not bad.any():
            return self
        status = {}
        for (name, source), part in zip(self.source.items(), np.split(bad, self._ends), strict=True):
            status[name] = self.status[name].copy()
            status[name].reshape(-1)[source[part]] = reason
        return replace(self.select(~bad), status=status)

    def describe(self, index: int) -> str:
        """Number, value, time and place of the observation ``index``, for messages."""
        ends = [0, *self._ends]
        name = str(self.names[index])
        within = index - ends[list(self.where).index(name)]
        units = self.template.variables[name].units
        place = describe_place(self.template, name, int(self.where[name][within]))
        unit = f" {units}" if units and units != "1" else ""
        return f"observation {self.source[name][within]}, {name} = {self.values[index]:.6g}{unit} at {place},"

    @property
    def _ends(self) -> list[int]:
        return list(accumulate(len(i) for i in self.where.values()))[:-1]

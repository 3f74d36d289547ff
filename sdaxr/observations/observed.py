"""The values that a network has at the points of an operator's output, without the points where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import xarray as xr

from sdaxr.observations.correlation import error_correlation
from sdaxr.observations.matching import describe_place, find
from sdaxr.observations.noise import family_of
from sdaxr.observations.screening import Screening
from sdaxr.observations.shared import shared_covariance
from sdaxr.operators import Template


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
        Measured values and standard deviations of their errors, biases included, shape (n,), float64.
    source
        For each variable, the observed points as indices of the flattened observations, dimensions in the order of the
        template.
    status
        For each variable, the status of all observations (`sdaxr.observations.screening`), int8, dimensions in the
        order of the template.
    """

    data: xr.Dataset
    template: Template
    where: Mapping[str, np.ndarray]
    values: np.ndarray
    errors: np.ndarray
    source: Mapping[str, np.ndarray]
    status: Mapping[str, np.ndarray]

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
        values, errors = (np.concatenate([getattr(f, key) for f in found.values()]) for key in ("values", "errors"))
        where, source, status = (
            {name: getattr(f, key) for name, f in found.items()} for key in ("where", "source", "status")
        )
        own = cls(data, template, where, values.astype(float), errors.astype(float), source, status)
        shared = own._shared
        return own if shared is None else replace(own, errors=np.sqrt(own.errors**2 + shared.diagonal()))

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
        """Correlation of the errors, biases included, shape (n, n); None where they are independent."""
        shared = self._shared
        if shared is None:
            return error_correlation(self.data, self.template, self.where)
        return np.asarray((self.own_covariance + shared) / self.errors / self.errors[:, None])

    @property
    def own_covariance(self) -> np.ndarray:
        """Covariance of the errors without biases, shape (n, n)."""
        shared, correlation = self._shared, error_correlation(self.data, self.template, self.where)
        own = self.errors if shared is None else np.sqrt(self.errors**2 - shared.diagonal())
        return np.asarray(np.diag(own**2) if correlation is None else correlation * own * own[:, None])

    @property
    def _shared(self) -> np.ndarray | None:
        dims = {name: self.template.variables[name].dims for name in self.where}
        return shared_covariance(self.data, self.source, dims)

    @property
    def names(self) -> np.ndarray:
        """The variable of each observation, shape (n,)."""
        return np.repeat(list(self.where), [len(i) for i in self.where.values()])

    def select(self, chosen: np.ndarray) -> ObservedPoints:
        """The observations for which ``chosen``, shape (n,), is true."""
        parts = dict(zip(self.where, np.split(chosen, self._ends), strict=True))
        where, source = ({n: index[parts[n]] for n, index in part.items()} for part in (self.where, self.source))
        return replace(self, where=where, source=source, values=self.values[chosen], errors=self.errors[chosen])

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

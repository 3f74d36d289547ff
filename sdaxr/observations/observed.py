"""The values that a network has at the points of an operator's output, without the points where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from sdaxr.observations.correlation import error_correlation
from sdaxr.observations.matching import match
from sdaxr.observations.noise import family_of
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
        Measured values and their standard deviations, shape (n,), float64.
    """

    data: xr.Dataset
    template: Template
    where: Mapping[str, np.ndarray]
    values: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, data: xr.Dataset, template: Template, outside: str = "error") -> ObservedPoints:
        """The observations in ``data`` of the output with these labels; errors and ``outside`` as of `match`."""
        matched = match(data, template, outside=outside)
        where = {name: np.flatnonzero(np.isfinite(values)) for name, (values, _) in matched.items()}
        values, errors = (
            np.concatenate([pair[i].reshape(-1)[where[name]] for name, pair in matched.items()]).astype(float)
            for i in (0, 1)
        )
        return cls(data, template, where, values, errors)

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
        """Correlation of the errors, shape (n, n); None where they are independent."""
        return error_correlation(self.data, self.template, self.where)

    def select(self, chosen: np.ndarray) -> ObservedPoints:
        """The observations for which ``chosen``, shape (n,), is true."""
        ends = np.cumsum([len(i) for i in self.where.values()])[:-1]
        parts = zip(self.where.items(), np.split(chosen, ends), strict=True)
        where = {name: index[part] for (name, index), part in parts}
        return replace(self, where=where, values=self.values[chosen], errors=self.errors[chosen])

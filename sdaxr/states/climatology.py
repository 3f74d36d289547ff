r"""Climatology: mean and standard deviation of the states by time of day and time of year.

.. math:: x(t) = m(t) + s(t)\, a(t), \qquad m = m_0 + \sum_j D_j(t)\, m_j, \qquad
    s = s_0 \exp \Big( \sum_j D_j(t)\, s_j \Big),

with harmonics D of the day and of the year (`sdaxr.states.harmonics`), at each channel and grid point. The anomalies a
are what a prior sees. `sdaxr.states.seasonal` estimates m and s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.states.harmonics import Harmonics


@dataclass(frozen=True)
class Climatology:
    """Mean and standard deviation as functions of time.

    Attributes
    ----------
    harmonics, deviation_harmonics
        Harmonics of the mean, and of the logarithm of the standard deviation.
    mean, std
        The constants m_0 and s_0 in physical units, (channel, *space).
    mean_terms
        Coefficients of the mean, in physical units, (2 harmonics, channel, *space).
    deviation_terms
        Coefficients of the logarithm of the standard deviation, (2 harmonics, channel, *space).
    """

    harmonics: Harmonics
    deviation_harmonics: Harmonics
    mean: np.ndarray
    std: np.ndarray
    mean_terms: np.ndarray
    deviation_terms: np.ndarray

    def __str__(self) -> str:
        return f"harmonics: {self.harmonics}; of the standard deviation: {self.deviation_harmonics}"

    def at(self, times: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation at ``times`` (n,) of a calendar, (n, channel, *space) each.

        Raises
        ------
        DataError
            If the times have no calendar.
        """
        # In place: in training, times are many.
        mean = np.tensordot(self.harmonics.columns(times), self.mean_terms, 1)
        mean += self.mean
        std = np.tensordot(self.deviation_harmonics.columns(times), self.deviation_terms, 1)
        np.exp(std, out=std)
        std *= self.std
        return mean, std

    def to_file(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready metadata, without the constants; `from_file` makes the same climatology of them."""
        arrays = {"climatology.mean": self.mean_terms, "climatology.deviation": self.deviation_terms}
        return arrays, {"mean": self.harmonics.to_dict(), "deviation": self.deviation_harmonics.to_dict()}

    @classmethod
    def from_file(
        cls, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], mean: np.ndarray, std: np.ndarray
    ) -> Climatology:
        """The climatology with the constants ``mean`` and ``std`` that `to_file` took apart."""
        return cls(
            Harmonics.from_dict(about["mean"]), Harmonics.from_dict(about["deviation"]), mean, std,
            arrays["climatology.mean"], arrays["climatology.deviation"],
        )  # fmt: skip

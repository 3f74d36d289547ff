r"""Which observations are plausible, by what is known of the observed quantity without them.

A value y with the error e is implausible if it is further from the prior than

.. math:: |y - m| > 50 \sqrt{s^2 + e^2},

with the natural mean m and the natural scale s of the observed quantity. For any distribution at all, the probability
of such a value is less than 1 / 2500 (Chebyshev); those of geophysical quantities, precipitation among them, end
before. Usual numbers for missing values, such as -9999, are implausible beyond 5 s: geopotentials and pressures are
so far from zero, in units of their variability, that 50 s contain these numbers.

States are in single precision, with a relative rounding error of 6e-8. An error below 1e-7 s asks for more digits than
a state has, and an error above 1e6 s leaves a value without weight. Either is a fill value or a mistake.
"""

from __future__ import annotations

import numpy as np

from sdaxr.observations.observed import ObservedPoints
from sdaxr.schema import DataError, others

FARTHEST = 50.0
"""Largest distance of a value from the natural mean, in natural scales and errors."""

_MARKER_DISTANCE = 5.0
_MARKERS = np.array([99, 99.9, 99.99, 999, 999.9, 999.99, 9999, 9999.9, 99999, 32766, 32767, 32768, 65535])
_ERRORS = (1e-7, 1e6)  # in natural scales


def implausible_values(
    points: ObservedPoints, mean: np.ndarray, scale: np.ndarray, *, whose: str, strict: bool = True
) -> np.ndarray:
    """Which observations are implausible, shape (n,).

    Parameters
    ----------
    points
        The observations of a network.
    mean, scale
        Natural mean and scale of each observed quantity, shape (n,).
    whose
        Whose they are, for errors: ``"the prior's"``.
    strict
        Whether an implausible observation is an error.

    Raises
    ------
    DataError
        If an observation is implausible, and ``strict``. It is named by its number, value, time and place.
    """
    values, errors = points.values, points.errors
    distance = np.abs(values - mean) / np.hypot(scale, errors)
    marked = (np.isclose(np.abs(values)[:, None], _MARKERS, rtol=1e-6, atol=0).any(1)) & (distance > _MARKER_DISTANCE)
    far = (distance > FARTHEST) | marked
    ratio = errors / scale
    strange = (ratio < _ERRORS[0]) | (ratio > _ERRORS[1])
    if strict and far.any():
        at = int(far.argmax())
        hint = ", the usual number for a missing value" if marked[at] or abs(values[at]) > 1e19 else ""
        raise DataError(
            f"{points.describe(at)} is {distance[at]:.2g} standard deviations from {whose} mean of {mean[at]:.6g}"
            f"{hint}{others(int(far.sum()) - 1)}; expected at most {FARTHEST:g}; correct them, or set "
            "them to NaN to leave them out"
        )
    if strict and strange.any():
        at = int(strange.argmax())
        raise DataError(
            f"{points.describe(at)} has the error {errors[at]:.3g}, {ratio[at]:.2g} times {whose} standard "
            f"deviation of {scale[at]:.3g}{others(int(strange.sum()) - 1)}; expected {_ERRORS[0]:g} to "
            f"{_ERRORS[1]:g}; correct '{points.names[at]}_error', or set the values to NaN to leave them out"
        )
    return np.asarray(far | strange)

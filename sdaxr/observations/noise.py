r"""Families of observation errors of mean zero and standard deviation one.

A family is a function T of a standard normal number g: ``"gaussian"``, g itself; ``"laplace"``, with heavy tails;
``"uniform"``, without tails; ``"lognormal"``, skewed, :math:`(e^g - e^{1/2}) / \sqrt{(e - 1) e}`.

The attribute ``distribution`` of ``<variable>_error`` names the family of the errors of a variable. Errors without this
attribute are Gaussian. `sdaxr.posterior.mixture` has the densities.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.special import erf, log_ndtr

from sdaxr.observations.correlation import ATTRIBUTE
from sdaxr.observations.matching import ERROR
from sdaxr.schema import DataError, OptionError, nearest

DISTRIBUTION = "distribution"
GAUSSIAN = "gaussian"

Transform = Callable[[np.ndarray], np.ndarray]


def _laplace(g: np.ndarray) -> np.ndarray:
    return np.asarray(-np.sign(g) * math.sqrt(0.5) * (math.log(2) + log_ndtr(-np.abs(g))))


def _uniform(g: np.ndarray) -> np.ndarray:
    return np.asarray(math.sqrt(3) * erf(g / math.sqrt(2)))


def _lognormal(g: np.ndarray) -> np.ndarray:
    return np.asarray((np.exp(g) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e))


FAMILIES: dict[str, Transform] = {
    GAUSSIAN: lambda g: g,
    "laplace": _laplace,
    "uniform": _uniform,
    "lognormal": _lognormal,
}


def noise_of(name: str) -> Transform:
    """The function T of a family: from standard normal numbers to errors of standard deviation 1.

    Raises
    ------
    OptionError
        If there is no such family.
    """
    if name not in FAMILIES:
        raise OptionError(f"noise={nearest(name, FAMILIES)}")
    return FAMILIES[name]


def family_of(observations: xr.Dataset, name: str) -> str:
    """The family of the errors of a variable, from the attribute of ``<variable>_error``.

    Raises
    ------
    DataError
        If the family is unknown, or the errors are correlated and not Gaussian.
    """
    attrs = observations[f"{name}{ERROR}"].attrs
    family = str(attrs.get(DISTRIBUTION, GAUSSIAN))
    where = f"the attribute '{DISTRIBUTION}' of '{name}{ERROR}'"
    if family not in FAMILIES:
        raise DataError(f"{where} is {nearest(family, FAMILIES)}")
    if family != GAUSSIAN and ATTRIBUTE in attrs:
        raise DataError(
            f"{where} is {family!r} beside the attribute '{ATTRIBUTE}', expected {GAUSSIAN!r}, because only "
            "Gaussian errors can be correlated; drop one of the two attributes"
        )
    return family

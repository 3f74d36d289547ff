r"""Families of observation errors of mean zero and standard deviation one.

``"gaussian"``; ``"laplace"``, with heavy tails; ``"uniform"``, with none; ``"lognormal"``, which is skewed:
:math:`(e^{\epsilon} - e^{1/2}) / \sqrt{(e - 1) e}` for standard normal :math:`\epsilon`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .schema import OptionError, nearest

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _lognormal(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (np.exp(draw.standard_normal(shape)) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)


NOISES: dict[str, Draw] = {
    "gaussian": lambda draw, shape: draw.standard_normal(shape),
    "laplace": lambda draw, shape: draw.laplace(scale=math.sqrt(0.5), size=shape),
    "uniform": lambda draw, shape: draw.uniform(-math.sqrt(3), math.sqrt(3), shape),
    "lognormal": _lognormal,
}


def noise_of(name: str) -> Draw:
    """(generator, shape) to independent errors of the family.

    Raises
    ------
    OptionError
        If there is no such family.
    """
    if name not in NOISES:
        raise OptionError(f"noise={nearest(name, NOISES)}")
    return NOISES[name]

"""Masks: which places of a grid are observed, and when.

A mask is a boolean DataArray on time and the horizontal dimensions. Where it is True, all variables and layers are
observed. `sdaxr.observe` takes it as ``where=``. Random places and places at equal distances, fixed or changing in
time, are the networks of Li, Dong & Zhang 2024 (arXiv:2407.21314).
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import TIME, DataError, OptionError, check_least, nearest
from sdaxr.states.axes import space_dimensions
from sdaxr.states.coordinates import coordinate_of, onto_grid
from sdaxr.states.time import onto_times


def random_mask(data: xr.Dataset, coverage: float, *, fixed: bool = False, seed: int = 0) -> xr.DataArray:
    """Places at random, the same number at each time.

    Parameters
    ----------
    data
        Dataset that is observed, such as a truth or the output of an operator. Only its labels are used. Its variables
        share one or two horizontal dimensions, of any names.
    coverage
        Fraction of the places (land among them) that are observed, above 0 and at most 1; rounded to a whole number of
        places.
    fixed
        The same places at all times; otherwise they are drawn anew for each.
    seed
        Seed of the places. With one seed, the places of a smaller coverage are among those of a larger one.

    Returns
    -------
    xr.DataArray
        True where observed, on time and the horizontal dimensions of ``data``; without time where ``data`` has none.

    Raises
    ------
    OptionError
        If the coverage is impossible, or less than one place.
    DataError
        If the variables do not share one or two horizontal dimensions.
    """
    if not isinstance(coverage, Real) or not 0 < coverage <= 1:
        raise OptionError(f"coverage is {coverage!r}, expected a fraction above 0, at most 1")
    mask, times, shape = _nowhere(data)
    places = math.prod(shape)
    count = round(coverage * places)
    if count == 0:
        raise OptionError(
            f"coverage is {coverage} of {places} places, which is none; expected {1 / places:.2g} at least"
        )
    check_least("seed", seed, 0)
    rank = np.random.default_rng([seed, 2]).random((1 if fixed else times, places)).argsort().argsort()
    return mask.copy(data=np.broadcast_to(rank < count, (times, places)).reshape(mask.shape))


def strided_mask(data: xr.Dataset, stride: int, *, shift: int = 0) -> xr.DataArray:
    """Every ``stride``-th place along each horizontal dimension: one in each block of stride (x stride) places.

    Parameters
    ----------
    data
        As for `random_mask`.
    stride
        Distance of observed places, in cells. At the first time they are those of ``operators.subsample(stride)``.
    shift
        Cells by which the observed place of a block moves from one time to the next, row by row. With 1, each place of
        the grid is observed once in ``stride`` (in two dimensions ``stride**2``) times; with 0, places are fixed.

    Returns
    -------
    xr.DataArray
        As of `random_mask`.

    Raises
    ------
    OptionError
        If ``stride`` or ``shift`` is no whole number, or a block does not fit on the grid.
    DataError
        As `random_mask`.
    """
    mask, times, shape = _nowhere(data)
    if not _is_whole(stride) or not 1 <= stride <= min(shape):
        raise OptionError(f"stride is {stride!r}, expected a whole number from 1 to {min(shape)}, the size of the grid")
    if not _is_whole(shift):
        raise OptionError(f"shift is {shift!r}, expected a whole number of cells")
    block = (stride,) * len(shape)
    observed = np.unravel_index(shift * np.arange(times) % math.prod(block), block)
    axes = [(np.arange(n) - first[:, None]) % stride == 0 for n, first in zip(shape, observed, strict=True)]
    both = axes[0] if len(axes) == 1 else axes[0][:, :, None] & axes[1][:, None, :]
    return mask.copy(data=both.reshape(mask.shape))


_PARAMETERS: dict[str, Callable[..., xr.DataArray]] = {"coverage": random_mask, "stride": strided_mask}


def mask_of(where: xr.DataArray | Mapping[str, Any] | None, data: xr.Dataset, seed: int) -> xr.DataArray:
    """The mask ``where`` on the grid of ``data``, or the mask with these parameters; a single True for None.

    Parameters
    ----------
    where
        A mask, or parameters of `random_mask` or `strided_mask`.
    data
        Dataset that is observed. A mask may lack dimensions, which are then observed as a whole, and have more times.
    seed
        Seed of `random_mask` where the parameters have none.

    Raises
    ------
    OptionError, DataError, GridError
        If ``where`` is not a mask, is not on the grid of ``data``, or leaves nothing to observe.
    """
    if where is None:
        return xr.DataArray(True)
    if isinstance(where, Mapping):
        maker = maker_of(where)
        seeds = {"seed": seed} if maker is random_mask else {}
        mask = maker(data, **(seeds | dict(where)))
    else:
        mask = _on_grid(where, data)
    if not any(bool((mask & value.notnull()).any()) for value in data.data_vars.values()):
        raise DataError(
            f"where= leaves nothing of the {dict(data.sizes)} values to observe, expected some that are True and not "
            "on land; choose other places or times"
        )
    return mask


def maker_of(where: Mapping[str, Any]) -> Callable[..., xr.DataArray]:
    """`random_mask` or `strided_mask`, whose parameters these are; raises `OptionError` if they are of neither."""
    maker = next((_PARAMETERS[key] for key in where if key in _PARAMETERS), None)
    if maker is None:
        raise OptionError(
            f"where= has the parameters {list(where)}, expected 'coverage' (random_mask) or 'stride' (strided_mask)"
        )
    known = list(inspect.signature(maker).parameters)[1:]
    for key in where:
        if key not in known:
            raise OptionError(f"where= has the parameter {nearest(key, known)}")
    return maker


def describe(where: xr.DataArray | Mapping[str, Any] | None, mask: xr.DataArray) -> dict[str, Any]:
    """Attributes of observations under a mask: the fraction that it covers, and its parameters as JSON."""
    if where is None:
        return {}
    given = {"where": json.dumps(dict(where), default=str)} if isinstance(where, Mapping) else {}
    return {**given, "coverage": float(mask.mean())}


def _nowhere(data: xr.Dataset) -> tuple[xr.DataArray, int, tuple[int, ...]]:
    """A mask that is False everywhere, the number of times (1 without time), and the sizes of the horizontal grid."""
    moving = [v for v in data.data_vars.values() if TIME in v.dims or TIME not in data.dims]
    spaces = {frozenset(d): d for v in moving if (d := space_dimensions(v))}
    if len(spaces) != 1 or len(next(iter(spaces))) > 2:
        raise DataError(
            f"found the horizontal dimensions {[list(map(str, d)) for d in spaces.values()]}, expected one or two that "
            "all variables share; select variables, ds[['u', 'v']], or pass a mask of your own"
        )
    space = next(iter(spaces.values()))
    dims = (*((TIME,) if TIME in data.dims else ()), *space)
    coords = {d: data[d].variable for d in dims if d in data.coords}
    mask = xr.DataArray(np.zeros([data.sizes[d] for d in dims], bool), coords, dims, name="observed")
    return mask, data.sizes.get(TIME, 1), tuple(data.sizes[d] for d in space)


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _on_grid(mask: object, data: xr.Dataset) -> xr.DataArray:
    """A mask at the times of the data, without further coordinates."""
    if not isinstance(mask, xr.DataArray):
        raise OptionError(
            f"where= is {mask!r}, expected a boolean DataArray, or parameters such as {{'coverage': 0.01}} or "
            "{'stride': 4}"
        )
    if mask.dtype != bool:
        raise DataError(f"where= holds {mask.dtype}, expected bool, True where observed; compare it, such as mask > 0")
    for name, value in data.data_vars.items():
        if strange := [d for d in mask.dims if d not in value.dims]:
            raise DataError(
                f"where= has the dimensions {strange}, expected some of {list(value.dims)}, those of '{name}'; select "
                "or rename them"
            )
    remedy = "make it from the operator's output, operator.apply(truth)"
    labels = {"of": "where=", "like": "the observations"}
    if TIME in mask.indexes and TIME in data.indexes:
        mask = onto_times(mask, data[TIME], **labels)
    grid = {d: coordinate_of(data[d]) if d in data.coords else data.sizes[d] for d in mask.dims if d != TIME}
    mask = onto_grid(mask, grid, **labels, remedy=remedy)
    return mask.drop_vars([c for c in mask.coords if c not in mask.dims]).compute()

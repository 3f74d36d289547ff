"""Baselines: climatology, and observations interpolated in space and time.

`interpolate` is linear in both. The gaps of each station (or cell) are filled in time first: a place that is observed
once or more has a value at all times. In space, the interpolation is multilinear between the points of a grid, also
across the seam of a periodic dimension, and piecewise linear on Delaunay triangles between scattered points. Nothing is
extrapolated: outside the hull of the points, before the first and after the last time, the nearest value is taken.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.format import COMPLETE
from sdaxr.archives.provenance import provenance_attrs
from sdaxr.schema import MEMBER, TIME, TRAJECTORY, DataError, check_units
from sdaxr.states.axes import ensemble_dimension, is_latitude, is_longitude, space_dimensions
from sdaxr.states.coordinates import gathered, period_of, turn_of, unrolled, wrapped
from sdaxr.states.inputs import as_dataset
from sdaxr.states.time import calendar_of, check_kind, elapsed, time_kind
from sdaxr.verification.alignment import single, valid_times
from sdaxr.verification.seasonal import Seasons

# Operators whose output are values or means of the state variables themselves.
_DIRECT = {"identity", "select", "coarsen", "subsample", "region", "points", "compose"}


def climatology(trajectories: xr.Dataset, like: xr.Dataset, *, members: int | None = None, seed: int = 0) -> xr.Dataset:
    """Mean of the training states, or states drawn from them, at the times of ``like``.

    Where time is a calendar, and the training states resolve and cover days or a year in regular steps, the mean is
    that of the time of day and year (`sdaxr.states.seasonal`), as in a prior with ``normalise="climatology"``, and the
    states that are drawn are moved: their anomalies, in units of the standard deviation, are put to the times of
    ``like``.

    Parameters
    ----------
    trajectories
        ``([trajectory], time, ...)``. Of trajectories with the coordinates ``split`` and ``status``, those for training
        that are complete are used.
    like
        Dataset with the ``time`` (or ``valid_time``) of the result, such as the truth.
    members
        Number of states that are drawn at random, independently for each time. None: the mean state.
    seed
        Seed of the draws.

    Returns
    -------
    xarray.Dataset
        ``(time, ...)`` or ``(member, time, ...)``, in the units of ``trajectories``; lazy where they are lazy, and have
        no cycle.

    Raises
    ------
    DataError
        If there is no complete trajectory for training, or no time, or the calendars differ.
    """
    trajectories, like = as_dataset(trajectories, "the trajectories"), as_dataset(like, "like=")
    training = _training(trajectories)
    sample = [d for d in (ensemble_dimension(training), TIME) if d in training.dims]
    if TIME not in sample:
        raise DataError(f"found the dimensions {tuple(map(str, training.dims))}, expected 'time' among them")
    times, seasons = _times(like), Seasons.of(training)
    if members is None:
        mean = training.reset_coords(drop=True).mean(sample, keep_attrs=True)
        mean = mean.expand_dims({times.dims[0]: times.size}).assign_coords(times.coords)
        if seasons is not None:
            usual = seasons.at(times)[0]
            mean = mean.assign({n: mean[n].copy(data=v.transpose(*mean[n].dims).values) for n, v in usual.items()})
        return mean.assign_attrs(provenance_attrs("mean state of the training data", "climatology"))
    random = np.random.default_rng(seed)
    dims = (MEMBER, times.dims[0])
    picks = {d: xr.DataArray(random.integers(training.sizes[d], size=(members, times.size)), dims=dims) for d in sample}
    drawn = training.reset_coords(drop=True).drop_vars(sample, errors="ignore").isel(picks)
    member = xr.Variable(MEMBER, np.arange(members), {"standard_name": "realization", "units": "1"})
    drawn = drawn.transpose(*dims, ...).assign_coords({**times.coords, MEMBER: member})
    if seasons is not None:
        drawn = seasons.moved(drawn, picks[TIME].values, times)
    return drawn.assign_attrs(provenance_attrs("states of the training data", "climatology", seed=seed))


def interpolate(observations: xr.Dataset, like: xr.Dataset) -> xr.Dataset:
    """Observations of the state, interpolated linearly to the points and times of ``like``.

    Parameters
    ----------
    observations
        Values or means of the state variables themselves, at the points of a coarser grid ``(time, ..., y, x)``
        or at stations ``(time, station)`` with coordinates ``y(station), x(station)``; NaN where not observed.
        `sdaxr.observe` makes them with identity, select, coarsen, subsample, region, points and their compositions.
    like
        Dataset with the variables, times and points of the result, such as the truth; its values are not read. The
        points are a grid, or stations with coordinates. A dimension is periodic where the points of ``like``, or those
        of the observations, go once around (`sdaxr.states.coordinates.period_of`).

    Returns
    -------
    xarray.Dataset
        ``(time, ...)`` on the points of ``like``, float64. Variables of ``like`` that are not observed are left out.

    Raises
    ------
    DataError
        If the observations are not of the state itself (of its vorticity, for example), are never finite, or have no
        coordinates in common with ``like``.
    UnitsError
        If the units differ.
    """
    observations, like = as_dataset(observations, "the observations"), as_dataset(like, "like=")
    _check_direct(observations)
    like = single(like)
    names = [n for n in like.data_vars if n in observations.data_vars]
    if not names:
        raise DataError(
            f"found observations of {sorted(map(str, observations.data_vars))}, expected some of "
            f"{sorted(map(str, like.data_vars))}; only observations of the state itself can be interpolated"
        )
    result = {}
    for name in names:
        check_units(str(name), observations[name].attrs.get("units"), like[name].attrs.get("units"))
        result[name] = _interpolate(observations[name], like[name], _times(like))
    return xr.Dataset(result, attrs=provenance_attrs("interpolated observations", "linear interpolation"))


def _interpolate(observed: xr.DataArray, like: xr.DataArray, times: xr.DataArray) -> xr.DataArray:
    from_space, to_space = space_dimensions(observed), space_dimensions(like)
    if TIME not in observed.dims:
        raise DataError(f"the observations of '{observed.name}' have no 'time' dimension, expected one")
    layers = [d for d in like.dims if d not in (*to_space, *times.dims)]
    observed = observed.transpose(TIME, *layers, *from_space)
    values = np.asarray(observed.values, np.float64)
    flat = values.reshape(values.shape[0], -1)
    if not np.isfinite(flat).any():
        raise DataError(f"'{observed.name}' has no finite observation, expected at least one")
    flat = _fill_in_time(*_comparable(observed[TIME], times), flat)
    values = flat.reshape(times.size, *values.shape[1:])  # NaN only where never observed
    if to_space:
        values = _in_space(values, observed, like, len(layers))
    coords = {n: c for n, c in like.coords.items() if set(c.dims) <= {*to_space, *layers} and c.dims}
    dims = (*times.dims, *layers, *to_space)
    return xr.DataArray(values, {**times.coords, **coords}, dims, like.name, like.attrs)


def _comparable(observed: xr.DataArray, wanted: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    check_kind(observed, time_kind(wanted), of="the observations", like="'like'", calendar=calendar_of(wanted))
    origin = observed.values[0]
    return elapsed(observed, origin), elapsed(wanted, origin)


def _fill_in_time(observed: np.ndarray, wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From (observed time, place) to (wanted time, place), linear between the finite values of each place."""
    order = np.argsort(observed)
    observed, values = observed[order], values[order]
    finite = np.isfinite(values)
    result = np.full((wanted.size, values.shape[1]), np.nan)
    whole = finite.all(axis=0)
    result[:, whole] = _weights(observed, wanted) @ values[:, whole]
    for column in np.flatnonzero(finite.any(axis=0) & ~whole):
        here = finite[:, column]
        result[:, column] = np.interp(wanted, observed[here], values[here, column])
    return result


def _in_space(values: np.ndarray, observed: xr.DataArray, like: xr.DataArray, layers: int) -> np.ndarray:
    axes = _axes(observed, like)
    periods = [_period(like[a], observed[a]) for a in axes]
    on_grid = all(a in observed.dims for a in axes)
    if on_grid and np.isfinite(values).all():
        return _from_grid(values, observed, like, axes, periods)
    points, targets = _points(observed, axes), _points(like, axes)
    for i, (axis, period) in enumerate(zip(axes, periods, strict=True)):
        turn = turn_of(axis, observed[axis].attrs)
        if turn is not None and period is None:
            together = gathered(np.concatenate([points[:, i], targets[:, i]]), turn)
            points[:, i], targets[:, i] = np.split(together, [len(points)])
    points, targets, periods = _on_plane(points, targets, axes, observed, periods)
    leading = values.shape[: 1 + layers]
    rows = values.reshape(*leading, -1)
    shape = tuple(like.sizes[d] for d in space_dimensions(like))
    result = np.empty((*leading, *shape))
    for at in np.ndindex(*leading[1:]):
        block = rows[(slice(None), *at)]
        known = np.isfinite(block).all(axis=0)
        if not known.any():
            raise DataError(f"'{observed.name}' has no finite observation at {at} of its layers, expected one")
        scattered = _from_points(points[known], block[:, known].T, targets, periods)
        result[(slice(None), *at)] = scattered.T.reshape(-1, *shape)
    return result


def _on_plane(
    points: np.ndarray,
    targets: np.ndarray,
    axes: Sequence[Hashable],
    observed: xr.DataArray,
    periods: Sequence[float | None],
) -> tuple[np.ndarray, np.ndarray, list[float | None]]:
    """Points, targets and periods with longitudes shrunk by cos(latitude), as the triangles depend on distances."""
    # At least 0.1, as the cosine vanishes at the poles.
    stretch = np.ones(len(axes))
    for i, axis in enumerate(axes):
        if is_longitude(axis, observed[axis].attrs):
            for j, other in enumerate(axes):
                if is_latitude(other, observed[other].attrs):
                    stretch[i] = max(float(np.cos(np.deg2rad(targets[:, j].mean()))), 0.1)
    scaled = [None if p is None else float(p * s) for p, s in zip(periods, stretch, strict=True)]
    return points * stretch, targets * stretch, scaled


def _axes(observed: xr.DataArray, like: xr.DataArray) -> list[Hashable]:
    """The coordinates of the places: dimensions of a grid, or coordinates along the stations."""

    def places(data: xr.DataArray) -> Iterator[Hashable]:
        space = set(space_dimensions(data))
        for name, coord in data.coords.items():
            if coord.ndim == 1 and coord.dims[0] in space and coord.dtype.kind in "fiu":
                yield name

    for data, other in ((like, observed), (observed, like)):
        dims = list(space_dimensions(data))
        if dims and set(dims) <= set(places(data)) and set(dims) <= set(places(other)):
            along = {d for d in dims for n in places(data) if n != d and data[n].dims == (d,)}
            if not along:
                return dims
    common = [n for n in places(like) if n in set(places(observed)) and n not in (*like.dims, *observed.dims)]
    if common:
        return common
    raise DataError(
        f"'{observed.name}' is observed at the coordinates {sorted(map(str, places(observed)))}, and 'like' has "
        f"{sorted(map(str, places(like)))}: expected the same names; add the positions with ds.assign_coords(...)"
    )


def _from_grid(
    values: np.ndarray,
    observed: xr.DataArray,
    like: xr.DataArray,
    axes: Sequence[Hashable],
    periods: Sequence[float | None],
) -> np.ndarray:
    """From (..., *coarse) to (..., *fine) or (..., stations), with one matrix of linear weights for each axis."""
    order = [d for d in space_dimensions(observed)]
    weights = {a: _weights(*_on_line(observed[a], like[a]), period) for a, period in zip(axes, periods, strict=True)}
    if all(a in like.dims for a in axes):
        for position, axis in enumerate(order):
            at = values.ndim - len(order) + position
            values = np.moveaxis(np.tensordot(values, weights[axis], axes=(at, 1)), -1, at)
        target = [order.index(d) - len(order) for d in space_dimensions(like)]
        leading = values.ndim - len(order)
        return values.transpose(*range(leading), *(values.ndim + t for t in target))
    letters = "yxz"[: len(order)]
    terms = ",".join(f"s{letter}" for letter in letters)
    return np.asarray(np.einsum(f"...{letters},{terms}->...s", values, *(weights[a] for a in order)))


def _on_line(observed: xr.DataArray, like: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Both coordinates in one count: a region may lie across the seam, or be counted from another meridian."""
    turn = turn_of(observed.name, observed.attrs)
    source = unrolled(observed.values, turn)
    return source, wrapped(like.values, source, turn)


def _weights(source: np.ndarray, target: np.ndarray, period: float | None = None) -> np.ndarray:
    """Linear interpolation from ``source`` to ``target`` as a matrix (target, source), constant beyond the ends."""
    order = np.argsort(source)
    knots = source[order]
    if period is not None:
        order = np.concatenate([order[-1:], order, order[:1]])
        knots = np.concatenate([knots[-1:] - period, knots, knots[:1] + period])
        target = (target - knots[0]) % period + knots[0]
    columns = np.eye(source.size)[order]
    return np.stack([np.interp(target, knots, column) for column in columns.T], axis=1)


def _points(data: xr.DataArray, axes: Sequence[Hashable]) -> np.ndarray:
    """Positions (points, axes), in the order of the flattened space dimensions."""
    space = space_dimensions(data)
    template = xr.DataArray(np.zeros([data.sizes[d] for d in space]), dims=space)
    columns = []
    for axis in axes:
        coordinate = data[axis].reset_coords(drop=True)
        plain = xr.DataArray(coordinate.values.astype(float), dims=coordinate.dims)
        columns.append((template + plain).transpose(*space).values.ravel())
    return np.stack(columns, axis=1)


def _from_points(
    points: np.ndarray, values: np.ndarray, targets: np.ndarray, periods: Sequence[float | None]
) -> np.ndarray:
    """Piecewise linear interpolation of the values (points, times) at points (points, axes) to (targets, times)."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    points, values, targets = _repeated(points, values, targets, periods)
    if points.shape[1] == 1:
        order, single_points = np.unique(points[:, 0], return_index=True)
        return np.asarray(_weights(order, targets[:, 0]) @ values[single_points])
    middle, scale = points.mean(axis=0), np.ptp(np.concatenate([points, targets]), axis=0)
    points, targets = ((p - middle) / np.where(scale > 0, scale.max(), 1) for p in (points, targets))
    result: np.ndarray = NearestNDInterpolator(points, values)(targets)
    try:
        linear = LinearNDInterpolator(points, values)(targets)
    except QhullError:  # fewer than three stations, or all of them on a line
        return result
    return np.where(np.isfinite(linear), linear, result)


def _repeated(
    points: np.ndarray, values: np.ndarray, targets: np.ndarray, periods: Sequence[float | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points with copies beyond both sides of each periodic axis, so that triangles cross the seam."""
    for axis, period in enumerate(periods):
        if period is None:
            continue
        origin = targets[:, axis].min()
        points = points.copy()
        points[:, axis] = (points[:, axis] - origin) % period + origin
        step = np.zeros(points.shape[1])
        step[axis] = period
        points = np.concatenate([points - step, points, points + step])
        values = np.concatenate([values, values, values])
    return points, values, targets


def _period(like: xr.DataArray, observed: xr.DataArray) -> float | None:
    """The period of either grid: where one goes once around, the points of the other lie on the same circle."""
    both = (period_of(c.name, c.values, c.attrs) for c in (like, observed))
    return next((period for period in both if period is not None), None)


def _times(like: xr.Dataset) -> xr.DataArray:
    times = valid_times(like)
    if times is None or times.ndim != 1:
        raise DataError(f"'like' has the dimensions {tuple(map(str, like.dims))}, expected one time dimension")
    return times.reset_coords(drop=True) if times.name == TIME else times


def _training(trajectories: xr.Dataset) -> xr.Dataset:
    dim = ensemble_dimension(trajectories)
    keep = np.full(trajectories.sizes[dim] if dim else 0, True)
    if dim == TRAJECTORY and "split" in trajectories.coords and trajectories["split"].dims == (dim,):
        keep = keep & (trajectories["split"].values.astype(str) == "train")
    if dim == TRAJECTORY and "status" in trajectories.coords and trajectories["status"].dims == (dim,):
        keep = keep & (trajectories["status"].values == COMPLETE)
    if dim and not keep.any():
        raise DataError(
            "found no complete trajectory with split 'train', expected at least one; pass trajectories whose "
            "'split' has the label 'train'"
        )
    return trajectories if dim is None or keep.all() else trajectories.isel({dim: np.flatnonzero(keep)})


def _check_direct(observations: xr.Dataset) -> None:
    text = observations.attrs.get("operator")
    if not text:
        return
    foreign = sorted(set(_operator_names(json.loads(text))) - _DIRECT)
    if foreign:
        raise DataError(
            f"the observations are made with {', '.join(foreign)}, expected values of the state itself "
            f"({', '.join(sorted(_DIRECT - {'compose'}))}); there is no interpolation baseline for them"
        )


def _operator_names(description: Any) -> Iterator[str]:
    if isinstance(description, dict):
        if "op" in description:
            yield str(description["op"])
        for value in description.values():
            yield from _operator_names(value)
    elif isinstance(description, list):
        for value in description:
            yield from _operator_names(value)

r"""Variance and kinetic energy spectra of fields on regular grids of one or two dimensions.

With orthonormal transform coefficients :math:`c_k` of a field with :math:`N` points, Parseval's identity
:math:`\sum_k |c_k|^2 / N = \overline{f^2}` divides the variance among the wavenumbers :math:`\kappa`. Periodic
dimensions have the Fourier transform (:math:`\kappa = 2 \pi n / L`), bounded ones the cosine transform
(:math:`\kappa = \pi n / L`), which needs neither detrending nor a window and keeps the identity exact
(Denis, Côté and Laprise 2002, https://doi.org/10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2).
All modes except the mean are summed into evenly spaced shells. The spacing is the lowest wavenumber of a dimension, the
largest where there are two. The sum over the shells is the spatial variance.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from sdaxr.schema import GridError
from sdaxr.states.axes import is_latitude, is_longitude, space_dimensions
from sdaxr.states.coordinates import EARTH_RADIUS, period_along, turn_of, unrolled
from sdaxr.states.units import power

# Largest deviation of a step on a regular grid, as a fraction of the mean step: Gaussian latitudes, whose steps differ
# by a few thousandths, count as regular.
_UNEVEN = 1e-2
# In degrees: a plane does not approximate more of a sphere.
_WIDEST_LATITUDES = 90.0
_VELOCITIES = (("u", "v"), ("ua", "va"), ("uo", "vo"), ("u10", "v10"), ("u100", "v100"))


def spectrum(data: xr.Dataset) -> xr.Dataset:
    """Isotropic variance spectrum of every variable; of a pair of velocities, the kinetic energy spectrum.

    Parameters
    ----------
    data
        Variables ``(..., x)`` or ``(..., y, x)`` on a regular grid. A dimension is periodic where its points go once
        around (`sdaxr.states.coordinates.period_of`). Degrees become metres at the middle latitude.

    Returns
    -------
    xarray.Dataset
        ``(..., wavenumber)``, in squared units: the variance about the spatial mean in each shell of the angular
        wavenumber. Two velocities (``u`` and ``v``, or the CF standard names of wind and current) become
        ``kinetic_energy``, half the sum of their spectra.

    Raises
    ------
    GridError
        If a variable is not on a regular grid of one or two dimensions.
    """
    pair = velocity_pair(data)
    result: dict[Hashable, xr.DataArray] = {}
    if pair is not None:
        first, second = (_variance_spectrum(data[name]) for name in pair)
        result["kinetic_energy"] = (0.5 * (first + second)).assign_attrs(
            units=first.attrs["units"], long_name="kinetic energy spectrum"
        )
    for name in data.data_vars:
        if pair is None or name not in pair:
            result[name] = _variance_spectrum(data[name])
    return xr.Dataset(result)


def velocity_pair(data: xr.Dataset) -> tuple[Hashable, Hashable] | None:
    """Names of the eastward (x) and the northward (y) velocity in ``data``; None if there are none."""
    standard = {data[n].attrs.get("standard_name"): n for n in data.data_vars}
    named = [
        (standard[f"eastward_{kind}"], standard[f"northward_{kind}"])
        for kind in ("wind", "sea_water_velocity")
        if f"eastward_{kind}" in standard and f"northward_{kind}" in standard
    ]
    for pair in [*named, *_VELOCITIES]:
        if all(n in data.data_vars for n in pair):
            u, v = (data[n] for n in pair)
            if u.dims == v.dims and u.attrs.get("units") == v.attrs.get("units") and space_dimensions(u):
                return pair
    return None


def grid_dimensions(variable: xr.DataArray) -> tuple[Hashable, ...]:
    """The space dimensions of ``variable``, which form a regular grid of one or two dimensions.

    Raises
    ------
    GridError
        If they do not form a regular grid, or span too many latitudes for a plane.
    """
    dims = space_dimensions(variable)
    if len(dims) not in (1, 2):
        raise GridError(
            f"'{variable.name}' has the space dimensions {dims}, expected one or two for a spectrum; "
            "select along the others"
        )
    for dim in dims:
        values = variable[dim].values
        along = [c for c in variable.coords if c != dim and variable[c].dims == (dim,)]
        if along or variable.sizes[dim] < 2 or values.dtype.kind not in "fiu":
            raise GridError(
                f"'{dim}' is not an axis of a grid (stations?), expected one for a spectrum; "
                "leave 'spectrum' out of the metrics"
            )
        steps = np.diff(unrolled(values, turn_of(dim, variable[dim].attrs)))
        if np.abs(steps - steps.mean()).max() > _UNEVEN * abs(steps.mean()):
            raise GridError(f"'{dim}' is not regular, expected equal steps; interpolate it first (ds.interp)")
        wide = is_latitude(dim, variable[dim].attrs) and np.ptp(values) > _WIDEST_LATITUDES
        if wide:
            raise GridError(
                f"'{dim}' spans {np.ptp(values):g} degrees, expected at most {_WIDEST_LATITUDES:g} for "
                "a spectrum on the plane; select a region"
            )
    return dims


def _variance_spectrum(variable: xr.DataArray) -> xr.DataArray:
    dims = grid_dimensions(variable)
    lengths, wave_units = _domain(variable, dims)
    periodic = [period_along(variable, d) is not None for d in dims]
    shells, lowest = _shells(tuple(variable.sizes[d] for d in dims), lengths, periodic)
    count = int(shells.max()) + 1
    chunked = variable.chunk(dict.fromkeys(dims, -1)) if variable.chunks else variable
    result: xr.DataArray = xr.apply_ufunc(
        _shell_variance,
        chunked,
        input_core_dims=[list(dims)],
        output_core_dims=[["wavenumber"]],
        kwargs={"shells": shells, "periodic": periodic},
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"wavenumber": count - 1}},
        keep_attrs=False,
    )
    label = variable.attrs.get("long_name", variable.name)
    units = power(str(variable.attrs.get("units") or "1"), 2)
    attrs = {"units": wave_units, "long_name": "angular wavenumber"}
    result = result.assign_coords(wavenumber=("wavenumber", lowest * np.arange(1, count), attrs))
    return result.rename(variable.name).assign_attrs(units=units, long_name=f"variance spectrum of {label}")


def _shell_variance(values: np.ndarray, *, shells: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """Variance from (..., *space) to (..., shell), with shells counted from 1."""
    import scipy.fft

    coefficients = values.astype(np.float64)
    first = -len(periodic)
    for axis, cyclic in enumerate(periodic, start=first):
        if not cyclic:
            coefficients = scipy.fft.dct(coefficients, axis=axis, norm="ortho")
    axes = [axis for axis, cyclic in enumerate(periodic, start=first) if cyclic]
    if axes:
        coefficients = scipy.fft.fftn(coefficients, axes=axes, norm="ortho")
    power = np.abs(coefficients.reshape(-1, shells.size)) ** 2 / shells.size
    count = int(shells.max()) + 1
    summed = np.stack([np.bincount(shells.ravel(), weights=row, minlength=count) for row in power])
    return summed[:, 1:].reshape(*values.shape[:first], count - 1)


def _shells(sizes: tuple[int, ...], lengths: Sequence[float], periodic: Sequence[bool]) -> tuple[np.ndarray, float]:
    waves = []
    for size, length, cyclic in zip(sizes, lengths, periodic, strict=True):
        modes = np.abs(np.fft.fftfreq(size, 1 / size)) if cyclic else np.arange(size) / 2
        waves.append(2 * np.pi / length * modes)
    lowest = max(float(w[w > 0].min()) for w in waves)
    modulus = np.sqrt(sum(w**2 for w in np.meshgrid(*waves, indexing="ij")))
    # Only the mean is in shell 0: on an elongated domain, the longest waves join the first shell.
    return np.where(modulus > 0, np.maximum(np.rint(modulus / lowest), 1), 0).astype(int), lowest


def _domain(variable: xr.DataArray, dims: Sequence[Hashable]) -> tuple[list[float], str]:
    lengths, units = [], set()
    latitudes = [d for d in dims if is_latitude(d, variable[d].attrs)]
    middle = float(variable[latitudes[0]].mean()) if latitudes else 0.0
    for dim in dims:
        values = unrolled(variable[dim].values, turn_of(dim, variable[dim].attrs))
        length = period_along(variable, dim) or abs(float(np.diff(values).mean())) * values.size
        if is_latitude(dim, variable[dim].attrs):
            lengths.append(np.deg2rad(length) * EARTH_RADIUS)
            units.add("m")
        elif is_longitude(dim, variable[dim].attrs):
            lengths.append(np.deg2rad(length) * EARTH_RADIUS * np.cos(np.deg2rad(middle)))
            units.add("m")
        else:
            lengths.append(length)
            units.add(str(variable[dim].attrs.get("units") or "1"))
    if len(units) > 1:
        raise GridError(f"the dimensions {tuple(dims)} have the units {sorted(units)}, expected the same")
    return lengths, power(units.pop(), -1)

"""Spectra: sums, single waves, units, and grids that have none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import GridError
from sdaxr.states.coordinates import EARTH_RADIUS
from sdaxr.verification.spectrum import spectrum


def field(periodic: bool, shape: tuple[int, ...] = (12, 16), seed: int = 0) -> xr.Dataset:
    random = np.random.default_rng(seed)
    dims = ("y", "x")[-len(shape) :]
    period = {"period": 4.0} if periodic else {}
    coords = {
        d: xr.Variable(d, np.arange(n) * 4 / n, {"units": "m", **period}) for d, n in zip(dims, shape, strict=True)
    }
    values = random.standard_normal((3, *shape)) + 5
    return xr.Dataset({n: (("time", *dims), values * k, {"units": "m s-1"}) for k, n in enumerate("uv", 1)}, coords)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(12, 16), (9, 7), (11,), (4, 32)])
def test_spectra_sum_to_the_variance(periodic: bool, shape: tuple[int, ...]):
    data = field(periodic, shape)
    space = data.u.dims[1:]
    energy = spectrum(data).kinetic_energy
    expected = 0.5 * (data.u.var(space) + data.v.var(space))
    np.testing.assert_allclose(energy.sum("wavenumber"), expected)
    scalar = spectrum(data[["u"]])
    np.testing.assert_allclose(scalar.u.sum("wavenumber"), data.u.var(space))
    assert scalar.u.attrs["units"] == "m2 s-2" and scalar.wavenumber.attrs["units"] == "m-1"


def test_a_single_wave_falls_into_its_shell():
    x = field(True, (16, 16))
    wave = np.cos(2 * np.pi / 4 * (3 * x.x + 4 * x.y)).expand_dims(time=1)
    found = spectrum(xr.Dataset({"t": wave.assign_attrs(units="K")})).t[0]
    assert float(found.wavenumber[int(found.argmax("wavenumber"))]) == pytest.approx(5 * 2 * np.pi / 4)
    assert float(found.max()) == pytest.approx(0.5)


def test_a_region_of_a_periodic_grid_is_not_periodic():
    data = field(True, (16, 16))
    part = spectrum(data.isel(x=slice(0, 8)))
    assert float(part.wavenumber[0]) == pytest.approx(np.pi / 2)  # half a wave in 2 m, a whole one in 4 m
    space = ("y", "x")
    expected = 0.5 * sum(data[n].isel(x=slice(0, 8)).var(space) for n in "uv")
    np.testing.assert_allclose(part.kinetic_energy.sum("wavenumber"), expected)


def test_spectrum_on_latitudes_is_in_metres():
    lat, lon = 50 + 0.25 * np.arange(8), -5 + 0.25 * np.arange(8)
    data = xr.Dataset({"t2m": (("lat", "lon"), np.random.default_rng(0).random((8, 8)), {"units": "K"})})
    found = spectrum(data.assign_coords(lat=lat, lon=lon))
    assert found.wavenumber.attrs["units"] == "m-1"
    width = np.deg2rad(2) * EARTH_RADIUS * np.cos(np.deg2rad(lat.mean()))
    assert float(found.wavenumber[0]) == pytest.approx(np.pi / width)
    with pytest.raises(GridError, match="spans"):
        spectrum(data.assign_coords(lat=np.linspace(-80, 80, 8), lon=lon))
    with pytest.raises(GridError, match="not regular"):
        spectrum(data.assign_coords(lat=lat**2, lon=lon))


@pytest.mark.parametrize(
    ("part", "lowest"),
    [
        (slice(None), 2 * np.pi / 4),
        (slice(None, None, 2), 2 * np.pi / 4),
        (slice(None, None, -1), 2 * np.pi / 4),
        (slice(0, 8), np.pi / 2),
        (slice(0, 12), np.pi / 3),
    ],
)
def test_the_longest_wave_of_a_part_of_a_periodic_grid(part: slice, lowest: float) -> None:
    """A whole wave around the circle, half a wave on what is cut from it."""
    found = spectrum(field(True, (16,)).isel(x=part))
    assert float(found.wavenumber[0]) == pytest.approx(lowest)


def test_longitudes_are_periodic_around_the_globe_only() -> None:
    lon = np.arange(0.0, 360.0, 10.0)
    wave = xr.Dataset({"t": ("lon", np.cos(np.deg2rad(3 * lon)), {"units": "K"})}, {"lon": lon})
    whole = spectrum(wave)
    assert int(whole.t.values.argmax()) == 2 and float(whole.wavenumber[0]) == pytest.approx(1 / EARTH_RADIUS)
    xr.testing.assert_allclose(spectrum(wave.roll(lon=7, roll_coords=True)), whole)
    half = spectrum(wave.isel(lon=slice(0, 18)))
    assert float(half.wavenumber[0]) == pytest.approx(np.pi / (np.pi * EARTH_RADIUS))
    assert float(spectrum(wave.isel(lon=slice(0, 27))).wavenumber[0]) == pytest.approx(2 / 3 / EARTH_RADIUS)

"""Vorticity of analytic flows, and units of derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from grids import plane, sphere

from sdaxr import operators as op
from sdaxr.schema import OperatorError, UnitsError
from sdaxr.states.coordinates import EARTH_RADIUS


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
def test_vorticity_of_an_analytic_flow(periodic, descending):
    data = plane(size=128, times=1)
    x, y = data.x, data.y
    # psi = sin(2x) cos(3y): u = -dpsi/dy, v = dpsi/dx, zeta = -13 psi.
    data["u"] = (3 * np.sin(2 * x) * np.sin(3 * y)).expand_dims(time=data.time).transpose("time", "y", "x")
    data["v"] = (2 * np.cos(2 * x) * np.cos(3 * y)).expand_dims(time=data.time).transpose("time", "y", "x")
    for name in ("u", "v"):
        data[name].attrs["units"] = "m s-1"
    if not periodic:
        data = data.isel(x=slice(5, 99))
        data.x.attrs.pop("period")
        data.y.attrs.pop("period")
    if descending:
        data = data.isel(y=slice(None, None, -1))
    found = op.vorticity().apply(data)["vorticity"]
    expected = -13 * np.sin(2 * data.x) * np.cos(3 * data.y)
    worst = float(np.abs(found - expected).max())
    assert worst < 0.01 * 13
    assert found.attrs == {"long_name": "vorticity", "units": "s-1"}
    # Second order: half the spacing, a quarter of the error.
    half = op.vorticity().apply(data.isel(x=slice(None, None, 2), y=slice(None, None, 2)))["vorticity"]
    if not periodic:
        ratio = float(np.abs(half - expected).mean()) / float(np.abs(found - expected).mean())
        assert 3.5 < ratio < 4.5


def test_vorticity_is_exact_for_parabolas_on_uneven_bounded_grids():
    x, y = np.array([0.0, 0.5, 1.5, 1.8, 3.0]), np.array([4.0, 3.0, 2.5, 0.0])
    yy, xx = np.meshgrid(y, x, indexing="ij")
    fields = {"u": (("y", "x"), yy**2), "v": (("y", "x"), xx**2 + yy)}
    found = op.vorticity().apply(xr.Dataset(fields, {"x": x, "y": y}))["vorticity"]
    np.testing.assert_allclose(found, 2 * xx - 2 * yy, atol=1e-12)
    assert "units" not in found.attrs


def test_vorticity_of_solid_rotation_on_the_sphere():
    lat, lon = np.linspace(80, -80, 81), np.arange(0, 360, 5.0)
    omega = 1e-5
    data = sphere(lat=lat, lon=lon, times=1).drop_vars("t2m")
    eastward = omega * EARTH_RADIUS * np.cos(np.deg2rad(lat))
    attrs = {"units": "m s-1", "standard_name": "eastward_wind"}
    data["u10"] = (("time", "lat", "lon"), np.broadcast_to(eastward[:, None], (1, 81, 72)).copy(), attrs)
    data["v10"] = (("time", "lat", "lon"), np.zeros((1, 81, 72)), {"units": "m s-1"})
    found = op.vorticity("u10", "v10").apply(data)["vorticity"]
    expected = 2 * omega * np.sin(np.deg2rad(data.lat))
    assert float(np.abs(found - expected).max()) < 0.02 * 2 * omega
    assert found.attrs["standard_name"] == "atmosphere_relative_vorticity"
    assert found.attrs["units"] == "s-1"


def test_vorticity_refuses_what_it_cannot_do():
    data = plane()
    with pytest.raises(OperatorError, match="no variable 'U'"):
        op.vorticity("U").apply(data)
    with pytest.raises(OperatorError, match="two of them horizontal"):
        op.vorticity().apply(data.isel(x=0))
    other = data.copy()
    other["v"].attrs["units"] = "km h-1"
    with pytest.raises(UnitsError, match=r"'v' has units 'km h-1'.*expected 'm s-1'"):
        op.vorticity().apply(other)
    pole = sphere(lat=np.linspace(90, 0, 10))
    pole["v"] = pole["t2m"]
    with pytest.raises(OperatorError, match=r"contains a pole \(90 degrees\).*region"):
        op.vorticity("t2m", "v").apply(pole)
    with pytest.raises(OperatorError, match=r"found the grid \('y', 'lon'\), expected y and x on a plane, or latitude"):
        op.vorticity().apply(data.rename(x="lon"))
    data.x.attrs["units"] = "km"
    with pytest.raises(OperatorError, match="'y' has units 'm' and 'x' has units 'km'; expected the same"):
        op.vorticity().apply(data)
    data.x.attrs["units"] = "m"
    with pytest.raises(OperatorError, match="at least three values"):
        op.vorticity().apply(data.isel(x=slice(0, 2)))

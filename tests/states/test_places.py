"""Latitudes and longitudes of the points of curvilinear grids and meshes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sdaxr.schema import GridError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout
from sdaxr.states.places import places_of

RANDOM = np.random.default_rng(0)


def ocean() -> xr.Dataset:
    north, east = np.meshgrid(np.linspace(30, 50, 6), np.linspace(-20, 10, 8), indexing="ij")
    values = (("time", "y", "x"), RANDOM.normal(size=(12, 6, 8)), {"units": "K"})
    places = {"nav_lat": (("y", "x"), north + 0.1 * east), "nav_lon": (("y", "x"), east)}
    return xr.Dataset({"sst": values}, {"time": np.arange(12.0), **places})


def mesh() -> xr.Dataset:
    values = (("time", "cell"), RANDOM.normal(size=(12, 9)), {"units": "K"})
    centres = {"clat": ("cell", np.linspace(0, 8, 9), {"standard_name": "latitude"})}
    return xr.Dataset({"sst": values}, {"time": np.arange(12.0), **centres})


def test_places_are_carried_in_the_layout_and_its_file() -> None:
    layout = infer_layout(ocean())
    assert layout.places["nav_lat"].dims == ("y", "x") and set(layout.places) == {"nav_lat", "nav_lon"}
    again = StateLayout.from_file(*layout.to_file())
    template = again.template(ocean().time)
    xr.testing.assert_allclose(template.nav_lon.drop_vars("nav_lat"), ocean().nav_lon.drop_vars("nav_lat"))
    assert places_of(mesh(), ["cell"])["clat"].values.shape == (9,)
    assert infer_layout(ocean().drop_vars(["nav_lat", "nav_lon"])).places == {}
    assert "places" not in infer_layout(ocean().drop_vars(["nav_lat", "nav_lon"])).to_file()[1]


def test_places_of_the_data_are_checked() -> None:
    layout = infer_layout(ocean())
    layout.to_array(ocean().transpose("x", "y", "time"))
    layout.to_array(ocean().drop_vars(["nav_lat", "nav_lon"]))
    layout.to_array(ocean().assign_coords(nav_lon=ocean().nav_lon % 360).rename(nav_lat="lat", nav_lon="lon"))
    with pytest.raises(GridError, match=r"'nav_lat' at {'y': 0, 'x': 0} is 48 in the data and 28 in the prior"):
        layout.to_array(ocean().isel(y=slice(None, None, -1)))
    with pytest.raises(GridError, match="'clat' at {'cell': 0}"):
        infer_layout(mesh()).to_array(mesh().isel(cell=slice(None, None, -1)))
    with pytest.raises(GridError, match="'y' has 5 points in the data and 6 in the prior"):
        layout.to_array(ocean().isel(y=slice(1, None)))

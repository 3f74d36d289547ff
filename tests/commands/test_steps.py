"""Steps: the functions with files in the place of Datasets."""

from __future__ import annotations

import errno
import inspect
import os

import numpy as np
import pytest
import xarray as xr
from short_fields import ShortFields

import sdaxr
from sdaxr.archives.stores import save
from sdaxr.commands import steps, texts
from sdaxr.schema import ArchiveError, DataError, GridError, OptionError


@pytest.mark.parametrize("name", steps.STEPS)
def test_a_step_has_the_parameters_of_its_function(name: str) -> None:
    function = inspect.signature(getattr(sdaxr, name)).parameters
    found = steps.parameters(name)
    behind = {n for n, p in function.items() if p.kind is p.KEYWORD_ONLY}
    assert behind <= set(found)
    own = set(inspect.signature(steps.STEPS[name]).parameters)
    assert {n: found[n].default for n in behind - own} == {n: function[n].default for n in behind - own}


def test_a_cycle_takes_what_it_hands_on() -> None:
    found = steps.parameters("cycle")
    assert {"method", "sampler", "precision", "outside", "carry", "inflation", "system"} <= set(found)


def test_one_trajectory_of_many(tmp_path, trajectories: xr.Dataset) -> None:
    save(trajectories, tmp_path / "t.nc")
    save(trajectories.isel(trajectory=0, drop=True), tmp_path / "one.nc")
    how = {"operator": {"op": "identity"}, "error": 0.1}
    last = steps.observe(str(tmp_path / "t.nc"), store=str(tmp_path / "o.nc"), trajectory=-1, **how)
    expected = sdaxr.observe(trajectories.isel(trajectory=-1), sdaxr.operators.identity(), error=0.1)
    xr.testing.assert_allclose(last.drop_attrs(), expected.drop_attrs())
    with pytest.raises(DataError, match=r"trajectory=10, expected an index of the 10"):
        steps.observe(str(tmp_path / "t.nc"), store=str(tmp_path / "p.nc"), trajectory=10, **how)
    with pytest.raises(DataError, match="expected 'trajectory'; leave the parameter out"):
        steps.observe(str(tmp_path / "one.nc"), store=str(tmp_path / "p.nc"), trajectory=0, **how)


CSV = "time,lat,lon,t2m [K]\n2019-03-01T00:00,51,0,280\n2019-03-01T01:00,52,1,281\n"


@pytest.fixture
def stations(tmp_path):
    path = tmp_path / "stations.csv"
    path.write_text(CSV)
    return path


@pytest.fixture
def received(monkeypatch):
    """What a step hands to the function behind it, without the work."""
    calls = {}

    def stand_in(name):
        return lambda data, *others, **options: calls.update({name: (data, *others, options.get("observations"))})

    for name in ("report", "assimilate", "cycle", "verify", "plot", "animate"):
        monkeypatch.setattr(sdaxr, name, stand_in(name))
    monkeypatch.setattr(steps, "parameters", lambda name: dict.fromkeys(("operator", "background", "prior", "carry")))
    return calls


def test_every_step_that_takes_observations_takes_a_table(stations, received, monkeypatch, tmp_path, trajectories):
    expected = sdaxr.read_observations(stations, errors={"t2m": 1.0})
    reading = {"errors": {"t2m": 1.0}}
    steps.assimilate(str(stations), "out.zarr", reading=reading)
    steps.cycle(str(stations), "out.zarr", prior="prior.safetensors", reading=reading)
    steps.report(str(stations), "lorenz63", reading=reading)
    xr.testing.assert_identical(received["report"][0], expected)
    xr.testing.assert_identical(received["assimilate"][0], expected)
    xr.testing.assert_identical(received["cycle"][0], expected)
    save(trajectories, tmp_path / "post.nc")
    steps.verify(str(tmp_path / "post.nc"), str(stations), reading=reading)
    xr.testing.assert_identical(received["verify"][1], expected)
    monkeypatch.setattr("matplotlib.pyplot.close", lambda figure: None)
    figure = tmp_path / "a.gif"
    for name in ("plot", "animate"):
        with pytest.raises(Exception):  # noqa: B017
            # The stand-ins draw nothing, so that there is no file to be renamed.
            getattr(steps, name)(str(tmp_path / "post.nc"), str(figure), observations=str(stations), reading=reading)
        xr.testing.assert_identical(received[name][-1], expected)


def test_each_network_is_read_in_its_own_way(stations, received):
    other = stations.with_name("ships.csv")
    other.write_text(CSV.replace("[K]", "[degC]"))
    steps.assimilate(
        [str(stations), str(other)], "out.zarr", reading={"stations": {"errors": 1.0}, "ships": {"errors": 2.0}}
    )
    networks = received["assimilate"][0]
    assert {n: float(d.t2m_error[0]) for n, d in networks.items()} == {"stations": 1.0, "ships": 2.0}
    steps.assimilate([str(stations), str(other)], "out.zarr", reading={"errors": 3.0})
    assert {float(d.t2m_error[0]) for d in received["assimilate"][0].values()} == {3.0}


def test_statuses_are_counted_and_written(tmp_path):
    time = ("time", 0.025 * np.arange(4), {"units": "1"})
    seen = xr.Dataset({"a": ("time", [1.0, 2.0, np.nan, 1e20], {"units": "1"}), "a_error": 1.0}, {"time": time})
    background = xr.Dataset({"a": ((), -9.0, {"units": "1"}), "a_error": 0.1})
    paths = [str(tmp_path / f"{name}.nc") for name in ("seen", "twin", "first", "statuses")]
    for data, path in zip((seen, seen, background, None), paths, strict=True):
        if data is not None:
            save(data, path)
    how = {"background": paths[2], "screening": {"gross_error": 5}}
    found = steps.report(paths[0], "lorenz63", store=paths[3], **how)
    rows = [line.split() for line in texts.statuses(found).splitlines()]
    assert rows[0] == ["a"] and {word: int(n) for word, n in rows[1:] if n != "0"} == {
        "used": 1,
        "missing": 1,
        "failed_background_check": 1,
        "implausible": 1,
    }
    np.testing.assert_array_equal(sdaxr.open_archive(paths[3]).a_status, found.a_status)
    both = texts.statuses(steps.report(paths[:2], "lorenz63"))
    assert both.splitlines()[0].split() == ["seen", "a", "twin", "a"] and both.splitlines()[1].split() == [
        "used",
        *"22",
    ]
    steps.report(paths[:2], "lorenz63", store=paths[3])
    for name in ("seen", "twin"):
        status = sdaxr.open_archive(tmp_path / f"statuses-{name}.nc").a_status
        np.testing.assert_array_equal(status, sdaxr.report(seen, "lorenz63").a_status)
    (tmp_path / "other-twin.nc").touch()
    with pytest.raises(ArchiveError, match="other-twin.nc' exists"):
        steps.report(paths[:2], "lorenz63", store=str(tmp_path / "other.nc"))
    assert not (tmp_path / "other-seen.nc").exists()


def test_a_figure_that_cannot_be_written_is_named_as_it_was_asked_for(trajectories, tmp_path, monkeypatch) -> None:
    save(trajectories.isel(trajectory=0, drop=True), tmp_path / "t.nc")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    figure = tmp_path / "f.png"
    with pytest.raises(ArchiveError, match=f"^cannot write '{figure}': No space left on device; free some space"):
        steps.plot(str(tmp_path / "t.nc"), str(figure))
    assert [path.name for path in tmp_path.iterdir()] == ["t.nc"]


def test_a_prior_of_patches_is_put_on_the_domain_of_a_file(tmp_path) -> None:
    """Observations of a grid that the prior has not seen, in one window and in two."""
    small, large = (fields.dataset(fields.draw(n)) for fields, n in ((ShortFields(16), 40), (ShortFields(24), 2)))
    prior = sdaxr.train(
        small,
        tmp_path / "p.safetensors",
        window=1,
        steps=0,
        network={"widths": (4, 8), "blocks": 1},
        optimisation={"batch": 4},
        statistics={"patches": {"y": 8, "x": 8}},
        progress=False,
        context=(),
    )
    save(large, tmp_path / "grid.nc")
    observations = sdaxr.observe(large, sdaxr.operators.subsample(4), error=0.1, seed=0)
    save(observations, tmp_path / "o.nc")
    files = {"observations": str(tmp_path / "o.nc"), "prior": str(tmp_path / "p.safetensors")}
    how = {"members": 2, "sampler": {"steps": 2, "mixing": False}, "progress": False}
    domain = str(tmp_path / "grid.nc")
    found = steps.assimilate(**files, store=str(tmp_path / "a.zarr"), domain=domain, **how)
    expected = sdaxr.assimilate(observations, prior.on(large), **how)
    xr.testing.assert_equal(found.drop_vars("status").drop_attrs().load(), expected.drop_attrs())
    cycled = steps.cycle(**files, store=str(tmp_path / "c.nc"), domain=domain, window=1, **how)
    assert cycled.sizes["y"] == 24 and cycled.sizes["time"] == 2
    report = steps.report(**files, domain=domain)
    assert report.attrs["observations_used"] == observations.a.size
    ahead = steps.forecast(
        str(tmp_path / "a.zarr"), files["prior"], str(tmp_path / "f.zarr"), domain=domain, steps=1, sampler={"steps": 2}
    )
    assert ahead.sizes["y"] == 24
    fields = steps.denoise(domain, files["prior"], str(tmp_path / "d.nc"), domain=domain, error=0.3, steps=2)
    assert fields.sizes["y"] == 24
    with pytest.raises(GridError, match="the period 24, that of the prior 16"):
        steps.assimilate(**files, store=str(tmp_path / "b.zarr"), **how)
    with pytest.raises(OptionError, match=r"domain '.*grid.nc' without a prior"):
        steps.assimilate(files["observations"], str(tmp_path / "b.zarr"), system="lorenz63", domain=domain)

"""Parameters in the state of a system: drawn by the seed, kept by the trajectory, used by the system."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sdaxr
from sdaxr.archives.seeds import unit_seed
from sdaxr.schema import OptionError
from sdaxr.systems.augmented import Augmented
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.lorenz63 import Lorenz63
from sdaxr.systems.lorenz96 import Lorenz96
from sdaxr.systems.registry import open_system

RINGS = Lorenz96(sites=8, spin_up=20)
SYSTEMS = {
    "lorenz96": Augmented.of(RINGS, {"forcing": (6, 10), "damping": (0.9, 1.1)}),
    "lorenz63": Augmented.of(Lorenz63(noise=0.0, spin_up=20), {"rho": (26, 30)}),
}
SMALL = {"trajectories": 5, "steps": 4, "seed": 3, "sites": 8, "spin_up": 20, "progress": False}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_trajectory_is_that_of_the_system_with_the_values_of_its_seed(name: str) -> None:
    system = SYSTEMS[name]
    values = system.values(5)
    assert all(low <= values[n] <= high for n, low, high in system.ranges)
    found, expected = system.trajectory(6, 5), replace(system.model, **values).trajectory(6, 5)
    for variable, array in expected.items():
        np.testing.assert_array_equal(found[variable], array)
    for parameter, value in values.items():
        np.testing.assert_array_equal(found[parameter], np.full(6, value, np.float32))
    drawn = np.array([list(system.values(seed).values()) for seed in range(2000)])
    for column, (_, low, high) in zip(drawn.T, system.ranges, strict=True):
        np.testing.assert_allclose([column.mean(), column.std()], [(low + high) / 2, (high - low) / 12**0.5], rtol=0.05)


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_member_moves_with_its_own_parameters(name: str) -> None:
    system, random = SYSTEMS[name], np.random.default_rng(0)
    x = system.initial(3, seed=1)
    count = len(system.ranges)
    later = system.advance_ensemble(x, 5, random)
    assert later.shape == (5, 3, system.size)
    for i, row in enumerate(x):
        own = replace(system.model, **dict(zip(system.constants, row[-count:].tolist(), strict=True)))
        expected = own.advance_ensemble(row[None, :-count], 5, random)
        np.testing.assert_allclose(later[:, i : i + 1, :-count], expected, rtol=1e-12)
        np.testing.assert_array_equal(later[:, i, -count:], np.broadcast_to(row[-count:], (5, count)))
        single = system.advance(system.from_vectors(row), 5)
        np.testing.assert_allclose(system.to_vectors(single), later[:, i], rtol=1e-4, atol=1e-4)


def test_systems_that_are_computed_one_after_the_other_have_their_own_parameters() -> None:
    flow = Kolmogorov(resolution=16, coarsen=1, spin_up=0)
    x = np.concatenate([flow.initial(1, 0)] * 2)
    later = Augmented.of(flow, {"reynolds": (50, 500)}).advance_ensemble(
        np.column_stack([x, [50.0, 500.0]]), 2, np.random.default_rng(0)
    )
    expected = replace(flow, reynolds=50.0).advance_ensemble(x[:1], 2, np.random.default_rng(0))
    np.testing.assert_allclose(later[:, :1, :-1], expected, rtol=1e-6)
    # Viscosity damps.
    assert (later[-1, 0, :-1] ** 2).sum() < 0.9 * (later[-1, 1, :-1] ** 2).sum()


def test_an_archive_has_one_value_of_a_parameter_for_each_trajectory(tmp_path: Path) -> None:
    data = sdaxr.generate("lorenz96", tmp_path / "a.zarr", forcing=(6, 10), **SMALL)
    assert data.forcing.dims == ("trajectory",) and data.x.dims == ("trajectory", "time", "site")
    system = open_system("lorenz96", forcing=(6, 10), sites=8, spin_up=20)
    for number in range(5):
        values = system.values(unit_seed(3, number))
        assert float(data.forcing[number]) == np.float32(values["forcing"])
        own = Lorenz96(sites=8, spin_up=20, **values).trajectory(4, unit_seed(3, number))
        np.testing.assert_array_equal(data.x[number], own["x"])
    some = SMALL | {"trajectories": 3, "batch": 2}
    fewer = sdaxr.generate("lorenz96", tmp_path / "b.zarr", forcing=(6, 10), **some)
    xr.testing.assert_equal(fewer.forcing.drop_vars("split"), data.forcing[:3].drop_vars("split"))


def test_a_forecast_has_the_parameters_of_each_member(tmp_path: Path) -> None:
    data = sdaxr.generate("lorenz96", tmp_path / "a.zarr", forcing=(6, 10), **(SMALL | {"steps": 8}))
    begun = data.isel(time=slice(0, 3))
    # From the attributes of the archive, or because the ensemble has the variable.
    for given in (begun, begun.drop_attrs(deep=False)):
        ahead = sdaxr.forecast(given, "lorenz96" if given.attrs else RINGS, steps=5, progress=False)
        np.testing.assert_allclose(ahead.x.values, data.x[:, 3:].values, atol=1e-3)
        np.testing.assert_array_equal(ahead.forcing.values, data.forcing.values)
        assert ahead.forcing.dims == ("member",)
    # What is asked for is what is done.
    wrong = sdaxr.forecast(begun, "lorenz96", steps=5, forcing=3.0, progress=False)
    assert "forcing" not in wrong and float(abs(wrong.x.values - data.x[:, 3:].values).max()) > 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"forcing": (10, 6)}, r"found forcing=\(10.0, 6.0\), expected the least and the largest value"),
        ({"forcing": (6, 8, 10)}, r"found forcing=\(6, 8, 10\)"),
        ({"sites": (4, 40)}, r"found sites=\(4, 40\) for lorenz96, expected a whole number"),
    ],
)
def test_impossible_ranges_are_refused(options: dict, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        open_system("lorenz96", **options)


def test_the_system_says_which_values_of_a_range_are_impossible() -> None:
    with pytest.raises(OptionError, match="found reynolds=-1.0 for Kolmogorov, expected a number above 0"):
        open_system("kolmogorov", reynolds=(-1, 100))
    with pytest.raises(OptionError, match="parameter of lorenz96: 'force'; expected one of damping, forcing"):
        Augmented.of(RINGS, {"force": (1, 2)})


def test_it_is_a_key_and_tells_its_options() -> None:
    system = open_system("lorenz96", forcing=[6, 10])
    assert hash(system) == hash(open_system("lorenz96", forcing=(6.0, 10.0)))
    assert system.name == "lorenz96" and system.options()["forcing"] == [6.0, 10.0] and not system.stochastic
    assert open_system("lorenz96", **system.options()) == system == pickle.loads(pickle.dumps(system))

"""Symmetries of the training data: what they do, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from sdaxr.prior.symmetries import Symmetry, bind_symmetries, transform
from sdaxr.prior.windows import Windows
from sdaxr.schema import OptionError
from sdaxr.states.fields import StateLayout
from sdaxr.states.infer import infer_layout
from sdaxr.systems.kolmogorov import Kolmogorov

TURN = {"flip": ["x", "y"], "negate": ["u", "v", "force"]}
MIRROR = {"flip": ["x"], "shift": {"y": 2}, "negate": ["u", "force"]}


def channel(mean: float = 0.0, steps: int = 5) -> xr.Dataset:
    """A velocity on a torus of 8 x 6 cells, forced by a wave of four cells along y."""
    random = np.random.default_rng(0)
    y, x = np.arange(8) + 0.5, np.arange(6) + 0.5
    data = {v: (("time", "y", "x"), random.normal(size=(steps, 8, 6)), {"units": "m s-1"}) for v in ("u", "v")}
    force = np.sin(2 * np.pi * y / 4)[:, None] * np.ones(6)
    coords = {"time": 0.5 * np.arange(steps), "y": ("y", y, {"period": 8.0}), "x": ("x", x, {"period": 6.0})}
    data = xr.Dataset(data | {"force": (("y", "x"), force)}, coords)
    return data.assign(u=(data.u - data.u.mean() + mean).assign_attrs(units="m s-1"))


def layout_of(data: xr.Dataset) -> StateLayout:
    return infer_layout(data, variables=["u", "v"], context=["force"])


def times(symmetry: Symmetry, states: np.ndarray, number: int = 1) -> np.ndarray:
    """One window after a number of applications of one symmetry."""
    return transform(torch.as_tensor(states)[None], [(symmetry, np.array([number]))])[0].numpy()


def test_a_half_turn_and_a_mirror() -> None:
    data = channel()
    turn, mirror = bind_symmetries(layout_of(data), [TURN, MIRROR])
    states = layout_of(data).to_array(data)
    turned = times(turn, states)
    np.testing.assert_allclose(turned[:, 0], -states[:, 0, ::-1, ::-1], atol=1e-6)
    mirrored = times(mirror, states)
    np.testing.assert_allclose(mirrored[:, 0], -np.roll(states[:, 0, :, ::-1], 2, 1), atol=1e-6)
    np.testing.assert_allclose(mirrored[:, 1], np.roll(states[:, 1, :, ::-1], 2, 1), atol=1e-2)
    assert (turn.order, mirror.order) == (2, 4)
    for symmetry in (turn, mirror):
        again = states
        for number in range(symmetry.order):
            np.testing.assert_allclose(times(symmetry, states, number), again, atol=1e-6)
            again = times(symmetry, again)
        np.testing.assert_allclose(again, states, atol=1e-5)


def test_symmetries_of_a_batch_follow_one_another() -> None:
    """Each window has its own numbers of applications, of the first symmetry before the second."""
    data = channel(mean=0.2)
    turn, mirror = bind_symmetries(layout_of(data), [TURN, MIRROR])
    states = np.stack([layout_of(data).to_array(data)] * 3)
    moves = [(turn, np.array([0, 1, 1])), (mirror, np.array([3, 0, 2]))]
    together = transform(torch.as_tensor(states), moves).numpy()
    for i, window in enumerate(states):
        alone = times(mirror, times(turn, window, moves[0][1][i]), moves[1][1][i])
        np.testing.assert_allclose(together[i], alone, atol=1e-6)


def test_a_small_mean_is_negated_in_physical_units() -> None:
    data = channel(mean=0.2)
    layout = layout_of(data)
    (turn,) = bind_symmetries(layout, [TURN])
    back = layout.to_physical(times(turn, layout.to_array(data)), data.time)
    np.testing.assert_allclose(back["u"], -data.u.values[:, ::-1, ::-1], atol=1e-5)


def test_windows_are_transformed_in_every_way() -> None:
    """Of one window and a group of eight, all eight images are drawn, about as often, and nothing else is."""
    data = channel()
    layout = layout_of(data)
    turn, mirror = bind_symmetries(layout, [TURN, MIRROR])
    state = layout.to_array(data)
    images = [times(mirror, times(turn, state, a), b) for a in range(2) for b in range(4)]
    drawn, _ = Windows(data, layout, 5, seed=0, symmetries=[TURN, MIRROR]).batch(0, 800)
    drawn = drawn.numpy()
    nearest = [int(np.argmin([np.abs(d - i).max() for i in images])) for d in drawn]
    assert all(np.abs(d - images[n]).max() < 1e-5 for d, n in zip(drawn, nearest, strict=True))
    counts = np.bincount(nearest, minlength=8)
    assert counts.min() > 60


@pytest.mark.parametrize(
    ("symmetry", "message"),
    [
        ({"turn": ["x"]}, r"part of a symmetry: 'turn'; expected one of flip, negate, shift"),
        ("negate", r"found the symmetry 'negate', expected a mapping such as"),
        ({"flip": ["z"]}, r"'z'; expected one of x, y"),
        ({"shift": {"z": 1}}, r"'z'; expected one of x, y"),
        ({"negate": ["w"]}, r"'w'; expected one of force, u, v"),
        ({"flip": ["y"]}, r"context field 'force' changes by .* under the symmetry .*; negate it"),
        ({"shift": {"y": 3}}, r"context field 'force' changes"),
    ],
)
def test_what_is_no_symmetry(symmetry: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        bind_symmetries(layout_of(channel()), [symmetry])


def test_variables_with_a_mean_and_bounded_dimensions_are_refused() -> None:
    with pytest.raises(OptionError, match=r"negates a variable whose mean is 2\.\d+ of its standard deviation"):
        bind_symmetries(layout_of(channel(mean=2.1)), [TURN])
    bounded = channel().assign_coords(y=np.arange(8) + 0.5)
    with pytest.raises(OptionError, match=r"shifts 'y', which is not periodic"):
        bind_symmetries(infer_layout(bounded, variables=["u", "v"]), [{"shift": {"y": 2}}])


def test_land_has_no_symmetry() -> None:
    data = channel()
    data["v"] = data.v.where((data.x > 1) | (data.y > 1))
    with pytest.raises(OptionError, match="found symmetries of states with land"):
        bind_symmetries(infer_layout(data, variables=["u", "v"]), [{"flip": ["x"]}])


def test_kolmogorov_flow_has_the_symmetries_that_its_recipe_trains_with() -> None:
    """The solver takes the transformed state to the transformed next state; without a change of sign it does not."""
    system = Kolmogorov(resolution=64, coarsen=2, spin_up=0)
    start = {name: field[-1].astype(float) for name, field in system.trajectory(2, seed=3).items()}
    y, x = (2 * np.pi * (np.arange(32) + 0.5) / 32 for _ in "yx")
    attrs = {"period": 2 * np.pi}
    fields = {v: (("time", "y", "x"), np.stack([f, f]), {"units": "1"}) for v, f in start.items()}
    coords = {"time": [0.0, 1.0], "y": ("y", y, attrs), "x": ("x", x, attrs)}
    data = xr.Dataset(fields, coords).assign(forcing=(("y", "x"), np.sin(4 * y)[:, None] * np.ones(32)))
    turn = {"flip": ["x", "y"], "negate": ["u", "v", "forcing"]}
    mirror = {"flip": ["x"], "shift": {"y": 4}, "negate": ["u", "forcing"]}
    later = after(system, start)
    for symmetry in bind_symmetries(infer_layout(data, variables=["u", "v"], context=["forcing"]), [turn, mirror]):
        signs = symmetry.signs.reshape(-1, 1, 1)
        moved = symmetry.moved(np.stack([start["u"], start["v"]])) * signs
        found = after(system, {"u": moved[0], "v": moved[1]})
        assert np.abs(found - symmetry.moved(later) * signs).max() < 1e-4
        unsigned = symmetry.moved(np.stack([start["u"], start["v"]]))
        wrong = after(system, {"u": unsigned[0], "v": unsigned[1]})
        assert np.abs(wrong - symmetry.moved(later)).max() > 0.05


def after(system: Kolmogorov, state: dict[str, np.ndarray]) -> np.ndarray:
    """The velocity two states later, (2, y, x)."""
    states = system.advance(state, 2)
    return np.stack([states["u"][-1], states["v"][-1]])

"""Patches: where they lie, what the network sees of them, priors of them, and other domains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from short_fields import ShortFields
from small_training import trained

from sdaxr.prior.opening import open_prior
from sdaxr.prior.patches import Patches
from sdaxr.prior.training import train
from sdaxr.prior.windows import Windows
from sdaxr.schema import DataError, GridError, OptionError, UnitsError
from sdaxr.states.infer import infer_layout

SIZE, PATCH = 32, {"y": 16, "x": 16}
FIELDS = ShortFields(SIZE)


def numbered(periodic: bool = True, size: int = 12) -> xr.Dataset:
    """Values say where they are: 10000 time + 100 y + x; a static field is the square of y."""
    place = np.arange(size)
    attrs = {"units": "1"} | ({"period": float(size)} if periodic else {})
    values = 10000.0 * np.arange(9)[:, None, None] + 100.0 * place[:, None] + place
    return xr.Dataset(
        {
            "a": (("time", "y", "x"), values, {"units": "1"}),
            "height": (("y", "x"), np.broadcast_to(place[:, None] ** 2.0, (size, size))),
        },
        {"time": np.arange(9.0), "y": ("y", place.astype(float), attrs), "x": ("x", place.astype(float), attrs)},
    )


# Windows and context


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shift", [False, True])
def test_windows_are_cut_at_random_places_with_their_context(periodic: bool, shift: bool) -> None:
    data = numbered(periodic)
    layout = infer_layout(data, variables=["a"], context=["height"])
    patches = Patches.of(layout, {"y": 5, "x": 4})
    assert patches is not None
    moved = {"homogeneous": ("x",)} if shift and periodic else {}
    windows = Windows(data, layout, 3, seed=0, patches=patches, **moved)  # type: ignore[arg-type]
    states, context = windows.batch(0, 300)
    assert states.shape == (300, 3, 1, 5, 4) and context.shape == (300, 3, 4, 5, 4)
    values = np.rint(states.numpy() * layout.std + layout.mean)[:, :, 0]
    time, y, x = values // 10000, values % 10000 // 100, values % 100
    steps = np.diff(time, axis=1), np.diff(y, axis=2) % 12, np.diff(x, axis=3) % 12
    assert all((each == 1).all() for each in steps)
    assert len(np.unique(x[:, 0, 0, 0])) == (12 if periodic else 9)
    assert len(np.unique(y[:, 0, 0, 0])) == (12 if periodic else 8)
    # Ones, the static field at the place of the patch, and the position in the patch.
    height = patches.layout.context["height"][:, 0]
    assert (context[:, :, 0] == 1).all()
    np.testing.assert_allclose(context[:, :, 1].numpy(), height[y.astype(int)], atol=1e-6)
    np.testing.assert_allclose(context[7, 1, 2, :, 0], np.linspace(-1, 1, 5), atol=1e-6)
    np.testing.assert_allclose(context[7, 1, 3, 0], np.linspace(-1, 1, 4), atol=1e-6)
    again, _ = Windows(data, layout, 3, seed=0, patches=patches, **moved).batch(0, 300)  # type: ignore[arg-type]
    torch.testing.assert_close(again, states)


def test_the_network_sees_of_a_patch_what_it_sees_of_a_bounded_domain() -> None:
    """Channels of the context are in the same order, with cycles in time, too."""
    data = numbered(periodic=False).assign_coords(
        time=np.datetime64("2001-01-01", "ns") + np.arange(9) * np.timedelta64(6, "h")
    )
    layout = infer_layout(data, variables=["a"], context=["height"], cycles=("hour_of_day",))
    patches = Patches.of(layout, {"y": 5, "x": 4})
    assert patches is not None
    found = patches.placed(torch.as_tensor(patches.fields(data["time"])[..., :5, :4]))
    np.testing.assert_array_equal(found, patches.tile.context_array(data["time"]))
    assert found.shape[1] == patches.tile.context_channels
    _, context = Windows(data, layout, 2, seed=0, patches=patches).batch(0, 6)
    assert context.shape == (6, 2, 6, 5, 4)
    states = patches.tile.coords["y"]
    assert len(states.values) == 5 and patches.tile.periodic == (False, False)


# Priors


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Gaussian process of patches, of a domain of 32 x 32 points."""
    store = tmp_path_factory.mktemp("patches") / "floor.safetensors"
    data = FIELDS.dataset(FIELDS.draw(400))
    return train(data, store, window=1, steps=0, statistics={"patches": PATCH}, progress=False, context=())


@pytest.mark.parametrize("size", [16, 32, 50])
def test_a_prior_of_patches_knows_the_fields_of_any_domain(floor: Any, size: int) -> None:
    """Excess mean square error over the exact denoiser of the domain, a tenth of what white noise would have."""
    fields = ShortFields(size)
    prior = floor.on(fields.dataset(fields.draw(1)))
    x = fields.draw(40, seed=3)[:, None, None]
    data = fields.dataset(x[:, 0, 0])
    denoiser = prior.denoiser(data["time"][:1])
    assert prior.layout.shape == (size, size)
    for r in (0.1, 0.5, 1.0, 3.0):
        z = x + r * torch.as_tensor(np.random.default_rng(1).normal(size=x.shape))
        with torch.no_grad():
            found = denoiser(z.float(), r)
        best, white = ((e - x).square().mean() for e in (fields.denoise(z, r), z / (1 + r**2)))
        assert float((found - x).square().mean() - best) < 0.15 * float(white - best), r


def test_the_file_holds_the_patches_and_opens(floor: Any, tmp_path: Path) -> None:
    domain = ShortFields(20).dataset(ShortFields(20).draw(1))
    again = open_prior(floor.on(domain, overlap=0.5).save(tmp_path / "again.safetensors"))
    assert again.layout.shape == (20, 20) and again.metadata["statistics"]["patches"] == PATCH
    assert floor.layout.shape == (SIZE, SIZE) and floor.reference[0].shape[-2:] == (16, 16)
    times = domain["time"][:1]
    assert again.denoiser(times).axes[-1].overlap == 0.5 and floor.denoiser(times).axes[-1].overlap == 0.25
    assert again.examples.shape[-2:] == (20, 20) and again.modes(torch.device("cpu")) is None
    held_out = again.held_out(torch.device("cpu"))
    assert held_out.denoised.shape[1:] == held_out.states.shape == again.examples.shape


@pytest.mark.parametrize("network", ["space-time-unet", "unet"])
@pytest.mark.parametrize("parameterisation", ["edm", "space-time", "eof"])
def test_networks_and_parameterisations_are_trained_on_patches(
    network: str, parameterisation: str, tmp_path: Path
) -> None:
    data, size = FIELDS.dataset(FIELDS.draw(60)), {"widths": (4, 6), "blocks": 1}
    prior = trained(
        data, tmp_path / "p.safetensors", statistics={"patches": PATCH}, parameterisation=parameterisation, window=3,
        network={"name": network, **size}, steps=2,
    )  # fmt: skip
    assert prior.metadata["statistics"]["patches"] == PATCH
    z = FIELDS.draw(2, 4, 1).float()
    assert prior.denoiser(data["time"][:4])(z, 1.0).shape == z.shape
    longer = trained(data, tmp_path / "q.safetensors", start=prior, steps=1, network="auto", window=None)
    assert longer.patches is not None and longer.patches.sizes == PATCH


def test_a_network_learns_more_than_white_noise_of_patches(tmp_path: Path) -> None:
    data = FIELDS.dataset(FIELDS.draw(200))
    prior = trained(
        data, tmp_path / "p.safetensors", statistics={"patches": PATCH}, parameterisation="edm", window=1, steps=150,
        network={"widths": (12,), "patch": 1, "temporal": 0},
        optimisation={"batch": 16, "learning_rate": 4e-3, "ema": 0.95, "levels": (0.1, 10.0), "validate_every": 100},
    )  # fmt: skip
    fields = ShortFields(48)
    x = fields.draw(30, 1, 1, seed=5)
    z = x + torch.as_tensor(np.random.default_rng(1).normal(size=x.shape))
    with torch.no_grad():
        found = prior.on(fields.dataset(x[:, 0, 0])).denoiser(data["time"][:1])(z.float(), 1.0)
    best, white = ((e - x).square().mean() for e in (fields.denoise(z, 1.0), z / 2))
    assert float((found - x).square().mean() - best) < 0.25 * float(white - best)


def test_static_fields_of_another_domain_are_in_the_units_of_the_first(tmp_path: Path) -> None:
    data = numbered()
    small = {"widths": (4,), "blocks": 1}
    prior = trained(
        data, tmp_path / "p.safetensors", variables=["a"], context=["height"], window=1, network=small, steps=1,
        statistics={"patches": {"y": 6, "x": 6}},
    )  # fmt: skip
    larger = numbered(size=20)
    found = prior.on(larger).layout.context["height"]
    height = data["height"].values
    np.testing.assert_allclose(found, (larger["height"].values - height.mean()) / height.std(), rtol=1e-5)
    with pytest.raises(DataError, match="context field 'height'"):
        prior.on(larger.drop_vars("height"))


# Errors


@pytest.mark.parametrize(
    ("patches", "error", "message"),
    [
        ({"z": 8}, OptionError, "dimension of the patches: 'z'"),
        ({"y": 1}, OptionError, "patches: y=1, expected a whole number of at least 2"),
        (
            {"y": 8.5},
            OptionError,
            "patches={'y': 8.5} for Statistics, expected a mapping to a whole number of at least 1",
        ),
        ({"y": 99}, OptionError, "patches of 99 points along 'y', expected from 2 to the 32 points"),
        ((8, 8), OptionError, r"patches=\(8, 8\) for Statistics, expected a mapping to a whole number of at least 1"),
    ],
)
def test_impossible_patches_are_refused(patches: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        trained(
            FIELDS.dataset(FIELDS.draw(20)), tmp_path / "p.safetensors", statistics={"patches": patches}, network="auto"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["land", "point"])
def test_states_that_are_not_alike_everywhere_are_refused(case: str, tmp_path: Path) -> None:
    data = FIELDS.dataset(FIELDS.draw(20))
    options: dict[str, Any] = {"patches": PATCH}
    if case == "land":
        data["a"][:, 3, 4] = np.nan
    else:
        options |= {"normalise": "point"}
    with pytest.raises(DataError, match={"land": "with land or gaps", "point": "one of each variable"}[case]):
        trained(data, tmp_path / "p.safetensors", statistics=options, network="auto")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.isel(y=slice(10)), GridError, "10 points along 'y', expected at least the 16 of a patch"),
        (lambda d: d.isel(x=slice(None, None, 2)), GridError, "'x' lie 2 apart in the domain and 1 in the prior"),
        (lambda d: d.isel(x=slice(None, None, -1)), GridError, "'x' lie -1 apart"),
        (lambda d: d.rename(y="row"), GridError, "dimension 'y'"),
        (lambda d: d.drop_vars("x"), GridError, "'x' has no labels in the domain"),
        (lambda d: d.assign_coords(x=d.x.assign_attrs(units="m")), UnitsError, "'x'"),
    ],
)
def test_domains_that_do_not_fit_are_refused(floor: Any, change: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        floor.on(change(FIELDS.dataset(FIELDS.draw(1))))


def test_a_prior_of_whole_states_is_of_its_domain(tmp_path: Path) -> None:
    data = FIELDS.dataset(FIELDS.draw(20))
    prior = trained(data, tmp_path / "p.safetensors", window=1, network={"widths": (4,), "blocks": 1}, steps=1)
    with pytest.raises(OptionError, match=r"whole states, expected one of patches; train with statistics="):
        prior.on(data)

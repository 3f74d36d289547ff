"""Denoisers of tiles: against the exact denoiser of the whole domain, across edges, and in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from short_fields import ExactPatches, ShortFields

from sdaxr.prior.blanket import TrajectoryDenoiser
from sdaxr.prior.memory import peak_bytes
from sdaxr.prior.networks.base import Inputs
from sdaxr.prior.networks.unet import SpaceTimeUNet
from sdaxr.prior.patches import Patches
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.prior.tiles import PatchDenoiser, TiledAxis, mosaic
from sdaxr.schema import OptionError
from sdaxr.states.infer import infer_layout

PATCH = 16


def patches_of(fields: ShortFields, patch: int = PATCH) -> Patches:
    found = Patches.of(infer_layout(fields.dataset(fields.draw(3))), {"y": patch, "x": patch})
    assert found is not None
    return found


def tiled(
    fields: ShortFields, network: torch.nn.Module | None = None, times: int = 1, **options: float
) -> PatchDenoiser:
    patches = patches_of(fields)
    ones = torch.ones(times, 1, fields.size, fields.size)
    exact = ExactPatches(ShortFields(PATCH, fields.scale, periodic=False))
    return PatchDenoiser(network or exact, patches, ones, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize(("size", "tile"), [(16, 16), (17, 16), (40, 16), (41, 7), (3, 2)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_weights_of_the_tiles_of_a_point_have_the_sum_one(size: int, tile: int, periodic: bool, overlap: float) -> None:
    axis = TiledAxis(size, tile, periodic, overlap)
    for phase in (0.0, 0.3, 0.99):
        starts, total = axis.starts(phase), torch.zeros(size, dtype=torch.float64)
        for start, weights in zip(starts, axis.weights(starts), strict=True):
            assert periodic or start + tile <= size
            assert bool((weights > 0).all())
            total.index_add_(0, axis.points(start), weights)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_an_impossible_overlap_is_refused() -> None:
    with pytest.raises(OptionError, match=r"overlap=1.0, expected a number from 0 to below 1"):
        TiledAxis(8, 4, True, 1.0)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("r", [0.1, 1.0, 5.0])
def test_tiles_are_as_exact_as_the_whole(r: float, periodic: bool) -> None:
    """The mean square error is that of the exact denoiser to a thousandth, and near edges of tiles to some percent."""
    fields = ShortFields(56, periodic=periodic)
    x = fields.draw(60, 1, 1)
    z = x + r * torch.as_tensor(np.random.default_rng(1).normal(size=x.shape))
    denoiser = tiled(fields)
    found, exact = denoiser(z, r), fields.denoise(z, r)
    best = (exact - x).square()
    assert float((found - x).square().mean() / best.mean()) < 1.002
    starts = denoiser.starts(r)[-2]
    inside = starts if periodic else starts[1:]
    edges = torch.tensor(sorted({(start + d) % 56 for start in inside for d in (-1, 0)}))
    near = (found - x).square().index_select(-2, edges).mean() / best.index_select(-2, edges).mean()
    assert 0.999 < float(near) < 1.03


def test_hard_edges_are_worse() -> None:
    """What the blend is for: without an overlap, the error has half a percent more."""
    fields, r = ShortFields(56), 1.0
    x = fields.draw(40, 1, 1)
    z = x + r * torch.as_tensor(np.random.default_rng(1).normal(size=x.shape))
    best = (fields.denoise(z, r) - x).square().mean()
    blended, hard = ((tiled(fields, overlap=o)(z, r) - x).square().mean() / best - 1 for o in (0.25, 0.0))
    assert hard > 0.004 and blended < 0.2 * hard


def test_tiles_move_with_the_noise_level() -> None:
    fields = ShortFields(32, scale=6.0)
    z, denoiser = fields.draw(1, 1, 1), tiled(ShortFields(32, scale=6.0))
    errors = [(denoiser(z, r) - fields.denoise(z, r))[0, 0, 0].square().mean(1) for r in (1.0, 1.01, 1.02)]
    assert len({int(e.argmax()) for e in errors}) > 1
    torch.testing.assert_close(denoiser(z, 1.0), denoiser(z, 1.0))


def test_dimensions_that_are_not_cut_are_whole() -> None:
    fields = ShortFields(24)
    patches = Patches.of(infer_layout(fields.dataset(fields.draw(3))), {"x": 16})
    assert patches is not None and patches.tile.periodic == (True, False)
    network = ExactPatches(fields)
    network.forward = lambda z, r, context: z  # type: ignore[method-assign]
    z = fields.draw(2, 3, 1)
    denoiser = PatchDenoiser(network, patches, torch.ones(3, 1, 24, 24))  # type: ignore[arg-type]
    assert list(denoiser.axes) == [-1]
    torch.testing.assert_close(denoiser(z, 1.0), z)


@pytest.mark.parametrize("times", [1, 7])
def test_derivatives_are_those_of_the_blend(times: int) -> None:
    """Against differences, with pieces in time as well; an observation acts beyond the tiles that it lies in."""
    fields = ShortFields(24)
    torch.manual_seed(0)
    network = SpaceTimeUNet(widths=(4, 6), blocks=1).module(Inputs(1, 3, 3, (False, False))).double()
    torch.nn.init.normal_(network.last.weight)
    denoiser = tiled(fields, DenoisingNetwork(network, "edm", (0.01, 10.0)), times, chunk=5)
    denoiser.context = denoiser.context.double()
    z = fields.draw(2, times, 1).requires_grad_(True)
    direction, probe = fields.draw(2, times, 1, seed=1), fields.draw(2, times, 1, seed=2)
    (found,) = torch.autograd.grad((denoiser(z, 0.7) * probe).sum(), z)
    with torch.no_grad():
        ahead, behind = (denoiser(z + step * direction, 0.7) for step in (1e-5, -1e-5))
    torch.testing.assert_close((found * direction).sum(), ((ahead - behind) / 2e-5 * probe).sum(), rtol=1e-6, atol=1e-8)


def test_an_observation_acts_across_the_edges_of_tiles() -> None:
    """The derivative of the estimate at each point is that of the exact denoiser, on both sides of every edge."""
    fields, r = ShortFields(40), 1.0
    denoiser, z = tiled(fields), torch.zeros(1, 1, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    for place in range(40):
        (found,) = torch.autograd.grad(denoiser(z, r)[0, 0, 0, 20, place], z)
        point = torch.zeros(40, 40, dtype=torch.float64)
        point[20, place] = 1.0
        exact = fields.denoise(point, r)
        assert float((found[0, 0, 0] - exact).abs().max()) < 0.03 * float(exact.max())


def test_memory_of_the_graph_does_not_grow_with_the_domain() -> None:
    """A value more takes a few more numbers, not those of the layers of the network."""

    def network(context: int, wrap: bool) -> DenoisingNetwork:
        module = SpaceTimeUNet(widths=(16, 24)).module(Inputs(1, context, 3, (wrap, wrap)))
        return DenoisingNetwork(module, "edm", (0.01, 10.0))

    patched, whole = network(3, wrap=False), network(1, wrap=True)

    def graph(size: int, tiles: bool) -> int:
        z, ones = torch.zeros(1, 4, 1, size, size, requires_grad=True), torch.ones(4, 1, size, size)
        denoiser = tiled(ShortFields(size), patched, 4) if tiles else TrajectoryDenoiser(whole, ones)
        return peak_bytes(lambda: torch.autograd.grad(denoiser(z, 1.0).sum(), z))

    values = 4 * (64**2 - 32**2)
    of_tiles, of_whole = ((graph(64, tiles) - graph(32, tiles)) / 4 / values for tiles in (True, False))
    assert of_tiles < 16 and of_whole > 10 * of_tiles


def test_mosaics_have_the_variance_of_their_patches_and_no_jumps() -> None:
    fields = ShortFields(64, scale=4.0)
    patches, samples = patches_of(fields), ShortFields(PATCH, 4.0, periodic=False).draw(50, 20, 1)
    found = mosaic(patches, samples)
    assert found.shape == (1, 20, 1, 64, 64)
    assert float(found.square().mean()) == pytest.approx(float(samples.square().mean()), rel=0.1)
    steps, usual = found.diff(dim=-1).square().mean((0, 1, 2, 3)), samples.diff(dim=-1).square().mean()
    assert float(steps.max()) < 1.5 * float(usual)
    few = mosaic(patches_of(ShortFields(18)), samples)
    assert len(few) == 50 // 4 and few.shape[1:] == (20, 1, 18, 18)

"""Networks and their preconditioning: shapes, symmetries, receptive fields, loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sdaxr.prior.networks import NETWORKS, build_network, default_network
from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.unet import SpaceTimeUNet, WindowUNet
from sdaxr.prior.preconditioning import DenoisingNetwork, expand
from sdaxr.schema import OptionError
from sdaxr.states.coordinates import Coordinate
from sdaxr.states.fields import StateLayout
from sdaxr.states.time import TimeAxis

SMALL = {
    "mlp": {"width": 16, "blocks": 2},
    "convolutional": {"width": 16, "blocks": 2, "kernel": 3},
    "unet": {"widths": (8, 12), "blocks": 1},
    "space-time-unet": {"widths": (8, 12), "blocks": 1},
}


def layout(shape: tuple[int, ...], periodic: bool = True, channels: int = 2) -> StateLayout:
    space = ("y", "x")[2 - len(shape) :]
    attrs = {"period": 1.0} if periodic else {}
    coords = {d: Coordinate(np.arange(n) / n, attrs) for d, n in zip(space, shape, strict=True)}
    names = tuple("uvwpq"[:channels])
    ones = np.ones((channels, *[1] * len(shape)))
    sizes = dict(zip(space, shape, strict=True))
    return StateLayout(
        names, {v: {} for v in names}, (), None, space, coords, sizes, TimeAxis("float", 1, ""), 0 * ones, ones
    )


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Networks begin with an output of zero; to see what they can see, every weight gets a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return network.eval().requires_grad_(False)


def inputs(of: StateLayout, length: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, length, of.channels, *of.shape, generator=generator)
    context = torch.ones(1, length, of.context_channels, *of.shape)
    return x, torch.linspace(-1, 1, batch), context


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", ()),
        ("convolutional", ()),
        *((n, s) for n in ("unet", "space-time-unet") for s in ((12,), (8, 12), (33, 49))),
    ],
)
@pytest.mark.parametrize("periodic", [True, False])
def test_output_has_the_shape_of_the_state(name: str, shape: tuple[int, ...], periodic: bool) -> None:
    of = layout(shape, periodic)
    network = randomised(build_network(name, of, 5, SMALL[name]))
    x, log_r, context = inputs(of, 5)
    out = network(x, log_r, context)
    assert out.shape == x.shape and bool(out.isfinite().all()) and float(out.std()) > 0
    alone = network(x[1:], log_r[1:], context)
    torch.testing.assert_close(out[1:], alone, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(network(x, log_r + 1, context), out)
    if network.window is None:
        longer = inputs(of, 9)
        assert network(*longer).shape == longer[0].shape
    else:
        assert network.window == 5


@pytest.mark.parametrize(("name", "length"), [("convolutional", 1), ("space-time-unet", 1), ("convolutional", 2)])
def test_networks_convolutional_in_time_take_the_shortest_windows(name: str, length: int) -> None:
    of = layout((8, 8) if name == "space-time-unet" else ())
    x, log_r, context = inputs(of, length)
    assert randomised(build_network(name, of, 8, SMALL[name]))(x, log_r, context).shape == x.shape


@pytest.mark.parametrize("shape", [(16,), (16, 16)])
@pytest.mark.parametrize(("name", "more"), [("unet", {}), ("space-time-unet", {}), ("space-time-unet", {"refine": 3})])
def test_shifts_around_periodic_dimensions(name: str, more: dict[str, int], shape: tuple[int, ...]) -> None:
    """A shift by patch * 2^(levels - 1) points commutes with the network; not so where the domain ends."""
    options = SMALL[name] | {"patch": 2} | more
    for periodic in (True, False):
        of = layout(shape, periodic)
        network = randomised(build_network(name, of, 3, options))
        x, log_r, context = inputs(of, 3)
        context = torch.ones_like(context)
        for axis in range(3, 3 + len(shape)):
            there = network(x.roll(4, axis), log_r, context)
            back = network(x, log_r, context).roll(4, axis)
            assert torch.allclose(there, back, rtol=1e-3, atol=1e-4) == periodic


def test_one_dimension_may_wrap_while_the_other_ends() -> None:
    network = randomised(SpaceTimeUNet(1, 1, 3, (False, True), widths=(8, 12), blocks=1))
    x, log_r = torch.randn(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(1)
    context = torch.ones(1, 3, 1, 16, 16)
    out = network(x, log_r, context)
    assert torch.allclose(network(x.roll(4, 4), log_r, context), out.roll(4, 4), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(network(x.roll(4, 3), log_r, context), out.roll(4, 3), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("periodic", [True, False])
def test_grids_smaller_than_the_coarsest_cell(periodic: bool) -> None:
    of = layout((3, 5), periodic)
    x, log_r, context = inputs(of, 3)
    network = randomised(build_network("space-time-unet", of, 3, {"widths": (8, 8, 8), "blocks": 1}))
    assert network(x, log_r, context).shape == x.shape


def reach(network: nn.Module, x: torch.Tensor, context: torch.Tensor, at: int) -> list[int]:
    """Times whose state has an influence on the output at one time."""
    x = x.clone().requires_grad_()
    out = network(x, torch.zeros(len(x)), context)
    (slope,) = torch.autograd.grad(out[:, at].sum(), x)
    return torch.nonzero(slope.abs().flatten(2).amax(dim=(0, 2))).flatten().tolist()


@pytest.mark.parametrize(
    ("blocks", "kernel", "dilation", "side"),
    [(1, 3, 1, 3), (2, 3, 1, 5), (2, 5, 1, 10), (4, 5, 1, 18), (3, 3, 2, 15), (2, 5, 3, 18)],
)
def test_temporal_receptive_field_is_as_documented(blocks: int, kernel: int, dilation: int, side: int) -> None:
    options = {"width": 8, "blocks": blocks, "kernel": kernel, "dilation": dilation}
    network = randomised(TemporalConvolution(2, 1, 9, **options)).double()
    assert network.reach == side
    length = 2 * side + 7
    seen = reach(network, torch.randn(1, length, 2).double(), torch.ones(1, length, 1).double(), side + 3)
    assert seen == list(range(3, 2 * side + 4))


@pytest.mark.parametrize(
    ("options", "side"),
    [
        ({"widths": (4, 4), "blocks": 1}, 3),  # three blocks: two on the way down, one on the way up
        ({"widths": (4,), "blocks": 2, "temporal": 5}, 4),
        ({"widths": (4, 4), "blocks": 1, "temporal": 0}, 0),
    ],
)
def test_space_time_unet_sees_one_temporal_convolution_a_block_to_either_side(options: dict, side: int) -> None:
    network = randomised(SpaceTimeUNet(1, 1, 4, (True, True), **options)).double()
    assert network.reach == side
    seen = reach(network, torch.randn(1, 15, 1, 8, 8).double(), torch.ones(1, 15, 1, 8, 8).double(), 7)
    assert seen == list(range(7 - side, 8 + side))


def test_refinement_sees_beyond_the_patch() -> None:
    """A patch that nothing but its own features reach is seen by its neighbours' points, and begins at zero."""
    network = SpaceTimeUNet(1, 1, 1, (True, True), widths=(4,), blocks=0, patch=4, refine=3)
    assert not network.refine.convolution.weight.any()
    network = randomised(network)
    x, context = torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 1, 8, 8)
    other = x.clone()
    other[..., 1, 1] = 1.0
    changed = (network(other, torch.zeros(1), context) - network(x, torch.zeros(1), context))[0, 0, 0].abs() > 1e-6
    assert bool(changed[4, :4].any()) and bool(changed[-1, :4].any()) and not bool(changed[5:-1].any())


def test_the_papers_network_has_the_papers_size() -> None:
    """22.9 million parameters for two velocities and the forcing, windows of five (Rozet & Louppe 2023, appendix D)."""
    network = WindowUNet(2, 2, 5, (True, True))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(22.9e6, rel=0.05)


def test_window_networks_see_their_whole_window() -> None:
    network = randomised(WindowUNet(1, 1, 5, (True, True), widths=(4, 4), blocks=1)).double()
    x, context = torch.randn(1, 5, 1, 8, 8).double(), torch.ones(1, 5, 1, 8, 8).double()
    assert reach(network, x, context, 0) == [0, 1, 2, 3, 4]


def test_networks_begin_as_the_best_guess_without_any_knowledge() -> None:
    """Nothing but the bias of the last layer: the denoiser of N(0, 1) data, and a loss of about one."""
    for name in ("convolutional", "space-time-unet", "unet"):
        of = layout((8, 8) if "unet" in name else ())
        network = build_network(name, of, 5, SMALL[name]).requires_grad_(False)
        out = network(*inputs(of, 5))
        assert float((out - out.mean()).abs().max()) < 0.5


def test_unknown_names_and_options_are_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"'convolutionl'.*Did you mean 'convolutional'"):
        build_network("convolutionl", layout(()), 5, {})
    with pytest.raises(OptionError, match=r"option of the network 'mlp': 'widht'.*Did you mean 'width'"):
        build_network("mlp", layout(()), 5, {"widht": 3})
    with pytest.raises(OptionError, match=r"does not fit states of shape \(8, 8\); choose 'unet'"):
        build_network("mlp", layout((8, 8)), 5, {})
    with pytest.raises(OptionError, match=r"does not fit states of shape \(\); choose 'mlp'"):
        build_network("unet", layout(()), 5, {})
    assert default_network(layout(())) == "convolutional"
    assert default_network(layout((8,))) == default_network(layout((8, 8))) == "space-time-unet"
    assert set(NETWORKS) == set(SMALL)


# Preconditioning


class Scaled(nn.Module):
    """A network with one weight: F = weight * input."""

    window = None

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def gaussian_batch(r: float, variance: float = 1.0, number: int = 200_000) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    x = variance**0.5 * torch.randn(number, 1, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(number, 1, 1, generator=generator, dtype=torch.float64)
    return x, torch.full((number,), r, dtype=torch.float64), noise, torch.ones(1, 1, 1, dtype=torch.float64)


@pytest.mark.parametrize("r", [0.01, 0.3, 1.0, 5.0, 80.0])
def test_targets_of_the_edm_network_have_unit_variance(r: float) -> None:
    """A network that returns zero has a loss equal to the variance of its target, at every level."""
    model = DenoisingNetwork(Scaled(), "edm", (5e-3, 100.0))
    given = []
    model.network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    assert model.loss(*gaussian_batch(r), None).mean().item() == pytest.approx(1, rel=0.02)
    assert float(given[0].var()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("r", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_both_parameterisations_have_the_same_best_denoiser(r: float, variance: float) -> None:
    """The linear F of least loss gives E[x | z] = v / (v + r^2) z, whichever way it is written."""
    x, level, noise, context = gaussian_batch(r, variance)
    for parameterisation in ("edm", "epsilon"):
        model = DenoisingNetwork(Scaled(), parameterisation, (5e-3, 100.0))
        at = [self_loss(model, weight, (x, level, noise, context)).item() for weight in (-1.0, 0.0, 1.0)]
        best = (at[0] - at[2]) / (2 * (at[0] - 2 * at[1] + at[2]))  # a parabola's minimum
        with torch.no_grad():
            model.network.weight.fill_(best)
            xhat = model(torch.ones(1, 1, 1, dtype=torch.float64), level[:1], context)
        assert float(xhat) == pytest.approx(variance / (variance + r**2), rel=0.02, abs=5e-4)


def self_loss(model: DenoisingNetwork, weight: float, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad():
        model.network.weight.fill_(weight)
        return model.loss(*batch, None).mean()


def test_edm_without_a_network_denoises_white_noise() -> None:
    model = DenoisingNetwork(Scaled(), "edm", (5e-3, 100.0))
    z = torch.randn(3, 4, 2, dtype=torch.float64)
    r = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(model(z, r, torch.ones(1, 4, 1)), z / (1 + expand(r, z) ** 2))


def test_network_is_never_asked_beyond_the_levels_of_its_training() -> None:
    asked = []

    class Spy(Scaled):
        def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            asked.append(log_r.exp())
            return x

    model = DenoisingNetwork(Spy(), "edm", (0.01, 100.0))
    model(torch.zeros(3, 1, 1), torch.tensor([0.0, 1.0, 1e3]), torch.ones(1, 1, 1))
    torch.testing.assert_close(asked[0], torch.tensor([0.01, 1.0, 100.0]))


def test_loss_counts_the_points_with_data_only() -> None:
    model = DenoisingNetwork(Scaled(0.3), "edm", (0.01, 100.0))
    x, noise = torch.randn(2, 4, 3, 5, 1, 6).double().unbind(0)
    valid = torch.zeros(5, 1, 6)
    valid[:, :, :4] = 1
    r, context = torch.tensor([0.1, 0.5, 1.0, 2.0]).double(), torch.ones(1, 3, 1, 1, 6)
    torch.testing.assert_close(
        model.loss(x, r, noise, context, valid), model.loss(x[..., :4], r, noise[..., :4], context, None)
    )

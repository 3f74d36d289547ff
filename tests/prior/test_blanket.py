"""Composition of local networks (algorithms 1 and 2) against the exact score of a Markov chain."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian import ExactNetwork, GaussianChain
from gaussian_fields import cosine_variances
from torch import nn

from sdaxr.prior.blanket import TrajectoryDenoiser, beyond_window
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.memory import peak_bytes
from sdaxr.prior.networks.base import Inputs
from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.mlp import ResidualMLP
from sdaxr.prior.networks.unet import SpaceTimeUNet
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError, OptionError

LENGTH = 24
CHAIN = GaussianChain(LENGTH)
ONES = torch.ones(LENGTH, 1, dtype=torch.float64)


def noisy(r: float, batch: int = 16) -> torch.Tensor:
    noise = np.random.default_rng(1).normal(size=(batch, LENGTH, 2))
    return torch.as_tensor(CHAIN.draw(batch, 0) + r * noise)


def composed(window: int, **options: int) -> TrajectoryDenoiser:
    return TrajectoryDenoiser(ExactNetwork(CHAIN, window), ONES, **options)


@pytest.mark.parametrize("r", [0.05, 1.0, 20.0])
def test_composition_is_the_direct_score_where_the_window_covers_the_chain(r: float) -> None:
    z = noisy(r)[:, :23]
    direct = GaussianChain(23).denoise(z, r)
    torch.testing.assert_close(TrajectoryDenoiser(ExactNetwork(CHAIN, 23), ONES[:23])(z, r), direct)
    anything = TrajectoryDenoiser(ExactNetwork(CHAIN, None), ONES[:23])
    torch.testing.assert_close(anything(z, r), direct)


@pytest.mark.parametrize("r", [0.05, 0.3, 1.0])
def test_composition_approaches_the_score_of_a_markov_chain(r: float) -> None:
    """The error falls with k at every noise level; for a window of nine it is small where samples are decided."""
    z = noisy(r)
    exact = CHAIN.denoise(z, r)
    size = float((exact - z).square().mean().sqrt())
    error = [float((composed(2 * k + 1)(z, r) - exact).square().mean().sqrt()) / size for k in (0, 1, 2, 4, 8, 11)]
    assert all(b < 0.8 * a or b < 1e-6 for a, b in pairwise(error))
    if r < 0.1:
        assert error[1] < 0.02  # one neighbour to either side is the Markov blanket as r goes to zero
    assert error[-1] < 0.03


def test_edges_are_those_of_the_first_and_last_window() -> None:
    """Algorithm 2: the first and the last window give k states more, all others their centre."""
    r, window, k = 0.4, 7, 3
    z = noisy(r)
    out = composed(window)(z, r)
    local = GaussianChain(window)
    torch.testing.assert_close(out[:, :k], local.denoise(z[:, :window], r)[:, :k])
    torch.testing.assert_close(out[:, -k:], local.denoise(z[:, -window:], r)[:, -k:])
    for i in range(k, LENGTH - k):
        torch.testing.assert_close(out[:, i], local.denoise(z[:, i - k : i + k + 1], r)[:, k])


@pytest.mark.parametrize("chunk", [1, 16, 50, 100_000])
def test_chunks_change_nothing(chunk: int) -> None:
    z = noisy(0.4)
    torch.testing.assert_close(composed(5, chunk=chunk)(z, 0.4), composed(5)(z, 0.4))


def test_chunks_bound_the_number_of_windows_at_once() -> None:
    sizes = []

    class Spy(ExactNetwork):
        def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            sizes.append(len(z))
            return super().forward(z, r, context)

    TrajectoryDenoiser(Spy(CHAIN, 5), ONES, chunk=32)(noisy(0.4, batch=4), 0.4)
    assert max(sizes) <= 32 and sum(sizes) == 4 * (LENGTH - 4)


@pytest.mark.parametrize("chunk", [1, 16, 100_000])
@pytest.mark.parametrize("stride", [2, 3, 5])
@pytest.mark.parametrize("r", [0.1, 0.4, 0.403, 0.41])
def test_strided_windows_give_their_middles(stride: int, chunk: int, r: float) -> None:
    """Each state is that of one window of five, no further from its centre than the stride allows but at the ends."""
    z = noisy(r)
    out = composed(5, stride=stride, chunk=chunk)(z, r)
    local = GaussianChain(5)
    windows = torch.stack([local.denoise(z[:, i : i + 5], r) for i in range(LENGTH - 4)], dim=1)
    for t in range(LENGTH):
        near = range(max(0, t - 4), min(LENGTH - 5, t) + 1)
        of = [i for i in near if torch.allclose(out[:, t], windows[:, i, t - i], atol=1e-9)]
        side = stride / 2 if 2 <= t < LENGTH - 2 else 2
        assert any(abs(t - i - 2) <= side for i in of), (t, of)


def test_seams_move_with_the_noise_level_and_cost_falls_with_the_stride() -> None:
    seen, counts = set(), {}

    class Spy(ExactNetwork):
        def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            counts[stride] = counts.get(stride, 0) + len(z)
            seen.add(float(z[1, 0, 0]))
            return super().forward(z, r, context)

    z = noisy(0.4, 1)
    for stride in (1, 5):
        denoiser = TrajectoryDenoiser(Spy(CHAIN, 5), ONES, stride=stride)
        seen.clear()
        for r in np.geomspace(0.1, 10, 20):
            denoiser(z, r)
    assert counts[1] == 20 * (LENGTH - 4) and counts[5] <= 20 * (LENGTH // 5 + 2)
    assert len(seen) == 5  # the second window of five begins everywhere


@pytest.mark.parametrize(("window", "stride"), [(5, 0), (5, 6), (None, 2)])
def test_strides_that_are_not_possible(window: int | None, stride: int) -> None:
    with pytest.raises(OptionError, match=rf"stride={stride}, expected 1"):
        TrajectoryDenoiser(ExactNetwork(CHAIN, window), ONES, stride=stride)


def test_levels_may_differ_within_a_batch() -> None:
    z = noisy(0.4, batch=2)
    out = composed(5)(z, torch.tensor([0.1, 2.0], dtype=torch.float64))
    torch.testing.assert_close(out[:1], composed(5)(z[:1], 0.1))
    torch.testing.assert_close(out[1:], composed(5)(z[1:], 2.0))


class _Echo(nn.Module):
    """Returns its context: so one sees which state is told what."""

    levels = (0.01, 100.0)

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.network, self.window = nn.Module(), window

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return context[:, :, :1].expand_as(z)


@pytest.mark.parametrize("window", [None, 1, 5, 9])
def test_every_state_is_told_its_own_context(window: int | None) -> None:
    context = torch.arange(9.0).reshape(9, 1, 1, 1).expand(9, 2, 3, 4)
    out = TrajectoryDenoiser(_Echo(window), context)(torch.zeros(2, 9, 1, 3, 4), 1.0)
    torch.testing.assert_close(out, context[None, :, :1].expand(2, 9, 1, 3, 4))


def test_land_stays_at_the_mean_and_is_not_seen() -> None:
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    network = DenoisingNetwork(
        ResidualMLP(width=8, blocks=1).module(Inputs(3, 1, 3)), "edm", (0.01, 100.0)
    ).requires_grad_(False)
    denoiser = TrajectoryDenoiser(network, torch.ones(6, 1), mask[0])
    z = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    out = denoiser(z, 1.0)
    assert bool((out[..., 1] == 0).all()) and bool((out[..., 0] != 0).all())
    torch.testing.assert_close(denoiser(z + torch.tensor([0.0, 5.0, 0.0]), 1.0), out)


def test_too_few_states_for_a_window() -> None:
    with pytest.raises(DataError, match=r"has 4 states, the prior needs at least its window of 5; take at least"):
        TrajectoryDenoiser(ExactNetwork(CHAIN, 5), ONES[:4])


# Long trajectories in pieces


def denoising(network: nn.Module) -> DenoisingNetwork:
    """With weights that let every state within reach be seen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return DenoisingNetwork(network, "edm", (0.01, 100.0)).requires_grad_(False)


CONVOLUTIONAL = {
    "temporal": (lambda: TemporalConvolution(width=8, blocks=1, kernel=3).module(Inputs(2, 1, 9)), (2,)),
    "dilated": (lambda: TemporalConvolution(width=8, blocks=2, kernel=3, dilation=2).module(Inputs(2, 1, 9)), (2,)),
    "space-time": (lambda: SpaceTimeUNet(widths=(4, 4), blocks=1).module(Inputs(1, 1, 4, (True, False))), (1, 4, 8)),
    "spatial": (lambda: SpaceTimeUNet(widths=(4, 4), blocks=1, temporal=0).module(Inputs(1, 1, 4, (True,))), (1, 8)),
    "windows": (lambda: ResidualMLP(width=16, blocks=1).module(Inputs(2, 1, 5)), (2,)),
    "even windows": (lambda: ResidualMLP(width=16, blocks=1).module(Inputs(2, 1, 4)), (2,)),
}


def value_and_gradient(denoiser: TrajectoryDenoiser, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    z = z.clone().requires_grad_()
    out = denoiser(z, 0.7)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    (slope,) = torch.autograd.grad((out * weight).sin().sum(), z)
    return out.detach(), slope


@pytest.mark.parametrize("chunk", [1, 9, 12, 16, 40])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_pieces_are_the_whole_to_rounding(name: str, chunk: int) -> None:
    """Values and gradients, the edges and the cuts included, for lengths around those where the cuts are."""
    make, state = CONVOLUTIONAL[name]
    network = denoising(make()).double()
    for length in (16, 17, 18, 19, 41):
        context = torch.linspace(0.5, 1.5, length).double().reshape(-1, *[1] * len(state)).expand(-1, 1, *state[1:])
        z = torch.randn(2, length, *state, generator=torch.Generator().manual_seed(length)).double()
        whole = TrajectoryDenoiser(network, context, chunk=10**6)
        parts = TrajectoryDenoiser(network, context, chunk=chunk)
        for found, expected in zip(value_and_gradient(parts, z), value_and_gradient(whole, z), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(parts(z, 0.7), whole(z, 0.7), rtol=1e-10, atol=1e-12)


def test_pieces_overlap_by_no_less_than_the_reach() -> None:
    """The test above can fail: with a reach that is one too small, the cuts are seen."""
    network = denoising(TemporalConvolution(width=8, blocks=1, kernel=3).module(Inputs(2, 1, 9))).double()
    context, z = torch.ones(41, 1).double(), noisy(0.4, 1).repeat(1, 2, 1)[:, :41]
    whole = TrajectoryDenoiser(network, context)(z, 0.7)
    parts = TrajectoryDenoiser(network, context, chunk=12)
    torch.testing.assert_close(parts(z, 0.7), whole, rtol=1e-10, atol=1e-12)
    parts.reach = network.network.reach - 1
    assert float((parts(z, 0.7) - whole).abs().max()) > 1e-6


def test_several_gradients_of_one_evaluation() -> None:
    """Guidance by Krylov steps differentiates the same evaluation again and again."""
    network = denoising(TemporalConvolution(width=8, blocks=1, kernel=3).module(Inputs(2, 1, 9))).double()
    z = noisy(0.4, 1).requires_grad_()
    out = TrajectoryDenoiser(network, ONES, chunk=12)(z, 0.7)
    first, second = (torch.autograd.grad(out, z, (k * out).detach(), retain_graph=True)[0] for k in (1, 2))
    torch.testing.assert_close(2 * first, second)


def saved_bytes(denoiser: TrajectoryDenoiser, z: torch.Tensor) -> int:
    """What an evaluation keeps for the gradient with respect to z, weights and z itself left out."""
    known = {w.untyped_storage().data_ptr() for w in (*denoiser.network.parameters(), z, denoiser.context)}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = denoiser(z.requires_grad_(), 1.0)
    assert out.requires_grad  # keeps the graph, and so the addresses, alive while they are counted
    return sum(kept.values())


LARGE = {
    "temporal": (lambda: TemporalConvolution(width=32, blocks=2, kernel=3).module(Inputs(2, 1, 9)), 64),
    "windows": (lambda: ResidualMLP(width=64, blocks=3).module(Inputs(2, 1, 5)), 64),
}


@pytest.mark.parametrize("name", LARGE)
def test_memory_does_not_grow_with_the_length_but_for_the_states(name: str) -> None:
    make, chunk = LARGE[name]
    network = denoising(make())
    kept, peak = {}, {}
    for length in (64, 1024):
        denoiser = TrajectoryDenoiser(network, torch.ones(length, 1), chunk=chunk)
        z = torch.zeros(1, length, 2)
        kept[length] = saved_bytes(denoiser, z)
        peak[length] = peak_bytes(lambda denoiser=denoiser, z=z: value_and_gradient(denoiser, z))
    states = 1024 * 2 * 4
    # Between the evaluation and its gradient nothing is kept; in either, one piece and a few arrays like the states.
    assert kept[1024] <= states < kept[64]
    assert peak[1024] < 1.1 * peak[64] + 12 * states
    whole = TrajectoryDenoiser(network, torch.ones(1024, 1), chunk=10**6)
    assert peak_bytes(lambda: value_and_gradient(whole, torch.zeros(1, 1024, 2))) > 8 * peak[64]
    assert saved_bytes(whole, torch.zeros(1, 1024, 2)) > 8 * kept[64]


def test_pieces_of_state_vectors_are_as_long_as_promised() -> None:
    sizes = []

    module = TemporalConvolution(width=8, blocks=4, kernel=5).module(Inputs(3, 1, 33))
    module.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[1]))
    network = denoising(module)
    TrajectoryDenoiser(network, torch.ones(4096, 1))(torch.zeros(1, 4096, 3), 1.0)
    assert max(sizes) == 512 and len(sizes) == 9
    assert sum(sizes) < 1.2 * 4096  # time is linear in the length


def test_pieces_of_a_gaussian_process_agree_with_the_whole() -> None:
    # 30 states are ten times the correlation time, so that the inside of a piece does not see its ends.
    modes = Eofs(1, (4,), 2, 30)
    modes.variances.copy_(cosine_variances(torch.full((3,), math.exp(-1 / 3)), 30) * torch.tensor([5.0, 1.0, 0.2]))
    modes.vectors.copy_(torch.linalg.qr(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))[0])
    network = DenoisingNetwork(
        SpaceTimeUNet(widths=(8,)).module(Inputs(1, 3, 8, (False,))), "eof", (0.01, 100.0), modes
    )
    network.share = (0.0, 0.0)
    context = torch.zeros(200, 2, 4)
    z = torch.randn(2, 200, 1, 4, generator=torch.Generator().manual_seed(1))
    whole, pieces = (TrajectoryDenoiser(network, context, chunk=chunk)(z, 0.8) for chunk in (200, 64))
    # The cosines of a piece are not those of the whole: both are approximations, a hundredth of the states apart.
    torch.testing.assert_close(pieces, whole, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("name", "window", "known"),
    [("temporal", 4, True), ("temporal", 3, False), ("spatial", 1, True), ("windows", 2, True), ("dilated", 7, False)],
)
def test_what_a_network_was_never_shown(name: str, window: int, known: bool) -> None:
    """The reaches are 3, 0 and 7 states; a network of windows has none."""
    network = denoising(CONVOLUTIONAL[name][0]())
    assert (beyond_window(network, window) is None) == known
    network.share = (0.0, 0.0)
    assert beyond_window(network, window) is None

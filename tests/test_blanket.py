"""Composition of local networks (algorithms 1 and 2) against the exact score of a Markov chain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian import ExactNetwork, GaussianChain
from torch import nn

from sdaxr.prior.blanket import TrajectoryDenoiser
from sdaxr.prior.networks.mlp import ResidualMLP
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import DataError

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
        self.network = nn.Module()
        self.network.window = window

    def forward(self, z: torch.Tensor, r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return context[:, :, :1].expand_as(z)


@pytest.mark.parametrize("window", [None, 1, 5, 9])
def test_every_state_is_told_its_own_context(window: int | None) -> None:
    context = torch.arange(9.0).reshape(9, 1, 1, 1).expand(9, 2, 3, 4)
    out = TrajectoryDenoiser(_Echo(window), context)(torch.zeros(2, 9, 1, 3, 4), 1.0)
    torch.testing.assert_close(out, context[None, :, :1].expand(2, 9, 1, 3, 4))


def test_land_stays_at_the_mean_and_is_not_seen() -> None:
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    network = DenoisingNetwork(ResidualMLP(3, 1, 3, width=8, blocks=1), "edm", (0.01, 100.0)).requires_grad_(False)
    denoiser = TrajectoryDenoiser(network, torch.ones(6, 1), mask[0])
    z = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    out = denoiser(z, 1.0)
    assert bool((out[..., 1] == 0).all()) and bool((out[..., 0] != 0).all())
    torch.testing.assert_close(denoiser(z + torch.tensor([0.0, 5.0, 0.0]), 1.0), out)


def test_too_few_states_for_a_window() -> None:
    with pytest.raises(DataError, match=r"has 4 states, the prior needs at least its window of 5; assimilate"):
        TrajectoryDenoiser(ExactNetwork(CHAIN, 5), ONES[:4])


def saved_bytes(length: int) -> int:
    """What a window network keeps for the gradient with respect to z."""
    network = DenoisingNetwork(ResidualMLP(2, 1, 5, width=32, blocks=2), "edm", (0.01, 100.0)).requires_grad_(False)
    denoiser = TrajectoryDenoiser(network, torch.ones(length, 1))
    weights = {w.untyped_storage().data_ptr() for w in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = denoiser(torch.zeros(1, length, 2, requires_grad=True), 1.0)
    assert out.requires_grad  # keeps the graph, and so the addresses, alive while they are counted
    return sum(kept.values())


def test_memory_is_linear_in_the_length() -> None:
    once, twice, four = (saved_bytes(n) for n in (64, 128, 256))
    assert (four - twice) / (twice - once) == pytest.approx(2, rel=0.05)
    assert four / once < 4.5

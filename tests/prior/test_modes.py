"""Modes of fields, against the closed form of Gaussian fields."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdaxr.prior.modes import Modes
from sdaxr.prior.preconditioning import DenoisingNetwork

SHAPES = [
    ((), ()),
    ((5,), (True,)),
    ((6,), (True,)),
    ((6,), (False,)),
    ((1, 4), (True, False)),
    ((4, 5), (False, True)),
    ((6, 7), (True, True)),
]


class Nothing(nn.Module):
    """A network that has learned nothing."""

    def forward(self, x: torch.Tensor, log_r: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def spectral(modes: Modes) -> DenoisingNetwork:
    return DenoisingNetwork(Nothing(), "spectral", (0.01, 100.0), modes)


def stationary(count: int, shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples (count, 1, 1, *shape) of a field on a torus, and the variances of its Fourier modes."""
    waves = torch.meshgrid(*[torch.fft.fftfreq(n, 1 / n) for n in shape], indexing="ij")
    variances = 1 / (0.2 + sum(w**2 for w in waves)) ** 1.5
    variances = variances / variances.mean()
    white = torch.randn(count, 1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    axes = tuple(range(3, 3 + len(shape)))
    return torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * variances.sqrt(), dim=axes).real, variances


@pytest.mark.parametrize(("shape", "periodic"), SHAPES)
def test_modes_are_orthonormal_and_lose_nothing(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> None:
    modes = Modes(3, shape, periodic)
    modes.measure(torch.randn(4, 200, 3, *shape, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(2, 4, 3, *shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(modes.inverse(modes(x)), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(modes(x).square().sum(), x.square().sum(), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16,), (8, 10)])
@pytest.mark.parametrize("r", [0.03, 0.5, 3.0])
def test_without_a_network_a_stationary_gaussian_field_is_denoised_exactly(shape: tuple[int, ...], r: float) -> None:
    training, variances = stationary(20_000, shape, 0)
    modes = Modes(1, shape, [True] * len(shape))
    modes.measure([training])
    x, _ = stationary(50, shape, 1)
    z = x + r * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    axes = tuple(range(3, 3 + len(shape)))
    exact = torch.fft.ifftn(torch.fft.fftn(z, dim=axes) * variances / (variances + r**2), dim=axes).real
    found = spectral(modes)(z, torch.full((50,), r), torch.ones(1, 1, 1, *shape))
    assert float((found - exact).square().mean()) < 2e-3 * float((z / (1 + r**2) - exact).square().mean())


@pytest.mark.parametrize("r", [0.03, 0.5, 3.0])
def test_loss_without_a_network_is_the_variance_that_the_filter_leaves(r: float) -> None:
    x, variances = stationary(4000, (8, 10), 0)
    modes = Modes(1, (8, 10), (True, True))
    modes.measure([x])
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = spectral(modes).loss(x, torch.full((4000,), r), noise, torch.ones(1, 1, 1, 8, 10), None).mean()
    left = (variances * r**2 / (variances + r**2)).mean()
    assert float(found) == pytest.approx(float(left) * (1 + r**2) / r**2, rel=0.02)


def test_cosines_are_the_modes_of_a_bounded_line() -> None:
    points = (torch.arange(12) + 0.5) / 12
    shapes = torch.stack([(torch.pi * k * points).cos() for k in (0, 1, 3)])
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) @ shapes
    modes = Modes(1, (12,), (False,))
    modes.measure([x[:, None]])
    assert modes.variances.flatten().argsort(descending=True)[:3].sort().values.tolist() == [0, 1, 3]
    z = x[:, None, None] + torch.randn(5000, 1, 1, 12, generator=torch.Generator().manual_seed(1))
    error = (spectral(modes)(z, torch.ones(5000), torch.ones(1, 1, 1, 12)) - x[:, None, None]).square().mean()
    variances = torch.tensor([12.0, 6.0, 6.0])
    assert float(error) == pytest.approx(float((variances / (variances + 1)).sum() / 12), rel=0.03)


def test_channels_that_determine_each_other_do() -> None:
    """Of a velocity without divergence, only that part of the noise is left that has none either."""
    stream, _ = stationary(20_000, (8, 8), 0)
    wave = 1j * 2 * torch.pi * torch.fft.fftfreq(8)
    wave[4] = 0
    spectrum = torch.fft.fft2(stream[:, 0, 0])
    velocity = torch.stack([torch.fft.ifft2(-wave[:, None] * spectrum).real, torch.fft.ifft2(wave * spectrum).real], 1)
    modes = Modes(2, (8, 8), (True, True))
    modes.measure([velocity])
    noise = torch.randn(20, 1, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    found = torch.fft.fft2(spectral(modes)(noise, torch.full((20,), 0.1), torch.ones(1, 1, 1, 8, 8)))
    divergence = wave * found[:, :, 0] + wave[:, None] * found[:, :, 1]
    assert float(divergence.abs().max()) < 1e-3 * float(found.abs().max())


def test_correlations_are_left_out_where_there_are_too_few_states() -> None:
    modes = Modes(4, (6,), (True,))
    modes.measure([torch.randn(20, 1, 6).expand(20, 4, 6)])
    assert bool((modes.vectors.abs().amax(-2) == 1).all())


@pytest.mark.parametrize("r", [0.03, 0.5, 3.0])
def test_without_a_network_a_process_with_modes_in_time_is_smoothed_exactly(r: float) -> None:
    """A field on a ring times cosines in time: the modes of windows are its eigenvectors."""
    time, points = 5, 8
    angles = torch.pi * torch.arange(time)[:, None] * (torch.arange(time) + 0.5) / time
    cosines = angles.cos() * (2 / time) ** 0.5
    cosines[0] /= 2**0.5
    quick = 0.1 ** torch.arange(time)
    field, spatial = stationary(40_000, (points,), 0)
    amplitudes = field.reshape(-1, time, 1, points) * quick.sqrt().reshape(time, 1, 1)
    x = torch.einsum("ft,bfcx->btcx", cosines, amplitudes)
    modes = Modes(1, (points,), (True,), time)
    modes.measure(x.split(500))
    torch.testing.assert_close(modes.spectrum.mean(0), modes.variances, rtol=1e-3, atol=0)
    z = x[:200] + r * torch.randn(200, time, 1, points, generator=torch.Generator().manual_seed(1))
    spectrum = torch.fft.fft(torch.einsum("ft,btcx->bfcx", cosines, z))
    gain = quick[:, None, None] * spatial / (quick[:, None, None] * spatial + r**2)
    exact = torch.einsum("ft,bfcx->btcx", cosines, torch.fft.ifft(spectrum * gain).real)
    network = DenoisingNetwork(Nothing(), "space-time", (0.01, 100.0), modes)
    found = network(z, torch.full((200,), r), torch.ones(1, time, 1, points))
    assert network.window == time
    assert float((found - exact).square().mean()) < 2e-3 * float((z / (1 + r**2) - exact).square().mean())
    levels = torch.tensor([r])
    assert float(modes.estimated(levels, time)) == pytest.approx(float(exact.std()), rel=0.1)


@pytest.mark.parametrize(("shape", "periodic"), SHAPES)
def test_some_channels_are_those_of_states_that_are_zero_in_others(
    shape: tuple[int, ...], periodic: tuple[bool, ...]
) -> None:
    modes = Modes(3, shape, periodic)
    modes.measure(torch.randn(4, 200, 3, *shape, generator=torch.Generator().manual_seed(0)))
    x, some = torch.randn(2, 4, 3, *shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2])
    x[:, :, 1] = 0
    torch.testing.assert_close(modes(x[:, :, some], some), modes(x))
    whole = torch.randn_like(modes(x))
    torch.testing.assert_close(modes.inverse(whole, some), modes.inverse(whole)[:, :, some])

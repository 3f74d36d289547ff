"""Each method of guidance against the posterior of a linear Gaussian chain: exact, or as wrong as theory says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian import GaussianChain

from sdaxr.posterior.covariance import PriorCovariance
from sdaxr.posterior.guidance import DMPS, DPS, METHODS, MMPS, SDA, SOAD, Bounded, Guidance, JacobianFree
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers import Sampler, karras_levels
from sdaxr.posterior.unresolved import UnresolvedVariance
from sdaxr.schema import DataError, DivergenceError, OptionError

LENGTH = 8
CHAIN = GaussianChain(LENGTH)
PRIOR = CHAIN.covariance
SIZE = len(PRIOR)
LEVELS = (0.03, 0.5, 4.0, 50.0)


def draws(seed: int, members: int, *shape: int) -> Callable[[], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(members, *(shape or (LENGTH, 2)), generator=generator, dtype=torch.float64)


def exponential(n: int, distance: float) -> np.ndarray:
    """Correlation exp(-|i - j| / distance)."""
    return np.exp(-np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / distance)


def network(
    matrix: np.ndarray,
    errors: np.ndarray,
    correlation: np.ndarray | None = None,
    seed: int = 3,
    prior: np.ndarray = PRIOR,
) -> GaussianObservation:
    """Observations of a draw from the prior through ``matrix`` (n, states), plus a constant as physical units have."""
    random = np.random.default_rng(seed)
    covariance = np.outer(errors, errors) * (np.eye(len(errors)) if correlation is None else correlation)
    truth = random.multivariate_normal(np.zeros(len(prior)), prior, method="eigh")
    values = matrix @ truth + 5.0 + random.multivariate_normal(np.zeros(len(errors)), covariance)
    h = torch.as_tensor(matrix)
    return GaussianObservation(
        lambda x: x.flatten(1) @ h.T + 5.0,
        torch.as_tensor(values),
        torch.as_tensor(errors),
        torch.as_tensor(np.sqrt(np.einsum("ij,jk,ik->i", matrix, prior, matrix))),
        correlation=None if correlation is None else torch.as_tensor(correlation),
    )


def first_component(every: int) -> np.ndarray:
    return np.kron(np.eye(LENGTH), [[1.0, 0.0]])[::every]


SPARSE = network(first_component(3), np.full(3, 0.3))
MIXED = network(np.kron(np.eye(LENGTH), [[0.6, 0.8], [0.3, -2.0]]), np.linspace(0.2, 1.5, SIZE))
CORRELATED = network(first_component(1), np.linspace(0.3, 0.6, LENGTH), exponential(LENGTH, 2.0))
# A background: the identity of the first state, whose two errors are correlated.
BACKGROUND = network(np.eye(2, SIZE), np.array([0.4, 0.7]), np.array([[1.0, 0.6], [0.6, 1.0]]), seed=5)
NETWORKS = {
    "sparse": [SPARSE],
    "mixed": [MIXED],
    "correlated": [CORRELATED],
    "background": [BACKGROUND, SPARSE],
    "both": [BACKGROUND, CORRELATED],
}


def matrices(networks: list[GaussianObservation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H, y without the constant, and R of all networks, in numpy."""
    h = [n.operator(torch.eye(SIZE, dtype=torch.float64)[:, None]).numpy().T - 5.0 for n in networks]
    count, first = sum(map(len, h)), 0
    covariance = np.zeros((count, count))
    for n, rows in zip(networks, h, strict=True):
        errors, block = n.errors.numpy(), slice(first, first + len(rows))
        correlation = np.eye(len(rows)) if n.correlation is None else n.correlation.numpy()
        covariance[block, block] = np.outer(errors, errors) * correlation
        first += len(rows)
    return np.concatenate(h), np.concatenate([n.values.numpy() - 5.0 for n in networks]), covariance


def posterior_mean(
    networks: list[GaussianObservation], z: torch.Tensor, r: float, precision: np.ndarray | None = None
) -> np.ndarray:
    """E[x | z, y] by adding up precisions: that of the prior, of z and of the observations."""
    h, y, covariance = matrices(networks)
    weight = h.T @ np.linalg.inv(covariance)
    total = (np.linalg.inv(PRIOR) if precision is None else precision) + np.eye(SIZE) / r**2 + weight @ h
    return np.linalg.solve(total, (z.flatten(1).numpy() / r**2 + weight @ y).T).T


def exact_matrix(networks: list[GaussianObservation]) -> Callable[[float], torch.Tensor]:
    """H C (C + r^2 I)^-1 H^T in units of the natural scales."""
    h, scale = matrices(networks)[0], torch.cat([n.scale for n in networks]).numpy()
    return lambda r: torch.as_tensor(h @ CHAIN.unresolved(r) @ h.T / np.outer(scale, scale))


COVARIANCE = PriorCovariance.of(torch.as_tensor(PRIOR))
EXACT: dict[str, Callable[[list[GaussianObservation]], Guidance]] = {
    "sda, matrix": lambda networks: SDA(CHAIN.denoise, networks, exact_matrix(networks)),
    "sda, covariance": lambda networks: SDA(CHAIN.denoise, networks, COVARIANCE),
    "mmps": lambda networks: MMPS(CHAIN.denoise, networks, sum(len(n.errors) for n in networks)),
    "jacobian_free": lambda networks: JacobianFree(CHAIN.denoise, networks, COVARIANCE),
}


# Exact


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize("method", EXACT)
def test_exact_methods_give_the_posterior_mean_at_every_level(method: str, case: str) -> None:
    guided, z = EXACT[method](NETWORKS[case]), 3 * draws(7, 4)()
    for r in LEVELS:
        expected = posterior_mean(NETWORKS[case], z, r)
        np.testing.assert_allclose(guided(z, r).flatten(1), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["sda, covariance", "jacobian_free"])
def test_conjugate_gradients_in_the_place_of_a_matrix(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdaxr.posterior.linear.DENSE_OBSERVATIONS", 0)
    guided, z = EXACT[method](NETWORKS["both"]), 3 * draws(7, 4)()
    assert guided.operators(z).linear and guided.operators(z).matrix is None
    for r in LEVELS:
        np.testing.assert_allclose(
            guided(z, r).flatten(1), posterior_mean(NETWORKS["both"], z, r), rtol=1e-6, atol=1e-7
        )


def test_a_nonlinear_operator_is_linearised_around_the_denoised_state() -> None:
    """One Gauss-Newton step; the three methods that take a covariance of the states agree on it."""
    h, y, covariance = matrices([MIXED])
    torch_h = torch.as_tensor(h)
    bent = replace(MIXED, operator=lambda x: torch.atan(x.flatten(1) @ torch_h.T), values=torch.as_tensor(np.tanh(y)))
    z = draws(7, 3)()
    for r in (0.5, 4.0):
        xhat, spread = CHAIN.denoise(z, r).flatten(1).numpy(), r**2 * CHAIN.unresolved(r)
        for method in ("sda, covariance", "jacobian_free", "mmps"):
            guided = replace(EXACT[method]([MIXED]), observations=[bent])
            found = guided(z, r).flatten(1).numpy()
            for member in range(3):
                seen = h @ xhat[member]
                slope = h / (1 + seen**2)[:, None]
                gain = spread @ slope.T @ np.linalg.inv(slope @ spread @ slope.T + covariance)
                expected = xhat[member] + gain @ (np.tanh(y) - np.arctan(seen))
                np.testing.assert_allclose(found[member], expected, rtol=1e-6, atol=1e-7)


WHITE = {
    "bounded": lambda networks: Bounded(white, networks),
    "jacobian_free": lambda networks: JacobianFree(white, networks),
    "soad": lambda networks: SOAD(white, networks),
}


def white(z: torch.Tensor, r: float) -> torch.Tensor:
    return z / (1 + r**2)


@pytest.mark.parametrize("correlation", [None, exponential(3, 1.5)], ids=["independent", "correlated"])
@pytest.mark.parametrize("method", WHITE)
def test_bounded_variances_are_exact_for_white_noise(method: str, correlation: np.ndarray | None) -> None:
    seen = [network(2.0 * first_component(3), np.array([0.3, 0.5, 1.0]), correlation, prior=np.eye(SIZE))]
    z = 3 * draws(7, 4)()
    for r in LEVELS:
        expected = posterior_mean(seen, z, r, precision=np.eye(SIZE))
        np.testing.assert_allclose(WHITE[method](seen)(z, r).flatten(1), expected, rtol=1e-6, atol=1e-7)


# With the bias that they should have


def expected_mean(method: str, networks: list[GaussianObservation], z: torch.Tensor, r: float) -> np.ndarray:
    """xhat + r^2 J^T H^T (R + V)^-1 (y - H xhat), or what the method takes in its place."""
    h, y, covariance = matrices(networks)
    jacobian = CHAIN.unresolved(r)
    z = z.flatten(1).numpy()
    xhat = z @ jacobian
    scale = torch.cat([n.scale for n in networks]).numpy()
    if method == "dmps":
        # What z and y say alone, as if there were no prior, beyond what z says.
        weight = h.T @ np.linalg.inv(covariance)
        flat = np.linalg.solve(np.eye(SIZE) / r**2 + weight @ h, (z / r**2 + weight @ y).T).T
        return xhat + flat - z
    innovation = y - xhat @ h.T
    if method == "dps":
        scaled = innovation / scale
        step = 2 * (scaled / scale) / np.linalg.norm(scaled, axis=1, keepdims=True)
        return xhat + r**2 * 0.3 * step @ h @ jacobian
    norm = np.linalg.norm(h, axis=1)
    variance = {
        "scalar": 0.05 * r**2 * scale**2,
        "measured": np.concatenate([constant(n)(r) for n in networks]),
        "bounded": scale**2 * 0.05 * r**2 / (1 + 0.05 * r**2),
        "soad": 1 / (1 / scale**2 + 1 / (norm * r) ** 2),
    }[method]
    return xhat + r**2 * np.linalg.solve(covariance + np.diag(variance), innovation.T).T @ h @ jacobian


BIASED: dict[str, Callable[[list[GaussianObservation]], Guidance]] = {
    "scalar": lambda networks: SDA(CHAIN.denoise, networks, 0.05),
    "measured": lambda networks: SDA(CHAIN.denoise, [replace(n, unresolved=constant(n)) for n in networks]),
    "bounded": lambda networks: Bounded(CHAIN.denoise, networks, 0.05),
    "dmps": lambda networks: DMPS(CHAIN.denoise, networks),
    "dps": lambda networks: DPS(CHAIN.denoise, networks, 0.3),
    "soad": lambda networks: SOAD(CHAIN.denoise, networks),
}


def constant(seen: GaussianObservation) -> UnresolvedVariance:
    return UnresolvedVariance((1e-3, 100.0), torch.full((2, len(seen.errors)), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("case", ["sparse", "correlated", "background", "both"])
@pytest.mark.parametrize("method", BIASED)
def test_approximate_methods_are_what_their_formula_says(method: str, case: str) -> None:
    guided, z = BIASED[method](NETWORKS[case]), draws(8, 4)()
    departure = []
    for r in LEVELS:
        expected = expected_mean(method, NETWORKS[case], z, r)
        np.testing.assert_allclose(guided(z, r).flatten(1), expected, rtol=1e-6, atol=1e-7)
        departure.append(np.abs(expected - posterior_mean(NETWORKS[case], z, r)).max())
    assert max(departure) > 0.1


@pytest.mark.parametrize("width", [1.0, 1e3])
def test_dmps_is_exact_for_an_uninformative_prior(width: float) -> None:
    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return CHAIN.denoise(z, r / width)

    z = draws(9, 4)()
    for r in (0.1, 1.0):
        found = DMPS(denoise, [CORRELATED, BACKGROUND])(z, r).flatten(1).numpy()
        exact = posterior_mean([CORRELATED, BACKGROUND], z, r, precision=np.linalg.inv(width**2 * PRIOR))
        distance = np.abs(found - exact).max()
        assert distance < 1e-4 if width > 1 else distance > 0.02


def test_dmps_counts_an_informative_prior_twice() -> None:
    """For one number, the variance of the samples from level T is T^2 c R / ((c + T^2) (R + T^2))."""
    c, error, top = 0.5, 0.6, 3.0
    one = torch.ones(1, dtype=torch.float64)
    seen = GaussianObservation(lambda x: x.flatten(1), 0.7 * one, error * one, c**0.5 * one)
    guided = DMPS(lambda z, r: c / (c + r**2) * z, [seen])
    sampler = Sampler((*np.geomspace(top, 1e-4, 2000).tolist(), 0.0), 0.0, 0, 0.0)
    # The sampler is linear in the noise it starts from.
    starts = iter([torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float64)])
    low, high = sampler(guided, lambda: next(starts)).flatten()
    expected = top**2 * c * error**2 / ((c + top**2) * (error**2 + top**2))
    assert float(high - low) ** 2 == pytest.approx(expected, rel=0.02)
    assert expected < 0.15 * c * error**2 / (c + error**2)  # and not the posterior's


# Moment matching


def test_more_iterations_are_closer_to_the_posterior() -> None:
    z = 3 * draws(7, 4)()
    for r in (0.5, 4.0):
        exact = posterior_mean([MIXED], z, r)
        distance = [
            np.abs(MMPS(CHAIN.denoise, [MIXED], k)(z, r).flatten(1).numpy() - exact).max() for k in (1, 3, 6, 12)
        ]
        assert distance[0] > 2 * distance[1] > 4 * distance[2] > 8 * distance[3]


def test_a_member_has_a_krylov_space_of_its_own() -> None:
    z = draws(7, 3)()
    z[1] *= 100
    together = MMPS(CHAIN.denoise, [MIXED], 2)(z, 1.0)
    for member in range(3):
        alone = MMPS(CHAIN.denoise, [MIXED], 2)(z[member : member + 1], 1.0)
        torch.testing.assert_close(together[member], alone[0], rtol=1e-9, atol=1e-9)


def test_a_jacobian_that_is_no_covariance_does_no_harm() -> None:
    """Unsymmetric and with negative directions, as of a network: the weights are never longer than the innovation."""
    random = torch.Generator().manual_seed(0)
    bad = torch.randn(SIZE, SIZE, generator=random, dtype=torch.float64) / SIZE**0.5

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return (z.flatten(1) @ (torch.as_tensor(CHAIN.unresolved(r)) + bad / (1 + r**2)).T).reshape(z.shape)

    h, y, covariance = matrices([MIXED])
    z = draws(7, 20)()
    for r in LEVELS:
        jacobian = CHAIN.unresolved(r) + bad.numpy() / (1 + r**2)
        xhat = z.flatten(1).numpy() @ jacobian.T
        innovation = np.linalg.norm((y - xhat @ h.T) / np.sqrt(np.diag(covariance)), axis=1)
        longest = r**2 * np.linalg.norm(jacobian.T @ (h / np.sqrt(np.diag(covariance))[:, None]).T, 2)
        for iterations in (1, 2, 5, 16):
            update = MMPS(denoise, [MIXED], iterations)(z, r).flatten(1).numpy() - xhat
            assert np.all(np.linalg.norm(update, axis=1) <= 1.01 * longest * innovation)


# What is refused, and what diverges


def test_operators_that_do_not_suit_are_refused() -> None:
    h = torch.as_tensor(first_component(1))
    bent = replace(CORRELATED, operator=lambda x: torch.atan(x.flatten(1) @ h.T))
    z = draws(0, 1)()
    for method in (DMPS, SOAD):
        with pytest.raises(OptionError, match=f"method='{method.method}' is for .*take method='sda'"):
            method(CHAIN.denoise, [SPARSE, bent])(z, 1.0)
    with pytest.raises(OptionError, match="a part of the state"):
        SOAD(CHAIN.denoise, [MIXED])(z, 1.0)
    means = network(np.kron(np.eye(LENGTH), [[0.5, 0.5]]), np.full(LENGTH, 0.3))
    SOAD(CHAIN.denoise, [means]).check(z)


def test_wholly_correlated_errors_are_refused() -> None:
    twice = replace(BACKGROUND, correlation=torch.ones(2, 2, dtype=torch.float64))
    with pytest.raises(DataError, match="observation 1 follows from those of others"):
        JacobianFree(CHAIN.denoise, [twice])(draws(0, 1)(), 1.0)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (SDA, {"gamma": -0.1}, "gamma=-0.1, expected a number from 0 on"),
        (SDA, {"gamma": "covarance"}, "gamma='covarance', expected a number"),
        (Bounded, {"gamma": 0.0}, "gamma=0.0, expected a number above 0"),
        (MMPS, {"iterations": 0}, "iterations=0, expected at least 1"),
        (JacobianFree, {"gamma": 0.1}, "gamma=0.1, expected 'covariance' or 'independent'"),
    ],
)
def test_impossible_options(method: type[Guidance], options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        method(CHAIN.denoise, [SPARSE], **options)


def test_divergence_names_method_level_and_remedy() -> None:
    tight = replace(SPARSE, errors=1e-6 * SPARSE.errors)
    wild = {"gamma": SDA(CHAIN.denoise, [tight], 0.0), "larger gamma": Bounded(CHAIN.denoise, [tight], 1e-15)}
    wild["zeta"] = DPS(CHAIN.denoise, [SPARSE], 1e9)
    for remedy, guided in wild.items():
        with pytest.raises(
            DivergenceError, match=f"method '{guided.method}' diverged at noise level r = 0.5 .*{remedy}"
        ):
            guided(draws(0, 2)(), 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_a_prior_that_diverges_is_named_as_the_cause(method: str) -> None:
    seen = replace(SPARSE, unresolved=constant(SPARSE))
    guided = METHODS[method](lambda z, r: z * torch.nan, [seen])
    with pytest.raises(DivergenceError, match=f"'{method}'.*so does the prior without observations"):
        guided(draws(0, 2)(), 0.5)


# What it costs


class _Counted(torch.autograd.Function):
    """The exact denoiser, its transposed products counted."""

    products = 0

    @staticmethod
    def forward(ctx, z, r):
        ctx.r = r
        return CHAIN.denoise(z, r)

    @staticmethod
    def backward(ctx, gradient):
        _Counted.products += 1
        return CHAIN.denoise(gradient, ctx.r), None


@pytest.mark.parametrize(
    ("method", "options", "products", "cost"),
    [
        ("sda", {"gamma": 0.1}, 1, 1.0),
        ("sda", {"gamma": COVARIANCE}, 1, 1.0),
        ("bounded", {}, 1, 1.0),
        ("dps", {}, 1, 1.0),
        ("soad", {}, 1, 1.0),
        ("dmps", {}, 0, 1.0),
        ("jacobian_free", {}, 0, 1.0),
        ("mmps", {"iterations": 1}, 1, 1.0),
        ("mmps", {"iterations": 4}, 4, 2.0),
    ],
)
def test_costs_are_what_is_computed(method: str, options: dict, products: int, cost: float) -> None:
    calls = []

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        calls.append(r)
        return _Counted.apply(z, r)

    guided = METHODS[method](denoise, [CORRELATED, BACKGROUND], **options)
    guided(draws(0, 2)(), 1.0)
    _Counted.products = 0
    calls.clear()
    guided(draws(0, 2)(), 0.5)
    assert (len(calls), _Counted.products, guided.cost) == (1, products, pytest.approx(cost))


@pytest.mark.parametrize("method", METHODS)
def test_each_member_has_observations_of_its_own(method: str) -> None:
    options = {"gamma": 0.1} if method == "sda" else {}
    own = replace(CORRELATED, values=torch.stack([CORRELATED.values, CORRELATED.values + 1]))
    z = draws(16, 2)()
    together = METHODS[method](CHAIN.denoise, [own, BACKGROUND], **options).of(torch.tensor([1, 0]))(z, 0.5)
    for row, values in enumerate([CORRELATED.values + 1, CORRELATED.values]):
        alone = METHODS[method](CHAIN.denoise, [replace(CORRELATED, values=values), BACKGROUND], **options)
        torch.testing.assert_close(together[row : row + 1], alone(z[row : row + 1], 0.5))


# Sampling against the Kalman smoother


def smoothed(every: int, error: float) -> tuple[GaussianObservation, np.ndarray, np.ndarray]:
    """The first component every so many states, and the smoother's means and covariances."""
    operator = np.broadcast_to([[1.0, 0.0]], (LENGTH, 1, 2))
    seen = network(first_component(every), np.full(len(first_component(every)), error))
    y = np.full((LENGTH, 1), np.nan)
    y[::every, 0] = seen.values.numpy() - 5.0
    return seen, *CHAIN.smoother(operator, y, np.full((LENGTH, 1), error))


@pytest.mark.parametrize("method", ["mmps", "sda, covariance", "jacobian_free"])
def test_samples_have_the_moments_of_the_smoother(method: str) -> None:
    seen, mean, cov = smoothed(3, 0.3)
    members = 1500
    samples = Sampler(karras_levels(300, 20.0, 0.02), 1.0, 0, 0.0)(EXACT[method]([seen]), draws(5, members)).numpy()
    deviation = np.sqrt(np.einsum("lii->li", cov))
    assert np.abs((samples.mean(0) - mean) / deviation).max() < 5 / np.sqrt(members)
    departure = samples - samples.mean(0)
    found = np.einsum("nli,nlj->lij", departure, departure) / (members - 1)
    spread = np.sqrt((np.einsum("li,lj->lij", deviation, deviation) ** 2 + cov**2) / members)
    assert np.abs((found - cov) / spread).max() < 5
    # The ancestral sampler loses a part of about 7 / levels of the variance.
    assert float(np.einsum("lii->", found) / np.einsum("lii->", cov)) == pytest.approx(0.98, abs=0.04)


# State-observation augmentation

SEEN = np.array([0.6, 0.8])
AUGMENT = np.kron(np.eye(LENGTH), np.vstack([np.eye(2), SEEN]))  # [x, H(x)] of each state
AUGMENTED = AUGMENT @ PRIOR @ AUGMENT.T
AUGMENTED_VALUES, AUGMENTED_VECTORS = np.linalg.eigh(AUGMENTED)
PICK = np.kron(np.eye(LENGTH), [[0.0, 0.0, 1.0]])


def augmented(z: torch.Tensor, r: float) -> torch.Tensor:
    return (z.flatten(1) @ torch.as_tensor(shrink(r))).reshape(z.shape)


def shrink(r: float) -> np.ndarray:
    values = AUGMENTED_VALUES.clip(0)
    return (AUGMENTED_VECTORS * (values / (values + r**2))) @ AUGMENTED_VECTORS.T


def augmented_network(error: float, correlation: np.ndarray | None = None) -> GaussianObservation:
    return network(3.0 * PICK, np.full(LENGTH, 3.0 * error), correlation, prior=AUGMENTED)


@pytest.mark.parametrize("correlation", [None, exponential(LENGTH, 1.0)], ids=["independent", "correlated"])
def test_the_corrector_noises_the_observation_as_far_as_the_state(correlation: np.ndarray | None) -> None:
    """S z has mean y and covariance r^2 - R (in units of the state) where that is positive; the rest of z stays."""
    seen, r, members = augmented_network(0.5, correlation), 0.6, 40_000
    z = draws(1, 1, LENGTH, 3)().expand(members, -1, -1)
    pinned = SOAD(augmented, [seen]).pin(z, r, draws(2, members, LENGTH, 3))
    torch.testing.assert_close(pinned[..., :2], z[..., :2], rtol=0, atol=1e-12)
    values, vectors = np.linalg.eigh(0.25 * (np.eye(LENGTH) if correlation is None else correlation))
    held = values < r**2
    assert held.all() if correlation is None else 0 < held.sum() < LENGTH
    y = (seen.values.numpy() - 5.0) / 3.0
    found = (pinned[..., 2].numpy() - y) @ vectors
    assert np.abs(found[:, held].mean(0)).max() < 5 * r / np.sqrt(members)
    expected = np.diag(r**2 - values[held])
    np.testing.assert_allclose(np.cov(found[:, held].T), expected, atol=5 * r**2 * np.sqrt(2 / members))
    untouched = (z[..., 2].numpy() - y) @ vectors
    np.testing.assert_allclose(found[:, ~held], untouched[:, ~held], atol=1e-12)


def test_the_corrector_waits_for_the_noise_of_the_state_to_be_larger() -> None:
    seen, z = augmented_network(0.5), draws(1, 2, LENGTH, 3)()
    nothing = draws(2, 2, LENGTH, 3)
    assert SOAD(augmented, [seen]).pin(z, 0.49, nothing) is z
    assert SOAD(augmented, [seen], corrector=False).pin(z, 5.0, nothing) is z


def soad_moments(
    seen: GaussianObservation, levels: tuple[float, ...], corrector: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the samples: each step of the ancestral sampler and the corrector is linear."""
    y, error = (seen.values.numpy() - 5.0) / 3.0, float(seen.errors[0]) / 3.0
    size, scale = len(AUGMENTED), seen.scale.numpy() / 3.0
    mean, cov = np.zeros(size), levels[0] ** 2 * np.eye(size)
    for r, after in itertools.pairwise(levels):
        weights = np.diag(1 / (error**2 + 1 / (1 / scale**2 + 1 / r**2)))
        gain = r**2 * shrink(r) @ PICK.T @ weights
        guided = shrink(r) - gain @ PICK @ shrink(r)  # of z; gain @ y is added to it
        fresh = after / r * np.sqrt(r**2 - after**2)
        step = guided + (after / r) ** 2 * (np.eye(size) - guided)
        mean = step @ mean + (1 - (after / r) ** 2) * gain @ y
        cov = step @ cov @ step.T + fresh**2 * np.eye(size)
        if corrector and after > error:
            rest = np.eye(size) - PICK.T @ PICK
            mean = rest @ mean + PICK.T @ y
            cov = rest @ cov @ rest + (after**2 - error**2) * PICK.T @ PICK
    return mean, cov


@pytest.mark.parametrize("corrector", [True, False])
def test_soad_samples_have_the_moments_of_their_recursion(corrector: bool) -> None:
    seen, members = augmented_network(0.3), 1500
    levels = karras_levels(60, 20.0, 0.02)
    guided = SOAD(augmented, [seen], corrector=corrector)
    samples = Sampler(levels, 1.0, 0, 0.0)(guided, draws(5, members, LENGTH, 3)).flatten(1).numpy()
    mean, cov = soad_moments(seen, levels, corrector)
    deviation = np.sqrt(np.diag(cov))
    assert np.abs((samples.mean(0) - mean) / deviation).max() < 5 / np.sqrt(members)
    found = np.cov(samples.T)
    assert np.abs((found - cov) / np.sqrt((np.outer(deviation, deviation) ** 2 + cov**2) / members)).max() < 5


@pytest.mark.parametrize(
    ("error", "corrector", "ratio"), [(0.05, False, 1.12), (0.05, True, 1.06), (0.5, False, 1.06), (0.5, True, 0.86)]
)
def test_soad_is_near_the_smoother(error: float, corrector: bool, ratio: float) -> None:
    """Too wide by its variance; where errors are not small, too narrow by the corrector."""
    seen = augmented_network(error)
    y = ((seen.values.numpy() - 5.0) / 3.0)[:, None]
    mean, cov = CHAIN.smoother(np.broadcast_to(SEEN, (LENGTH, 1, 2)), y, np.full((LENGTH, 1), error))
    found, spread = soad_moments(seen, karras_levels(400, 20.0, 0.005), corrector)
    distance = (found.reshape(LENGTH, 3)[:, :2] - mean) / np.sqrt(np.einsum("lii->li", cov))
    assert float(np.sqrt((distance**2).mean())) < 0.15
    variance = np.diag(spread).reshape(LENGTH, 3)[:, :2].sum()
    assert float(variance / np.einsum("lii->", cov)) == pytest.approx(ratio, abs=0.02)

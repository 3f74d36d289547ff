"""Observations of a part of the state: the bounded variance, and the corrector that pins what is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenarios import CHAIN, LENGTH, draws, matrix_observation, scenario, white, white_mean

from sdaxr.posterior.guidance.soad import SOAD
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.schema import OptionError

BOUNDED = SOAD(variance="bounded")


def seen(case: str) -> GaussianObservation:
    matrix, y, error, _ = scenario(case)
    return replace(matrix_observation(matrix, y, error), scale=torch.ones(len(y), dtype=torch.float64))


@pytest.mark.parametrize("case", ["full", "partial", "noisy"])
@pytest.mark.parametrize("r", [0.03, 0.5, 4.0, 50.0])
def test_it_is_exact_for_white_noise(case: str, r: float) -> None:
    """The rows of all three operators are orthogonal and of norm one."""
    matrix, y, error, _ = scenario(case)
    z = 3 * draws(7, members=5)()
    found = BOUNDED.guide(white, [seen(case)])(z, r).flatten(1)
    np.testing.assert_allclose(found, white_mean(matrix, y, error, z, r), rtol=1e-6, atol=1e-9)


def test_a_row_of_another_norm_is_the_same_observation() -> None:
    """Twice the row, value, error and scale change nothing, with and without correlated errors."""
    observed = seen("partial")
    n = len(observed.values)
    doubled = GaussianObservation(
        lambda x: 2 * observed.operator(x), 2 * observed.values, 2 * observed.errors, 2 * observed.scale
    )
    correlation = torch.as_tensor(0.6 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))))
    z, r = 3 * draws(7, members=5)(), 0.9
    for c in (None, correlation):
        one, two = (BOUNDED.guide(CHAIN.denoise, [replace(o, correlation=c)]) for o in (observed, doubled))
        torch.testing.assert_close(one(z, r), two(z, r), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(one.pin(z, r, draws(3, 5)), two.pin(z, r, draws(3, 5)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("r", [0.5, 3.0])
def test_what_is_pinned_is_the_observation_with_the_noise_that_it_lacks(r: float, rho: float) -> None:
    """S z ~ N(y, r^2 I), whatever z was, if z is y + N(0, R) with new noise of r^2 I - R; the rest of z stays."""
    matrix, y, error, _ = scenario("partial")
    n, members = len(y), 40_000
    correlation = rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    observed = replace(seen("partial"), correlation=torch.as_tensor(correlation) if rho else None)
    z = 7 * draws(1, members)()
    pinned = BOUNDED.guide(CHAIN.denoise, [observed]).pin(z, r, draws(2, members))
    covariance = np.outer(error, error) * correlation
    left = r**2 * np.eye(n) - covariance
    assert np.linalg.eigvalsh(left)[0] > 0
    found = (pinned.flatten(1).numpy() @ matrix.T) - y
    np.testing.assert_allclose(found.mean(0), 0, atol=5 * r / np.sqrt(members))
    np.testing.assert_allclose(np.cov(found.T), left, atol=5 * np.sqrt(2 / members) * r**2)
    rest = np.eye(2 * LENGTH) - matrix.T @ matrix
    np.testing.assert_allclose((pinned - z).flatten(1).numpy() @ rest, 0, atol=1e-12)


def test_nothing_is_pinned_where_the_noise_is_smaller_than_the_error_or_not_asked_for() -> None:
    observed = seen("partial")
    z = draws(1, 3)()
    small = 0.99 * float(observed.errors.max())
    for guided, r in (
        (BOUNDED.guide(CHAIN.denoise, [observed]), small),
        (SOAD(variance="bounded", corrector=False).guide(CHAIN.denoise, [observed]), 9.0),
    ):
        torch.testing.assert_close(guided.pin(z, r, draws(2, 3)), z, rtol=0, atol=0)


def test_the_later_network_has_the_last_word() -> None:
    observed = seen("partial")
    other = replace(observed, values=observed.values + 5.0, errors=1e-6 * observed.errors)
    z, r = draws(1, 2000)(), 0.5
    found = observed.operator(BOUNDED.guide(CHAIN.denoise, [observed, other]).pin(z, r, draws(2, 2000)))
    np.testing.assert_allclose(found.mean(0), other.values, atol=5 * r / np.sqrt(2000))


@pytest.mark.parametrize("kind", ["overlapping", "bent"])
def test_other_operators_are_refused(kind: str) -> None:
    observed = seen("full")
    operators = {
        "overlapping": lambda x: x.flatten(1)[:, :-1] + x.flatten(1)[:, 1:],
        "bent": lambda x: torch.atan(x.flatten(1)),
    }
    n = {"overlapping": 2 * LENGTH - 1, "bent": 2 * LENGTH}[kind]
    values, errors, scale = (a[:n] for a in (observed.values, observed.errors, observed.scale))
    network = GaussianObservation(operators[kind], values, errors, scale)
    with pytest.raises(OptionError, match="observations that are a part of the state"):
        BOUNDED.guide(CHAIN.denoise, [network]).check(draws(0, members=1)())


def test_a_variance_that_no_prior_has_given_yet_is_refused() -> None:
    with pytest.raises(OptionError, match=r"call resolve, or take Bounded\(\)"):
        SOAD().guide(CHAIN.denoise, [seen("full")])(draws(0, members=1)(), 1.0)


def test_a_variance_by_another_name_is_refused() -> None:
    with pytest.raises(OptionError, match="unknown variance 'unbounded'.*Did you mean 'bounded'"):
        SOAD(variance="unbounded").guide(CHAIN.denoise, [seen("full")])

"""Samplers by name, and which options they get: the user's, the prior's, the defaults."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import sdaxr
from sdaxr.posterior.samplers.registry import (
    PAPER,
    SAMPLERS,
    DPMSolver,
    Exponential,
    SDEDPMSolver,
    describe_sampler,
    resolve_sampler,
)
from sdaxr.schema import OptionError

LEVELS = (0.005, 100.0)


def prior(**recorded) -> SimpleNamespace:
    return SimpleNamespace(name="p", metadata={"sampling": {"sampler": recorded}})


def test_the_papers_setting_is_counted_as_in_the_paper() -> None:
    assert Exponential() == PAPER
    assert PAPER.build(LEVELS).evaluations == 512
    assert SDEDPMSolver().build(LEVELS).evaluations == 65


def test_options_are_the_users_then_the_priors_then_the_defaults() -> None:
    assert resolve_sampler(prior()) == SDEDPMSolver()
    shipped = prior(name="sde-dpm++", steps=16, largest=10.0)
    assert resolve_sampler(shipped) == SDEDPMSolver(steps=16, largest=10.0)
    assert resolve_sampler(shipped, "sde-dpm++") == SDEDPMSolver(steps=16, largest=10.0)
    assert resolve_sampler(shipped, {"eta": 0.5}) == SDEDPMSolver(steps=16, largest=10.0, eta=0.5)
    assert resolve_sampler(shipped, SDEDPMSolver(steps=8)) == SDEDPMSolver(steps=8)
    assert resolve_sampler(prior(name="ddim", eta=0.2)) == sdaxr.samplers.DDIM(eta=0.2)


def test_what_was_found_best_for_one_sampler_is_not_for_another_one() -> None:
    shipped = prior(name="sde-dpm++", steps=16, largest=10.0, corrections=5, attempts=7)
    assert resolve_sampler(shipped, "dpm++") == DPMSolver(largest=10.0, attempts=7)
    # The paper's setting stands as a whole.
    assert resolve_sampler(shipped, {"name": "exponential", "steps": 64}) == Exponential(steps=64)


def test_noise_levels_are_within_those_that_the_prior_was_trained_for() -> None:
    levels = SDEDPMSolver(largest=10.0, smallest=0.003).build((0.001, 80.0)).levels
    assert (max(levels), min(r for r in levels if r)) == pytest.approx((10.0, 0.003))
    levels = SDEDPMSolver(largest=200.0).build((0.01, 80.0)).levels
    assert (max(levels), min(r for r in levels if r)) == pytest.approx((80.0, 0.01))


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (0.001, 0.0), (1e3, 200.0), (0.0, 0.0)])
def test_levels_without_any_of_the_training_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(OptionError, match="expected levels between 0.005 and 100, where the prior is trained"):
        SDEDPMSolver(largest=bounds[0], smallest=bounds[1]).build(LEVELS)


@pytest.mark.parametrize("wrong", [3, sdaxr.methods.SDA()])
def test_an_object_of_another_kind_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="expected one of ancestral, ddim"):
        resolve_sampler(prior(), wrong)


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_every_sampler_has_a_name_and_is_recorded(name: str) -> None:
    sampler = SAMPLERS.build(name)
    assert sampler.name == name and sampler.build(LEVELS).levels[0] >= 80
    assert SAMPLERS.build(SAMPLERS.describe(sampler)) == sampler
    assert describe_sampler(sampler)["sampler"] == name
    assert type(sampler).__name__ in dir(sdaxr.samplers)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("dpm", r"unknown sampler 'dpm'; expected one of .*Did you mean 'dpm\+\+'"),
        ({"step": 8}, r"unknown option of sde-dpm\+\+: 'step'.*Did you mean 'steps'"),
        ({"grid": "log-nr"}, "grid='log-nr'.*Did you mean 'log-snr'"),
        ({"steps": 0}, "steps=0 for sde-dpm.., expected a whole number of at least 1"),
        ({"corrections": -1}, "corrections=-1 for sde-dpm.., expected a whole number of at least 0"),
        ({"tau": -0.1}, "tau=-0.1 for sde-dpm.., expected a number of at least 0"),
        ({"eta": -0.1}, "eta=-0.1, expected a number from 0 on"),
        ({"attempts": 0}, "attempts=0 for SDEDPMSolver, expected at least one"),
        ({"stride": 0}, "stride=0 for sde-dpm.., expected a whole number of at least 1"),
        ({"steps": "many"}, "steps='many'.*expected a whole number"),
        ({"name": "ancestral", "eta": 0.5}, "unknown option of ancestral: 'eta'"),
        ({"name": "ddim", "eta": 1.5}, "eta=1.5, expected 0 to 1"),
        (3, "sampler=3, expected one of ancestral"),
    ],
)
def test_what_is_impossible_is_an_error(wrong, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve_sampler(prior(), wrong)


def test_what_a_file_records_wrongly_is_an_error() -> None:
    with pytest.raises(OptionError, match="unknown option of sde-dpm.*'stepps'.*Did you mean 'steps'"):
        resolve_sampler(prior(name="sde-dpm++", stepps=16))


def test_an_unknown_class_offers_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"sdaxr.samplers has no 'DPMSolvr'.*Did you mean 'DPMSolver'"):
        sdaxr.samplers.DPMSolvr  # noqa: B018

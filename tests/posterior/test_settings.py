"""Settings of the samplers: the user's, the prior's, the defaults."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sdaxr.posterior.samplers import (
    SAMPLERS,
)
from sdaxr.posterior.settings import DEFAULTS, PAPER, Sampling, resolve_sampling
from sdaxr.schema import OptionError


def test_the_papers_setting_is_counted_as_in_the_paper() -> None:
    assert PAPER.build((0.005, 100.0)).evaluations == 512
    assert Sampling().build((0.005, 100.0)).evaluations == 65


def prior(**stored) -> SimpleNamespace:
    return SimpleNamespace(name="p", metadata={"sampling": stored})


def test_settings_are_the_users_then_the_priors_then_those_of_the_sampler() -> None:
    assert resolve_sampling(prior(), {"steps": None}) == Sampling() == DEFAULTS["sde-dpm++"]
    shipped = prior(steps=16, gamma=0.003, largest=10.0)
    assert resolve_sampling(shipped, {"eta": 1.0}) == replace(Sampling(), steps=16, gamma=0.003, largest=10.0, eta=1.0)
    # What was found best for one sampler is not for another one.
    other = resolve_sampling(shipped, {"sampler": "dpm++", "gamma": 0.1})
    assert other == replace(DEFAULTS["dpm++"], gamma=0.1, largest=10.0)
    levels = Sampling(largest=10.0, smallest=0.003).build((0.001, 80.0)).levels
    assert (max(levels), min(r for r in levels if r)) == pytest.approx((10.0, 0.003))
    recorded = resolve_sampling(prior(sampler="ddim", eta=0.2), {})
    assert recorded == replace(DEFAULTS["ddim"], eta=0.2)
    # The paper's setting stands as a whole.
    assert resolve_sampling(prior(steps=16, gamma=0.003), {"sampler": "exponential", "steps": 64}) == replace(
        PAPER, steps=64
    )
    with pytest.raises(OptionError, match=r"sampler='dpm'.*expected one of"):
        resolve_sampling(prior(), {"sampler": "dpm"})
    with pytest.raises(OptionError, match=r"records the sampling setting 'gama'.*Did you mean 'gamma'"):
        resolve_sampling(prior(gama=1.0), {})


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_defaults_that_build(name: str) -> None:
    assert DEFAULTS[name].sampler == name
    assert DEFAULTS[name].build((0.005, 100.0)).levels[0] >= 80
    assert set(DEFAULTS) == set(SAMPLERS)

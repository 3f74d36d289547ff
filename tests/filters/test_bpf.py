"""The bootstrap particle filter."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from chains import TRIPLE, truth_of
from filtered import LENGTH, QUIET

from sdaxr import operators as op
from sdaxr.filters import bpf
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import DivergenceError


def test_systematic_resampling_gives_each_its_share() -> None:
    weights = np.random.default_rng(0).gamma(0.3, size=200)
    picked = np.bincount(bpf.systematic_resampling(weights, 1000, np.random.default_rng(1)), minlength=200)
    share = 1000 * weights / weights.sum()
    assert picked.sum() == 1000 and (np.abs(picked - share) < 1).all()


def test_weak_filters_are_told(caplog: pytest.LogCaptureFixture) -> None:
    observations = observe(truth_of(TRIPLE, LENGTH, 0), op.identity(), error=1e-3)
    with caplog.at_level(logging.WARNING, "sdaxr"):
        smooth(observations, TRIPLE, method={"name": "bpf", "particles": 64}, members=2, **QUIET)
    assert "particles are effective" in caplog.text
    undefined = op.function(lambda fields: {name: (-1 - x.abs()).sqrt() for name, x in fields.items()})
    with pytest.raises(DivergenceError, match="the observations at 0.0 have the log-likelihood nan for some particle"):
        smooth(observations, TRIPLE, operator=undefined, method={"name": "ffbs", "particles": 64}, members=2, **QUIET)

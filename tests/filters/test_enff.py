"""The ensemble flow filter against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from analyses import analysed, quantiles, seen
from chains import truth_of
from filtered import QUIET, model_of

from sdaxr import operators as op
from sdaxr.filters.enff import EnFF
from sdaxr.filters.ensemble import forward
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.lorenz96 import Lorenz96

APART = np.array([[-30.0, 10.0], [0.0, 0.0], [20.0, -40.0]])
ANYWHERE = seen(lambda x: x, [1.0, 1.0], 0.5)


def test_without_guidance_members_that_are_apart_flow_to_the_forecast() -> None:
    before = 0.9 * APART + 3
    found = analysed(EnFF(guidance=0.0, sigma=1e-3, scale=1.0), APART, ANYWHERE, previous=before)
    np.testing.assert_allclose(found, APART, atol=6e-3)
    assert np.abs(found - APART).max() > 1e-4
    same = analysed(EnFF(guidance=0.0, sigma=1e-3, scale=1.0), APART, ANYWHERE)
    np.testing.assert_allclose(same, APART, atol=6e-3)


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_members_that_are_apart_are_nudged(steps: int) -> None:
    strength, sigma = 0.25, 1e-9
    method = EnFF(guidance=strength, sigma=sigma, scale=1.0, steps=steps)
    found = analysed(method, APART, ANYWHERE, previous=APART + 1)
    left = (1 + strength / 0.25 / steps) ** -steps
    np.testing.assert_allclose(found, 1 + (APART - 1) * left, atol=1e-6)
    if steps == 1000:
        np.testing.assert_allclose(found, 1 + (APART - 1) * np.exp(-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("flow", "sigma"), [("f2p", 0.3), ("ot", 0.05)])
def test_without_guidance_a_large_ensemble_flows_to_a_gaussian(flow: str, sigma: float) -> None:
    x = quantiles(600)
    found = analysed(
        EnFF(flow=flow, guidance=0.0, sigma=sigma, scale=1.0, steps=60),
        4 + 2 * x,
        seen(lambda x: x, 0.0, 1.0),
        previous=x,
    )
    assert found.mean() == pytest.approx(4, abs=5 * 2 / np.sqrt(600))
    # About each member there are draws of N(0, sigma^2).
    assert found.var() == pytest.approx(4 + sigma**2, rel=5 * np.sqrt(2 / 600))


def test_the_velocity_of_noise_is_that_of_the_conditional_mean() -> None:
    method, time, z = EnFF(flow="ot", sigma=0.1), 0.6, np.linspace(-2, 2, 5)[:, None]
    members, std = 3 * quantiles(20000), 1 - 0.9 * 0.6
    found = method.velocity(z, time, np.zeros_like(members), members)
    # z = t x + std e with x of N(0, 9): the velocity is E[x - 0.9 e | z].
    gain = np.array([time * 9, std]) / (time**2 * 9 + std**2)
    np.testing.assert_allclose(found, (gain[0] - 0.9 * gain[1]) * z, atol=2e-3)


def test_the_flow_starts_from_the_analysis_before() -> None:
    system = Lorenz96(sites=8)
    data = observe(truth_of(system, 7, 1), op.identity(), error=1.0, every=3, seed=1)
    first = system.initial(5, seed=2)
    model = model_of(system, {"seen": data}, 7, first)
    starts = []

    class Noted(EnFF):
        def analyse(self, forecast):
            starts.append(forecast.previous.copy())
            return super().analyse(forecast)

    paths = forward(model, Noted(guidance=0.1), seed=0).paths
    np.testing.assert_array_equal(starts[0], first)
    np.testing.assert_array_equal(starts[1], paths[:, 0])
    np.testing.assert_array_equal(starts[2], paths[:, 3])


@pytest.mark.parametrize("flow", ["f2p", "ot"])
def test_a_ring_is_followed(flow: str) -> None:
    truth = truth_of(Lorenz96(sites=12), 41, 1)
    arctans = observe(truth, op.arctan(), error=0.05, every=2, seed=2)
    method = {"name": "enff", "scale": 1, "guidance": 0.1, "flow": flow}
    found = smooth(arctans, Lorenz96(sites=12), method=method, members=12, seed=1, **QUIET)
    error = float(np.sqrt(((found.x.mean("member") - truth.x).isel(time=slice(20, None)) ** 2).mean()))
    assert error < 0.5 * float(truth.x.std())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": "vp"}, "found flow='vp' for EnFF, expected 'f2p' or 'ot'"),
        ({"steps": 0}, "found steps=0 for EnFF, expected a whole number of at least 1"),
        ({"sigma": 0.0}, "found sigma=0.0 for EnFF, expected a number above 0 and of at most 1"),
        ({"guidance": -1.0}, "found guidance=-1.0 for EnFF, expected a number of at least 0"),
        ({"scale": 0.0}, "found scale=0.0 for EnFF, expected a number above 0"),
    ],
)
def test_options_that_are_impossible(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        EnFF(**options)

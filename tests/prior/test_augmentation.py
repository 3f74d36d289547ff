"""Priors of states and of what is observed of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian import GaussianChain, affine_moments

import sdaxr
from sdaxr import operators as op
from sdaxr.posterior.covariance.variance import Matrix
from sdaxr.posterior.guidance.sda import SDA
from sdaxr.posterior.likelihood import GaussianObservation
from sdaxr.posterior.samplers.dpm import DPMStep
from sdaxr.posterior.samplers.langevin import LangevinCorrector
from sdaxr.posterior.samplers.levels import log_snr_levels
from sdaxr.posterior.samplers.predictor_corrector import PredictorCorrector
from sdaxr.prior.augmentation import Augmentation
from sdaxr.schema import OptionError

BENT = op.arctan(0.5)
QUICK = {"sampler": {"steps": 8, "corrections": 0}, "progress": False}


def trajectories(count: int = 6, steps: int = 24, sites: int = 8, lazily: bool = False) -> xr.Dataset:
    """Smooth waves around a circle, and a static field that is no state."""
    draw = np.random.default_rng(0)
    at = 2 * np.pi * np.arange(sites) / sites
    phase, size = draw.uniform(0, 6, (count, 1, 1)), draw.uniform(1, 3, (count, 1, 1))
    values = size * np.sin(at - 0.3 * np.arange(steps)[:, None] + phase)
    data = xr.Dataset(
        {"h": (("trajectory", "time", "x"), values.astype(np.float32), {"units": "1"}), "depth": ("x", np.cos(at))},
        {
            "time": ("time", 0.1 * np.arange(steps), {"units": "1"}),
            "x": ("x", at, {"units": "1", "periodic": 1, "period": 2 * np.pi}),
            "split": ("trajectory", ["train"] * (count - 2) + ["valid", "test"]),
        },
    )
    return data.chunk({"trajectory": 2, "time": 10}) if lazily else data


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prior") / "bent.safetensors"
    sdaxr.train(
        trajectories(), path, window=4, augment={"bent": BENT}, network={"widths": (8, 8)}, steps=60,
        optimisation={"batch": 8, "validate_every": 60}, progress=False, device="cpu",
    )  # fmt: skip
    return path


# What is learned


@pytest.mark.parametrize("lazily", [False, True])
def test_observed_quantities_stand_beside_the_states(lazily: bool):
    data = trajectories(lazily=lazily)
    augmentation = Augmentation.of({"bent": BENT, "wave": op.sin(2.0) >> op.scale(3.0)}, data[["h"]])
    found = augmentation.apply(data, ["h"])
    assert augmentation.variables == ("bent_h", "wave_h") and bool(found.chunks) == lazily
    np.testing.assert_allclose(found.bent_h, np.arctan(0.5 * data.h), rtol=1e-5)
    np.testing.assert_allclose(found.wave_h, 3 * np.sin(2 * data.h), rtol=1e-4, atol=1e-5)
    assert found.bent_h.dims == data.h.dims and found.bent_h.attrs["units"] == "1"
    assert {"depth", "h"} <= set(found.data_vars) and found.split.equals(data.split)
    assert augmentation.without(found.data_vars).keys() == data.data_vars.keys()


def test_a_prior_holds_its_operators_in_its_file(prior: Path):
    opened = sdaxr.open_prior(prior)
    assert opened.layout.variables == ("h", "bent_h") and opened.layout.channels == 2
    assert opened.augmentation == Augmentation({"bent": BENT}, {"bent": {"h": "bent_h"}})
    states, _ = opened.reference
    physical = opened.layout.to_physical(states, opened.layout.times(0.0, states.shape[1]))
    np.testing.assert_allclose(physical["bent_h"], np.arctan(0.5 * physical["h"]), atol=5e-3)
    assert sdaxr.open_prior("lorenz63").augmentation.operators == {}


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"bent": BENT >> op.subsample(2)}, "before subsample, coarsen or region"),
        ({"change": op.time_difference()}, "expected one value for each state"),
        ({"own": op.function(lambda fields: fields)}, "cannot be written"),
    ],
)
def test_what_cannot_be_learned_is_refused(augment: dict, message: str):
    with pytest.raises(OptionError, match=message):
        Augmentation.of(augment, trajectories()[["h"]])


def test_a_name_that_is_taken_is_refused():
    states = trajectories()[["h"]]
    with pytest.raises(OptionError, match="there is a variable 'bent_h' already"):
        Augmentation.of({"bent": BENT}, states.assign(bent_h=states.h))


# What is drawn


def test_observations_are_matched_to_their_channels(prior: Path, tmp_path: Path):
    truth = trajectories().isel(trajectory=-1, time=slice(8))[["h"]]
    networks = {
        "bent": sdaxr.observe(truth, BENT >> op.subsample(2), error=0.05, seed=1),
        "direct": sdaxr.observe(truth, op.subsample(4), every=3, error=0.1, seed=2),
    }
    posterior = sdaxr.assimilate(networks, prior, method="soad", members=3, store=tmp_path / "p.zarr", **QUICK)
    assert list(posterior.data_vars) == ["h"] and posterior.h.dims == ("member", "time", "x")
    assert posterior.attrs["observations_used"] == [32, 6]
    assert np.isfinite(posterior.h).all()
    background = truth.isel(time=0, drop=True).assign(h_error=0.1)
    with_background = sdaxr.assimilate(networks, prior, method="soad", background=background, members=2, **QUICK)
    assert list(with_background.data_vars) == ["h"]
    plain = sdaxr.assimilate(networks, prior, method={"name": "soad", "corrector": False}, members=3, **QUICK)
    assert [json.loads(p.attrs["method_options"])["corrector"] for p in (posterior, plain)] == [True, False]
    assert float(abs(plain.h - posterior.h).max()) > 0.01
    assert json.loads(posterior.attrs["method_options"])["variance"] == {"name": "measured"}
    bounded = sdaxr.assimilate(networks, prior, method={"name": "soad", "variance": "bounded"}, members=3, **QUICK)
    assert float(abs(bounded.h - posterior.h).max()) > 0.01


def test_a_network_that_the_prior_was_not_trained_for_is_refused(prior: Path):
    truth = trajectories().isel(trajectory=-1, time=slice(8))[["h"]]
    observations = sdaxr.observe(truth, op.sin(2.0), error=0.05, seed=1)
    with pytest.raises(OptionError, match=r"train\(augment=\{'name': operator\}\)"):
        sdaxr.assimilate(observations, prior, method="soad", members=1, **QUICK)


def test_other_methods_and_forecasts_take_such_a_prior(prior: Path):
    truth = trajectories().isel(trajectory=-1, time=slice(8))[["h"]]
    observations = sdaxr.observe(truth, BENT >> op.subsample(2), error=0.1, seed=1)
    posterior = sdaxr.assimilate(observations, prior, members=2, **QUICK)
    assert list(posterior.data_vars) == ["h"]
    later = sdaxr.forecast(posterior, prior, steps=3, progress=False)
    assert list(later.data_vars) == ["h"] and later.sizes["lead_time"] == 3
    with pytest.raises(OptionError, match="train the prior without augment="):
        sdaxr.denoise(truth, prior, error=0.1, progress=False)


# The oracle


def test_an_augmented_gaussian_has_the_posterior_of_the_kalman_smoother():
    """z = [x, a - b / 2] of a chain, the last of which is observed, as a part of z; with a background for a and b."""
    length, sd, first = 5, 0.3, 0.5
    chain = GaussianChain(length)
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -0.5]])
    widen = np.kron(np.eye(length), rows)
    values, vectors = np.linalg.eigh(widen @ chain.covariance @ widen.T)
    values = values.clip(0)

    def spread(r: float) -> np.ndarray:
        return (vectors * (values / (values + r**2))) @ vectors.T

    def denoise(z: torch.Tensor, r: float) -> torch.Tensor:
        return (z.flatten(1) @ torch.as_tensor(spread(r))).reshape(z.shape)

    y, b = np.array([0.4, -0.8, 1.1, 0.2, -0.3]), np.array([0.7, -0.2])
    operator = np.zeros((length, 3, 2))
    operator[:, 0], operator[0, 1:] = rows[2], np.eye(2)
    seen = np.full((length, 3), np.nan)
    seen[:, 0], seen[0, 1:] = y, b
    errors = np.broadcast_to([sd, first, first], (length, 3))
    mean, cov = chain.smoother(operator, seen, errors)
    pick = torch.as_tensor(np.eye(3 * length)[[*range(2, 3 * length, 3), 0, 1]])

    def network(part: slice, numbers: np.ndarray, error: float) -> GaussianObservation:
        ones = torch.ones(len(numbers), dtype=torch.float64)
        return GaussianObservation(lambda z: z.flatten(1) @ pick[part].T, torch.as_tensor(numbers), error * ones, ones)

    networks = [network(slice(0, length), y, sd), network(slice(length, None), b, first)]
    guided = SDA(variance=Matrix(lambda r: pick @ torch.as_tensor(spread(r)) @ pick.T)).guide(denoise, networks)
    levels = log_snr_levels(64, 80.0, 0.01)
    found, covariance = affine_moments(
        PredictorCorrector(levels, DPMStep(eta=1.0, below=math.inf), LangevinCorrector()), guided, (length, 3)
    )
    narrow = np.kron(np.eye(length), np.eye(2, 3))
    blocks = np.einsum("lilj->lij", (narrow @ covariance @ narrow.T).reshape(length, 2, length, 2))
    np.testing.assert_allclose(narrow @ found, mean.ravel(), atol=0.03)
    np.testing.assert_allclose(blocks, cov, atol=0.02)
    # What is observed stays what H makes of the states.
    np.testing.assert_allclose((found - widen @ narrow @ found), 0, atol=1e-3)

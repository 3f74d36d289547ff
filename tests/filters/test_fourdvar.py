"""4D-Var against the closed form, and against finite differences where nothing is linear."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chains import truth_of
from filtered import LORENZ, QUIET, model_of

from sdaxr import operators as op
from sdaxr.filters import bpf, ffbs, fourdvar
from sdaxr.filters.fourdvar import FourDVar
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.observations.provenance import fingerprint
from sdaxr.schema import ArchiveError
from sdaxr.verification.densities import log_likelihood, log_prior


def test_fourdvar_on_a_linear_chain_is_the_smoothed_mean(case) -> None:
    _, _, model, (mean, _, _) = case
    guess = np.random.default_rng(0).normal(0, 3, (5, *mean.shape))
    found = fourdvar.minimise(model, guess)
    assert found.converged.all() and (found.after < found.before).all()
    np.testing.assert_allclose(found.states, np.broadcast_to(mean, guess.shape), atol=1e-3)


def test_block_tridiagonal_systems_are_solved() -> None:
    random = np.random.default_rng(0)
    below, right = random.normal(size=(2, 4, 3, 3)), random.normal(size=(2, 5, 3))
    root = random.normal(size=(2, 5, 3, 3))
    diagonal = root @ root.swapaxes(2, 3) + 10 * np.eye(3)
    found = fourdvar.solve_block_tridiagonal(diagonal, below, right)
    for m in range(2):
        dense = np.zeros((5, 3, 5, 3))
        for t in range(5):
            dense[t, :, t] = diagonal[m, t]
            if t < 4:
                dense[t + 1, :, t], dense[t, :, t + 1] = below[m, t], below[m, t].T
        np.testing.assert_allclose(dense.reshape(15, 15) @ found[m].ravel(), right[m].ravel(), atol=1e-10)


@pytest.mark.parametrize("operator", [op.select("c"), op.select("a", "c") >> op.arctan(0.05)], ids=repr)
def test_fourdvar_ends_where_the_gradient_vanishes(operator: op.Operator) -> None:
    error = 0.8 if "arctan" not in repr(operator) else 0.03
    model = model_of(LORENZ, {"c": observe(truth_of(LORENZ, 33, 1), operator, every=4, error=error, seed=1)}, 33)
    filtered = bpf.particle_filter(model, 1024, seed=0)
    guess = ffbs.backward_simulation(LORENZ, filtered, 4, seed=0)
    found = fourdvar.minimise(model, guess)
    np.testing.assert_allclose(found.before, fourdvar.cost(model, guess))
    assert found.converged.all() and (found.after < found.before - 10).all()

    def slope(x: np.ndarray, at: tuple[int, int]) -> np.ndarray:
        width = np.zeros(x.shape)
        width[:, *at] = 1e-4
        return (fourdvar.cost(model, x + width) - fourdvar.cost(model, x - width)) / 2e-4

    for at in [(0, 0), (4, 2), (17, 1), (32, 2)]:
        assert np.abs(slope(found.states, at)).max() < 0.01 < np.abs(slope(guess, at)).max()
        np.testing.assert_allclose(
            fourdvar.expand_cost(model, guess)[0][:, *at], slope(guess, at), rtol=1e-4, atol=1e-4
        )


def test_fourdvar_starts_from_a_posterior(lorenz_observations: xr.Dataset) -> None:
    posterior = smooth(lorenz_observations, LORENZ, method={"name": "ffbs", "particles": 1024}, members=6, **QUIET)
    refined = smooth(lorenz_observations, LORENZ, method=FourDVar(first_guess=posterior), members=5, **QUIET)
    assert refined.attrs["cost_after"] < refined.attrs["cost_before"] and refined.attrs["members_not_converged"] == 0
    assert fingerprint([posterior]) in refined.attrs["method_options"]
    gain = (log_prior(refined, LORENZ) + log_likelihood(refined, lorenz_observations)) - (
        log_prior(posterior, LORENZ) + log_likelihood(posterior, lorenz_observations)
    )
    assert float(gain.min()) > 10  # member by member
    costs = refined.attrs["cost_before"] - refined.attrs["cost_after"]
    assert costs == pytest.approx(float(gain.mean()), rel=1e-3)


def test_a_first_guess_is_known_by_its_values_and_not_by_its_path(
    lorenz_observations: xr.Dataset, tmp_path: Path
) -> None:
    guess = smooth(lorenz_observations, LORENZ, method={"particles": 256}, members=2, **QUIET)
    path, how = tmp_path / "guess.nc", QUIET | {"members": 2, "store": tmp_path / "p.zarr"}
    guess.to_netcdf(path)
    smooth(lorenz_observations, LORENZ, method=FourDVar(first_guess=path), **how)
    (guess + 1).to_netcdf(path)
    with pytest.raises(ArchiveError, match="method_options"):
        smooth(lorenz_observations, LORENZ, method=FourDVar(first_guess=path), **how)


def test_fourdvar_tells_when_it_has_not_converged(
    lorenz_observations: xr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(LORENZ, {"c": lorenz_observations}, 33)
    guess = LORENZ.initial(2 * 33, 0).reshape(2, 33, 3)
    with caplog.at_level(logging.WARNING, "sdaxr"):
        found = fourdvar.minimise(model, guess, iterations=2)
    assert not found.converged.any() and (found.after <= found.before).all()
    assert "2 of 2 trajectories have not reached a mode after 2 iterations" in caplog.text

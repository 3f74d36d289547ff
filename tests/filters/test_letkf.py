"""The local ensemble transform Kalman filter against dense computations point by point."""

from __future__ import annotations

import numpy as np
import pytest
from chains import TRIPLE, truth_of
from filtered import QUIET
from linear_ensembles import dense_taper, linear_case

from sdaxr import operators as op
from sdaxr.filters import letkf
from sdaxr.filters.ensemble import Forecast
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.letkf import LETKF
from sdaxr.filters.smoothing import smooth
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic


def dense(states: np.ndarray, seen: np.ndarray, y: np.ndarray, error: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """Mean and covariance of each point by the Kalman filter with the errors R / taper; (points, 2)."""
    found = []
    for point, weight in enumerate(taper):
        near = weight > 0
        away, h = states[:, point] - states[:, point].mean(), (seen - seen.mean(0))[:, near]
        count = len(states) - 1
        cross, spread = away @ h / count, h.T @ h / count
        gain = cross @ np.linalg.inv(spread + np.diag(error[near] ** 2 / weight[near]))
        found.append([states[:, point].mean() + gain @ (y - seen.mean(0))[near], away @ away / count - gain @ cross])
    return np.array(found)


@pytest.mark.parametrize("numbers", [8_000_000, 60])
@pytest.mark.parametrize("rotation", [False, True])
def test_each_point_is_the_kalman_filter_with_tapered_errors(rotation: bool, numbers: int, monkeypatch) -> None:
    monkeypatch.setattr(letkf, "_NUMBERS", numbers)  # one batch of all points, and many batches
    model, _ = linear_case(op.subsample(2), members=5, exact=False, error=0.4, missing=0.2)
    method = LETKF(localisation=1.3, rotation=rotation)
    for observation in (o for o in model.observations if o is not None):
        forecast = Forecast(model.first, observation, method.points(model), np.random.default_rng(1))
        found = method.analyse(forecast)(model.first)
        taper = dense_taper(np.arange(8.0), observation.places["site"], 1.3, 8)
        exact = dense(model.first, observation.predict(model.first), observation.values, observation.errors.std, taper)
        np.testing.assert_allclose(found.mean(0), exact[:, 0], atol=1e-6)
        np.testing.assert_allclose(found.var(0, ddof=1), exact[:, 1], atol=1e-6)
        far = (taper == 0).all(1)
        assert rotation or not far.any() or np.array_equal(found[:, far], model.first[:, far])


def test_a_wide_taper_is_the_global_filter() -> None:
    model, _ = linear_case(op.coarsen(2), error=0.4)
    for options in ({}, {"rotation": True}, {"finite_size": 1.0}, {"inflation": 1.1}):
        local, whole = (m.draw(model, 20, 3).paths for m in (LETKF(localisation=1e7, **options), ETKF(**options)))
        np.testing.assert_allclose(local, whole, atol=1e-4)


@pytest.mark.parametrize(
    "system",
    [Kolmogorov(resolution=8, coarsen=1, spin_up=1), QuasiGeostrophic(resolution=8, coarsen=1, spin_up=0.01)],
    ids=lambda s: s.name,
)
def test_all_values_at_a_point_share_its_weights(system) -> None:
    truth = truth_of(system, 1, 1)
    scale = float(next(iter(truth.data_vars.values())).std())
    where = truth.isel(time=0)
    seen = observe(truth, op.points({"y": where.y.values[2:3], "x": where.x.values[5:6]}), error=0.1 * scale, seed=1)
    half = float(where.x[1] - where.x[0]) * 0.9
    found = smooth(seen, system, method=LETKF(localisation=half), members=3, times=truth.time.values, seed=2, **QUIET)
    free = system.from_vectors(system.initial(3, int(np.random.SeedSequence((2,)).generate_state(1, np.uint64)[0])))
    for name, variable in found.isel(time=0).data_vars.items():
        moved = np.abs(variable.values - free[name]).max(0) > 1e-6 * scale
        moved = moved.reshape(-1, 8, 8)
        near = np.zeros((8, 8), bool)
        near[1:4, 5] = near[2, 4:7] = True  # neighbours are within twice 0.9 cells, also along the diagonal
        near[1:4, 4:7] = True
        np.testing.assert_array_equal(moved, np.broadcast_to(near, moved.shape))


def test_what_it_cannot_use(observations) -> None:
    with pytest.raises(OptionError, match="method='letkf' needs localisation=, half of the distance"):
        smooth(observations, TRIPLE, method="letkf", members=3, **QUIET)
    with pytest.raises(OptionError, match="localisation= needs places, a state of linear has none"):
        smooth(observations, TRIPLE, method=LETKF(localisation=1.0), members=3, **QUIET)
    with pytest.raises(OptionError, match="localisation=-1 for LETKF, expected a number above 0"):
        LETKF(localisation=-1)
    with pytest.raises(OptionError, match="finite_size=0 for LETKF, expected a number above 0"):
        LETKF(localisation=1, finite_size=0)
    model, _ = linear_case(op.coarsen(2), error=0.4, correlation={"site": 3.0})
    with pytest.raises(OptionError, match="'letkf' is for independent errors, found correlated errors or a bias"):
        LETKF(localisation=2.0).check(model, 4)

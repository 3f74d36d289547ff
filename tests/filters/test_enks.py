"""The ensemble Kalman smoother against the Rauch-Tung-Striebel smoother."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from chains import Ring
from linear_ensembles import assert_near_moments, linear_case, moments

from sdaxr import operators as op
from sdaxr.filters.enkf import EnKF
from sdaxr.filters.enks import EnKS
from sdaxr.filters.ensemble import EnsembleFilter
from sdaxr.filters.ensrf import EnSRF
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.kalman import rts_smoother
from sdaxr.filters.letkf import LETKF
from sdaxr.schema import OptionError

HOW = {"error": 0.5, "missing": 0.3}


@pytest.mark.parametrize("inner", ["etkf", {"name": "etkf", "rotation": True}, EnSRF()], ids=repr)
def test_square_root_filters_give_the_smoother_of_the_ensemble(inner) -> None:
    model, filtered = linear_case(op.coarsen(2), **HOW)
    found = moments(EnKS(filter=inner).draw(model, 20, seed=1).paths)
    means, covariances = rts_smoother(filtered)
    np.testing.assert_allclose(found[0], means, atol=5e-5)
    np.testing.assert_allclose(found[1], covariances, atol=5e-5)
    assert np.abs(found[0] - filtered.means).max() > 0.05


@pytest.mark.parametrize(("inner", "members"), [(ETKF(), 400), (EnKF(), 10_000)], ids=["etkf", "enkf"])
def test_noisy_systems_are_smoothed_by_a_large_ensemble(inner: EnsembleFilter, members: int) -> None:
    model, filtered = linear_case(op.coarsen(2), members=members, system=Ring(), **HOW)
    assert_near_moments(EnKS(filter=inner).draw(model, members, seed=1).paths, *rts_smoother(filtered))


def test_a_lag_keeps_old_states_as_they_were() -> None:
    model, _ = linear_case(op.coarsen(2), error=0.5)
    draw = partial(lambda method: method.draw(model, 20, seed=1).paths)
    whole, short, none = (draw(EnKS(lag=lag)) for lag in (None, 2, 0))
    np.testing.assert_allclose(short[:, -3:], whole[:, -3:])
    assert np.abs(short[:, 0] - whole[:, 0]).max() > 1e-3
    np.testing.assert_array_equal(none, draw(ETKF()))
    np.testing.assert_allclose(whole[:, -1], none[:, -1])


def test_local_filters_smooth_what_is_near() -> None:
    model, _ = linear_case(op.subsample(4), members=6, exact=False, error=0.3)
    for kind in (LETKF, EnKF, EnSRF):
        local = kind(localisation=0.8)
        free = local.draw(model, 6, seed=1).paths
        found = EnKS(filter=local, lag=1).draw(model, 6, seed=1).paths
        moved = np.abs(found[:, 0] - free[:, 0]).max(0) > 1e-6
        # Sites 0 and 4 are observed; twice 0.8 reaches one site further.
        np.testing.assert_array_equal(np.flatnonzero(~moved), [2, 6])


def test_members_are_of_the_smoothing_distribution_and_the_filter_is_checked() -> None:
    assert EnKS().distribution == "smoothing"
    model, _ = linear_case(op.coarsen(2), error=0.4, correlation={"site": 3.0})
    with pytest.raises(OptionError, match="method='letkf' is for independent errors"):
        EnKS(filter=LETKF(localisation=2.0)).check(model, 4)
    for wrong in ("ienks", "kalman", 3):
        with pytest.raises(OptionError, match="found filter=.* for EnKS, expected a filter whose analysis acts on"):
            EnKS(filter=wrong)
    with pytest.raises(OptionError, match="lag=-1 for EnKS, expected a whole number of at least 0"):
        EnKS(lag=-1)

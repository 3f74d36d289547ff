"""Forecasts of members on the workers of a Dask client."""

from __future__ import annotations

import numpy as np
import pytest
from chains import Ring, truth_of
from filtered import model_of

from sdaxr import operators as op
from sdaxr.filters import advancing
from sdaxr.filters.advancing import advanced
from sdaxr.observations.observe import observe
from sdaxr.schema import DivergenceError
from sdaxr.systems.base import System
from sdaxr.systems.lorenz96 import Lorenz96


def model(system: System, members: int = 5):
    seen = observe(truth_of(system, 4, 1), op.identity(), error=1.0)
    return model_of(system, {"seen": seen}, 4, first=system.initial(members, 0))


def test_members_of_a_large_system_are_computed_on_workers(monkeypatch) -> None:
    distributed = pytest.importorskip("distributed")
    chosen, noisy = model(Lorenz96()), model(Ring())
    here = advanced(chosen, chosen.first, 3, np.random.default_rng(0), 0)
    drawn = advanced(noisy, noisy.first, 3, np.random.default_rng(1), 0)
    monkeypatch.setattr(advancing, "_WORTH", 1)
    sent, wild = [], chosen.first * np.array([1, 1, 1, 1e30, 1])[:, None]
    monkeypatch.setattr(advancing, "send", lambda client, parts: sent.append(len(parts)) or parts)
    options = {"n_workers": 2, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        there = advanced(chosen, chosen.first, 3, np.random.default_rng(0), 0)
        # Random numbers are those of all members together, with or without workers.
        same = advanced(noisy, noisy.first, 3, np.random.default_rng(1), 0)
        with pytest.raises(DivergenceError, match="member 3 is not finite"):
            advanced(chosen, wild, 3, np.random.default_rng(0), 0)
    assert sent == [2, 2]
    np.testing.assert_allclose(there, here, rtol=1e-12)
    np.testing.assert_array_equal(same, drawn)


def test_without_a_client_or_for_little_work_members_stay_here(monkeypatch) -> None:
    monkeypatch.setattr(advancing, "send", lambda *args: pytest.fail("states were sent"))
    chosen = model(Lorenz96())
    assert advanced(chosen, chosen.first, 2, np.random.default_rng(0), 0).shape == (2, 5, 40)

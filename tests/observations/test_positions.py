"""Positions, times and labels as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from measurements import measured

from sdaxr.observations.positions import chord_of, keep_values, label_numbers, positions_in_km
from sdaxr.states.coordinates import EARTH_RADIUS


def test_chords_are_those_of_great_circles():
    positions, on_sphere = positions_in_km(measured([0.0, 0.0], [0.0, 90.0], [1.0, 2.0]))
    quarter = EARTH_RADIUS / 1e3 * np.pi / 2
    assert on_sphere and np.linalg.norm(positions[0] - positions[1]) == pytest.approx(chord_of(quarter))
    assert chord_of(1.0) == pytest.approx(1.0, rel=1e-8) and chord_of(1e6) == pytest.approx(2 * EARTH_RADIUS / 1e3)


def test_labels_that_are_missing_are_one_label():
    obs = measured(50.0, 0.0, [1.0, 2.0, 3.0], depth=[np.nan, np.nan, 1.0])
    assert label_numbers(obs, ["lat", "depth"]).tolist() == [0, 0, 1]
    assert label_numbers(obs, []).tolist() == [0, 0, 0]


def test_values_and_their_errors_are_left_out_together():
    obs = measured(50.0, 0.0, [1.0, 2.0]).assign(u=("obs", [1.0, 2.0]), u_error=1.0)
    made = keep_values(obs, {"t2m": np.array([True, False])}, "left_out")
    assert made.attrs["left_out"] == 1 and made.sizes == {"obs": 2}
    np.testing.assert_array_equal(made.t2m_error, [1.0, np.nan])

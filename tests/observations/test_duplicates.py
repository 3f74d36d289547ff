"""Second reports of one measurement."""

from __future__ import annotations

import numpy as np
import pytest
from measurements import measured

from sdaxr.observations.duplicates import drop_duplicates
from sdaxr.schema import DataError, OptionError


@pytest.mark.parametrize(("keep", "expected"), [("first", [1, 3, 4]), ("last", [2, 3, 4]), ("best", [2, 3, 4])])
def test_one_value_stays_of_each_place_and_time(keep, expected):
    obs = measured([50.0, 50.0, 51.0, 50.0], 0.0, [1.0, 2.0, 3.0, 4.0], hours=[0, 0, 0, 1], errors=[2.0, 1.0, 1.0, 1.0])
    made = drop_duplicates(obs, keep=keep)
    np.testing.assert_array_equal(made.t2m, expected)
    assert made.attrs["observations_duplicate"] == 1
    assert drop_duplicates(made).attrs["observations_duplicate"] == 1  # what is counted stays counted


def test_sources_and_variables_are_told_apart():
    obs = measured(50.0, 0.0, [1.0, 2.0, np.nan], source=["a", "b", "a"])
    obs = obs.assign(u=("obs", [np.nan, np.nan, 5.0], {"units": "m"}), u_error=1.0)
    assert drop_duplicates(obs).sizes == {"obs": 3}


def test_a_bad_value_is_no_duplicate():
    flags = ("obs", np.array([4, 1, 1], "i1"), {"conventions": "Argo"})
    obs = measured(50.0, 0.0, [99.0, 2.0, 3.0]).assign(t2m_qc=flags)
    made = drop_duplicates(obs)
    assert made.t2m.item() == 2.0 and made.t2m_qc.item() == 1
    assert made.attrs["observations_flagged"] == made.attrs["observations_duplicate"] == 1
    assert drop_duplicates(obs, good=(1, 4)).t2m.item() == 99.0


def test_impossible_options():
    with pytest.raises(OptionError, match="keep is 'mean'; expected one of best, first, last"):
        drop_duplicates(measured(50.0, 0.0, [1.0]), keep="mean")
    with pytest.raises(DataError, match="drop_duplicates: found the dimensions"):
        drop_duplicates(measured(50.0, 0.0, [1.0]).rename(obs="station"))

"""Measurements that several networks report."""

from __future__ import annotations

import numpy as np
import pytest
from instruments import make_truth, soundings

from sdaxr import operators as op
from sdaxr.observations.observe import observe, operator_for
from sdaxr.observations.observed import ObservedPoints
from sdaxr.observations.repeats import without_repeats
from sdaxr.observations.screening import DUPLICATE, USED, Screening
from sdaxr.operators import Template
from sdaxr.schema import DataError

TRUTH = make_truth("datetime")
HERE = soundings(TRUTH, 6)
DROP = Screening(duplicates="drop")


def seen(data):
    """The observations of a network, without those of other networks."""
    return ObservedPoints.of(data, operator_for(data).bind(Template.from_dataset(TRUTH)).template)


def other(rows, **changes):
    """Another network, which has some measurements of the first and one of its own."""
    data = HERE.isel(obs=rows).copy(deep=True)
    return data.assign_coords({name: change(data[name]) for name, change in changes.items()})


@pytest.mark.parametrize(
    ("changes", "repeated"),
    [
        ({}, True),
        ({"x": lambda x: x.astype("float32")}, True),  # files in single precision
        ({"x": lambda x: (x + 1e-3) % 6}, False),
        ({"time": lambda t: t + np.timedelta64(1, "m")}, False),
    ],
)
def test_a_measurement_is_known_by_its_time_and_place(changes, repeated):
    earlier = {"first": seen(HERE)}
    found = without_repeats(seen(other([4, 1], **changes)), earlier, DROP)
    assert found.count == (0 if repeated else 2)
    assert found.status["u"].tolist() == [DUPLICATE if repeated else USED] * 2


def test_the_first_is_used_and_the_others_are_counted():
    both = HERE.isel(obs=[0, 2]).assign_coords(y=("obs", [HERE.y.values[0], 3.0]))
    found = without_repeats(seen(both), {"far": seen(HERE.isel(obs=[5])), "first": seen(HERE)}, DROP)
    assert found.status["u"].tolist() == [DUPLICATE, USED] and found.source["u"].tolist() == [1]


def test_what_is_not_used_is_not_repeated():
    earlier = seen(HERE).reject(np.arange(6) == 4, DUPLICATE)
    assert without_repeats(seen(other([4])), {"first": earlier}, DROP).count == 1


def test_a_repeated_measurement_is_an_error_unless_it_is_dropped_or_kept():
    twin, earlier = seen(other([4, 1, 3])), {"synop": seen(HERE)}
    with pytest.raises(
        DataError, match=r"observation 0, u = .* at time=.*, y=.*, \(and 2 others\) is there at .* network 'synop'"
    ):
        without_repeats(twin, earlier, Screening())
    assert without_repeats(twin, earlier, Screening(duplicates="keep")) is twin
    assert without_repeats(twin, {}, Screening()) is twin


def test_two_instruments_may_see_one_grid_or_another_variable():
    fields = observe(TRUTH, op.identity(), error=0.1)
    assert without_repeats(seen(fields), {"fields": seen(fields)}, Screening()).count == fields.u.size * 2
    winds = HERE.rename(u="v", u_error="v_error")
    assert without_repeats(seen(winds), {"first": seen(HERE)}, Screening()).count == 6
    assert without_repeats(seen(HERE), {"fields": seen(fields)}, Screening()).count == 6

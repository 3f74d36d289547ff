"""Steps: the functions with files in the place of Datasets."""

from __future__ import annotations

import inspect
import json

import pytest
import xarray as xr

import sdaxr
from sdaxr.archives.stores import save
from sdaxr.commands import steps
from sdaxr.schema import DataError, OperatorError


@pytest.mark.parametrize("name", steps.STEPS)
def test_a_step_has_the_parameters_of_its_function(name: str) -> None:
    function = inspect.signature(getattr(sdaxr, name)).parameters
    found = steps.parameters(name)
    behind = {n for n, p in function.items() if p.kind is p.KEYWORD_ONLY}
    assert behind <= set(found)
    own = set(inspect.signature(steps.STEPS[name]).parameters)
    assert {n: found[n].default for n in behind - own} == {n: function[n].default for n in behind - own}


def test_a_cycle_takes_what_it_hands_on() -> None:
    found = steps.parameters("cycle")
    assert {"method", "sampler", "precision", "outside", "carry", "inflation"} <= set(found) and "system" not in found


def test_operators_are_json_or_what_it_stands_for() -> None:
    expected = sdaxr.operators.coarsen(8)
    assert steps.read_operator({"op": "coarsen", "factor": 8}) == expected
    assert steps.read_operator(json.dumps({"op": "coarsen", "factor": 8})) == expected
    with pytest.raises(OperatorError, match="the operator is not JSON"):
        steps.read_operator("coarsen(8)")


def test_one_trajectory_of_many(tmp_path, trajectories: xr.Dataset) -> None:
    save(trajectories, tmp_path / "t.nc")
    save(trajectories.isel(trajectory=0, drop=True), tmp_path / "one.nc")
    how = {"operator": {"op": "identity"}, "error": 0.1}
    last = steps.observe(str(tmp_path / "t.nc"), store=str(tmp_path / "o.nc"), trajectory=-1, **how)
    expected = sdaxr.observe(trajectories.isel(trajectory=-1), sdaxr.operators.identity(), error=0.1)
    xr.testing.assert_allclose(last.drop_attrs(), expected.drop_attrs())
    with pytest.raises(DataError, match=r"trajectory=10, expected an index of the 10"):
        steps.observe(str(tmp_path / "t.nc"), store=str(tmp_path / "p.nc"), trajectory=10, **how)
    with pytest.raises(DataError, match="expected 'trajectory'; leave the parameter out"):
        steps.observe(str(tmp_path / "one.nc"), store=str(tmp_path / "p.nc"), trajectory=0, **how)

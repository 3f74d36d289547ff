"""Files and texts as the inputs of commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sdaxr
from sdaxr.commands import inputs
from sdaxr.schema import OperatorError, OptionError


def test_operators_are_json_or_what_it_stands_for() -> None:
    expected = sdaxr.operators.coarsen(8)
    assert inputs.read_operator({"op": "coarsen", "factor": 8}) == expected
    assert inputs.read_operator(json.dumps({"op": "coarsen", "factor": 8})) == expected
    with pytest.raises(OperatorError, match="the operator is not JSON"):
        inputs.read_operator("coarsen(8)")


def test_an_option_of_the_reading_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="reading has the option 'error'.*Did you mean 'errors'"):
        inputs.check_reading({"error": 1.0}, str(tmp_path / "stations.csv"))

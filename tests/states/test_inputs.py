"""What users hand in: arrays with names, tables, trees, several labels along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sdaxr.schema import DataError
from sdaxr.states.inputs import as_dataset

DATA = xr.Dataset({"a": (("x", "y"), np.eye(2))}, {"x": [0, 1], "y": [0, 1]})


def test_a_dataset_and_an_array_with_a_name_are_taken() -> None:
    xr.testing.assert_identical(as_dataset(DATA, "the truth"), DATA)
    xr.testing.assert_identical(as_dataset(DATA.a, "the truth"), DATA)


REFUSED: dict[str, tuple[Any, str]] = {
    "array without a name": (DATA.a.rename(None), r"a DataArray without a name, expected one; set it, da.rename"),
    "coordinate": (DATA.x, "the coordinate 'x', expected a variable"),
    "DataFrame": (DATA.to_dataframe(), r"a pandas DataFrame, .*sdaxr.read_observations\(table\)"),
    "Series": (pd.Series([1.0]), "a pandas Series"),
    "path": ("a.nc", r"a str, .*open the file, sdaxr.open_archive\('a.nc'\)"),
    "tree": (xr.DataTree(DATA), r"a xarray DataTree, .*tree\['name'\]"),
    "mapping": ({"a": DATA}, "a dict, .*one entry of the mapping"),
    "array": (np.eye(2), r"a numpy ndarray, .*give arrays their labels"),
    "nothing": (None, "a NoneType"),
    "several labels": (DATA.stack(cell=("x", "y")), r"'cell' has several labels, \['x', 'y'\].* ds.unstack\('cell'\)"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_the_rest_is_refused_with_a_remedy(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^the truth: (found )?{message}"):
        as_dataset(data, "the truth")

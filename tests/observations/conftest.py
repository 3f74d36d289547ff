"""The truth that is observed."""

from __future__ import annotations

import pytest
import xarray as xr
from instruments import make_truth


@pytest.fixture
def truth() -> xr.Dataset:
    """A velocity (time 6, y 8, x 8) on a doubly periodic plane."""
    return make_truth()

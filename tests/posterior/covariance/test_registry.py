"""Uncertainties by name."""

from __future__ import annotations

import pytest

from sdaxr.posterior.covariance.base import Uncertainty
from sdaxr.posterior.covariance.registry import UNCERTAINTIES


@pytest.mark.parametrize("name", [name for name in UNCERTAINTIES.names() if name != "matrix"])
def test_every_name_is_an_uncertainty_that_is_recorded(name: str) -> None:
    found = UNCERTAINTIES.build(name)
    assert isinstance(found, Uncertainty) and found.name == name
    assert UNCERTAINTIES.build(UNCERTAINTIES.describe(found)) == found

"""Families of errors."""

from __future__ import annotations

import pytest
from instruments import make_truth

from sdaxr import operators as op
from sdaxr.observations.observe import observe
from sdaxr.schema import OptionError


@pytest.mark.parametrize(
    ("noise", "skewness", "kurtosis"),
    [("gaussian", 0.0, 3.0), ("laplace", 0.0, 6.0), ("uniform", 0.0, 1.8), ("lognormal", 6.185, None)],
)
def test_families_of_errors_have_one_standard_deviation(noise: str, skewness: float, kurtosis: float | None):
    """Third and fourth moments are those of the textbook; a lognormal's fourth is beyond any sample."""
    truth = make_truth(size=128)
    found = observe(truth, op.select("u"), error=0.3, noise=noise, seed=1)
    errors = ((found.u - truth.u) / 0.3).values
    assert errors.mean() == pytest.approx(0, abs=0.01) and errors.std() == pytest.approx(1, rel=0.03)
    assert (errors**3).mean() == pytest.approx(skewness, abs=0.05, rel=0.3)
    if kurtosis is not None:
        assert (errors**4).mean() == pytest.approx(kurtosis, rel=0.05)
    assert found.attrs["error_model"].lower() == f"independent {noise}"


def test_families_that_are_not_there_or_not_correlated_are_refused():
    truth = make_truth()
    with pytest.raises(OptionError, match="noise=.*Did you mean 'laplace'"):
        observe(truth, op.identity(), error=0.1, noise="laplac")
    with pytest.raises(OptionError, match="found correlation= beside noise='uniform'"):
        observe(truth, op.identity(), error=0.1, noise="uniform", correlation={"x": 1.0})

"""What the methods by the physical model have in common."""

from __future__ import annotations

import pytest
from chains import TRIPLE, truth_of
from filtered import OPTIONS, SCALAR, model_of

from sdaxr import operators as op
from sdaxr.filters.base import ModelMethod
from sdaxr.observations.observe import observe
from sdaxr.posterior.methods import METHODS, names
from sdaxr.schema import OptionError


@pytest.mark.parametrize("name", names("system"))
def test_methods_for_gaussian_errors_refuse_others(name: str) -> None:
    method = METHODS.build(name)
    assert isinstance(method, ModelMethod)
    seen = observe(truth_of(TRIPLE, 6, 1), op.select("x2"), error=0.5, noise="laplace", seed=1)
    model = model_of(TRIPLE, {"observations": seen})
    if not method.gaussian:
        method.check(model, 2)
        return
    with pytest.raises(OptionError, match="is for Gaussian errors, found laplace|needs localisation="):
        method.check(model, 2)


@pytest.mark.parametrize("name", SCALAR)
def test_draws_are_trajectories_of_the_window(name: str) -> None:
    seen = observe(truth_of(TRIPLE, 6, 1), op.select("x2"), error=0.5, seed=1)
    method = METHODS.build({"name": name} | OPTIONS.get(name, {}))
    model = model_of(TRIPLE, {"observations": seen}, first=None if method.markov else TRIPLE.initial(3, seed=0))
    method.check(model, 3)
    drawn = method.draw(model, 3, 0)
    assert drawn.paths.shape == (3, 6, 3)
    assert all(isinstance(value, int | float) for value in drawn.about.values())
    assert method.distribution in ("filtering", "smoothing")

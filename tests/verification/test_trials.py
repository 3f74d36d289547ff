"""One trial: the truth on the grid of the model, its observations, and what is kept of its posterior."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr
from gaussian import GaussianChain

from sdaxr import operators as op
from sdaxr.inference.assimilate import assimilate
from sdaxr.schema import DivergenceError, UnitsError
from sdaxr.verification import trials as module
from sdaxr.verification.quantities import Quantities
from sdaxr.verification.trials import Trials
from sdaxr.verification.uniformity import inside

CHAIN = GaussianChain(5)
PRIOR = CHAIN.prior(samples=50)


@dataclass(frozen=True)
class Chains:
    """Truths that are drawn by their seed, with a variable that the prior does not have."""

    units: str = "K"

    def draw(self, number: int, seed: int) -> xr.Dataset:
        found = CHAIN.truth(seed)
        found.a.attrs["units"] = self.units
        return found.assign(other=found.a)

    def describe(self) -> str:
        return "chains"


def trials(**changes: object) -> Trials:
    drawing = {"prior": PRIOR, "members": 6, "sampler": {"steps": 6, "corrections": 0}}
    layout, how = PRIOR.layout, {"error": 0.5, "every": 2}
    return replace(Trials(Chains(), op.identity(), how, drawing, layout, ("a", "b"), (0.5, 0.9), 3), **changes)


def quantities(case: Trials) -> Quantities:
    return Quantities.choose(None, 2, *case.observed(0), op.identity(), 0)


def test_a_trial_keeps_what_its_posterior_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "assimilate", lambda *a, **k: drawn.append(assimilate(*a, **k)) or drawn[-1])
    case = trials()
    chosen, (truth, seen) = quantities(case), case.observed(4)
    found, posterior = case.run(4, chosen), drawn[0]
    values = chosen.of(posterior, seen)
    np.testing.assert_array_equal(found["rank"], (values < found["value"]).sum(0))
    np.testing.assert_allclose(found["mean"], values.mean(0))
    np.testing.assert_allclose(found["spread"], values.std(0, ddof=1))
    for index, name in enumerate("ab"):
        ranks = (posterior[name] < truth[name]).sum("member").values
        np.testing.assert_allclose(found["covered"][index], inside(ranks, 6, (0.5, 0.9)).mean(0))
        error = ((posterior[name].astype(float).mean("member") - truth[name]) ** 2).mean()
        assert found["squared_error"][index] == pytest.approx(float(error), rel=1e-5)
        spread = posterior[name].astype(float).var("member", ddof=1).mean()
        assert found["squared_spread"][index] == pytest.approx(float(spread))
    assert found["diverged"] == 0 and set(found) == set(case.template(1, chosen).data_vars)


def test_a_trial_follows_from_its_number_and_the_seed() -> None:
    case = trials()
    chosen = quantities(case)
    first, again, other = (case.run(n, chosen) for n in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first) and (first["value"] != other["value"]).all()
    assert (replace(case, seed=4).run(1, chosen)["value"] != first["value"]).all()
    # Truth, errors and posterior of a trial have random numbers of their own.
    truth, seen = case.observed(1)
    error = (seen.a - truth.a.sel(time=seen.time)).values / 0.5
    assert not np.isclose(error[0], (truth.a.values[0] - 280) / 2, rtol=1e-3)


def test_a_posterior_that_diverges_is_kept_as_such(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def diverge(*args: object, **options: object) -> None:
        raise DivergenceError("too far")

    monkeypatch.setattr(module, "assimilate", diverge)
    found = trials().run(0, quantities(trials()))
    assert found["diverged"] == 1 and (found["rank"] == -1).all() and np.isnan(found["covered"]).all()
    assert "the posterior of truth 0 diverged: too far" in caplog.text


def test_a_truth_in_other_units_is_refused() -> None:
    with pytest.raises(UnitsError, match="'a' has units 'degC' in the truth, expected 'K'"):
        trials(source=Chains("degC")).observed(0)

"""What the ranks of a calibration say: coverage with bands, p values, and a verdict in words.

A test of each quantity asks whether its ranks are uniform (`sdaxr.verification.uniformity`); the p values of all
quantities are adjusted together (Holm 1979). One more test asks whether the intervals cover as many of all values of
the states as they should, on average over the levels: Student's t over the truths, because values of one truth depend
on each other. Each of the two has half of `ALPHA`, so that a right ensemble is rejected with a probability of at most
`ALPHA`.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import numpy as np
import xarray as xr

from sdaxr.verification.uniformity import Uniformity, bias_and_dispersion, holm, inside

ALPHA = 0.05
"""Probability that a right ensemble is rejected, and that a band or interval misses."""
NARROW = 2 / 3
"""Spread, over the right one, of the ensemble by which the power is stated."""
_LEAST_POWER = 0.5
# Bias and dispersion of rejected ranks are named beyond three standard errors, the smaller one only where it is more
# than half of the larger one: ranks of a large bias have little dispersion left.
_NAMED = 3.0
_SHAPELESS = "not uniform"
_ORDER = ("too narrow", "too wide", "biased low", "biased high", _SHAPELESS)
_SHOWN = 12
_BOUNDS = ("lower", "upper")


def evaluated(trials: xr.Dataset, members: int) -> xr.Dataset:
    """The ranks of a calibration with what they say, as `sdaxr.calibrate` returns it.

    Parameters
    ----------
    trials
        The values of all truths (`sdaxr.verification.trials.Trials.template`).
    members
        Number of members of each posterior.
    """
    good = trials.isel(truth=trials["diverged"].values == 0)
    count, lost = good.sizes["truth"], trials.sizes["truth"] - good.sizes["truth"]
    about: dict[str, float] = {"truths": trials.sizes["truth"], "members": members, "diverged": lost}
    if count < 2:
        return trials.assign_attrs(about, verdict=_lost(lost, trials.sizes["truth"]))
    ranks, levels, test = good["rank"].values, good["level"].values.tolist(), _uniformity(count, members)
    bias, dispersion = bias_and_dispersion(ranks, members)
    excess = (good["covered"] - good["level"]).mean(["variable", "level"]).values
    p, pooled, power = test.p_values(ranks), min(1.0, 2 * _of_zero_mean(excess)), _power(count, members)
    adjusted = np.minimum(1, 2 * holm(p))
    words = [_words(*each, power=power) for each in zip(adjusted, bias, dispersion, strict=True)]
    result = trials.assign(_of_states(good, members)).assign(
        p_value=("quantity", p, _about("p value of the uniformity of the ranks")),
        bias=("quantity", bias, _about("bias of the ranks, in standard errors")),
        dispersion=("quantity", dispersion, _about("excess of the variance of the ranks, in standard errors")),
        coverage=(("quantity", "level"), inside(ranks, members, levels).mean(0), _about("coverage of the intervals")),
        coverage_band=(("bound", "level"), test.coverage_band(levels, ALPHA), _about("band of coverage of a quantity")),
        ecdf=(("quantity", "fraction"), _ecdf(ranks, members), _about("distribution function of the ranks")),
        ecdf_band=(("bound", "fraction"), test.ecdf_band(ALPHA), _about("band of the distribution function")),
    )
    fractions = np.arange(1, members + 1) / (members + 1)
    result = result.assign_coords(
        bound=("bound", np.array(_BOUNDS, object), {"long_name": "bound of a band or an interval"}),
        fraction=("fraction", fractions, _about("fraction of the ranks")),
        verdict=("quantity", np.array(words, object), {"long_name": "verdict"}),
    )
    about |= {"p_value_coverage": pooled, "p_value_quantities": float(adjusted.min()), "power": power, "alpha": ALPHA}
    overall = _overall(words, pooled, float(excess.mean()), power)
    return result.assign_attrs(about, verdict=f"{_lost(lost, len(trials['truth']))}; {overall}" if lost else overall)


def describe(result: xr.Dataset) -> str:
    """One screen of text: what was tested, the verdict, the coverage, and the quantities with the smallest p values.

    Parameters
    ----------
    result
        Result of `sdaxr.calibrate`.
    """
    about = result.attrs
    lines = [
        f"{about['title']}: {about['truths']} truths, {about['members']} members",
        f"verdict: {about['verdict']}",
    ]
    if "p_value" not in result:
        return "\n".join(lines)
    lines += [
        f"p value of coverage {about['p_value_coverage']:.4f}, of quantities {about['p_value_quantities']:.4f}; "
        f"a spread {NARROW:.2f} times the right one is found in {about['power']:.0%} of the cases",
        "",
        "all values of    coverage (95 % interval)                                          spread/error",
    ]
    low, high = result["state_coverage_interval"].values
    levels, coverage = result["level"].values, result["state_coverage"].values
    shown = [int(np.abs(levels - level).argmin()) for level in (0.5, 0.9)]
    for n, name in enumerate(result["variable"].values):
        parts = [
            f"{levels[j]:4.0%}: {coverage[n, j]:6.1%} ({low[n, j]:6.1%} to {high[n, j]:6.1%})"
            for j in dict.fromkeys(shown)
        ]
        lines.append(f"{name!s:<16} {'  '.join(parts):<65} {float(result['spread_error'][n]):12.2f}")
    order = np.argsort(result["p_value"].values, kind="stable")[:_SHOWN]
    last = shown[-1]
    band = result["coverage_band"].values[:, last]
    lines += [
        "",
        f"{'quantity':<32} {'p value':>8} {f'in {levels[last]:.0%}':>8} {'bias':>6} {'dispersion':>10}  verdict"
        f"   (band of {levels[last]:.0%}: {band[0]:.0%} to {band[1]:.0%})",
    ]
    for n in order:
        row = result.isel(quantity=n)
        lines.append(
            f"{row['quantity'].item()!s:<32} {float(row['p_value']):8.4f} {float(row['coverage'][last]):8.1%} "
            f"{float(row['bias']):6.1f} {float(row['dispersion']):10.1f}  {row['verdict'].item()}"
        )
    if result.sizes["quantity"] > _SHOWN:
        lines.append(f"and {result.sizes['quantity'] - _SHOWN} quantities with larger p values")
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _uniformity(truths: int, members: int) -> Uniformity:
    """The test, whose simulations serve all calibrations of one size."""
    return Uniformity(truths, members)


@lru_cache(maxsize=64)
def _power(truths: int, members: int) -> float:
    return _uniformity(truths, members).power(NARROW, ALPHA)


def _of_states(good: xr.Dataset, members: int) -> dict[Hashable, xr.DataArray]:
    """Coverage of all values of a state variable with its interval, and spread over error."""
    from scipy.stats import t

    count = good.sizes["truth"]
    mean = good["covered"].mean("truth")
    half = float(t.ppf(1 - ALPHA / 2, count - 1)) * good["covered"].std("truth", ddof=1) / np.sqrt(count)
    interval = xr.concat([(mean - half).clip(min=0), (mean + half).clip(max=1)], "bound")
    spread, error = (good[name].mean("truth") for name in ("squared_spread", "squared_error"))
    ratio: xr.DataArray = ((members + 1) / members * spread / error) ** 0.5
    return {
        "state_coverage": mean.assign_attrs(_about("coverage of all values of a variable")),
        "state_coverage_interval": interval.assign_attrs(_about("interval of the coverage of all values")),
        "spread_error": ratio.assign_attrs(_about("spread of the members over the error of their mean")),
    }


def _of_zero_mean(values: np.ndarray) -> float:
    """p value of a mean of zero, from independent values (truth,)."""
    from scipy.stats import ttest_1samp

    return 1.0 if np.ptp(values) == 0 else float(ttest_1samp(values, 0.0).pvalue)


def _ecdf(ranks: np.ndarray, members: int) -> np.ndarray:
    """Share of the truths with a rank of at most j, (quantity, M) for j = 0 to M - 1."""
    return np.stack([(ranks <= j).mean(0) for j in range(members)], axis=1)


def _words(p: float, bias: float, dispersion: float, *, power: float) -> str:
    """The verdict on one quantity, from its adjusted p value."""
    if p > ALPHA:
        return "calibrated" if power >= _LEAST_POWER else "too few truths"
    found = {"too narrow" if dispersion > 0 else "too wide": abs(dispersion)}
    # Members that are too low leave high ranks to the truth.
    found["biased low" if bias > 0 else "biased high"] = abs(bias)
    least = max(_NAMED, max(found.values()) / 2)
    named = [word for word, size in sorted(found.items(), key=lambda pair: -pair[1]) if size > least]
    return ", ".join(named) or _SHAPELESS


def _overall(words: list[str], pooled: float, excess: float, power: float) -> str:
    rejected = [each for each in words if each not in ("calibrated", "too few truths")]
    named = {word for each in rejected for word in each.split(", ")}
    # A bias lowers the coverage, too.
    if pooled <= ALPHA and (excess > 0 or not any(word.startswith("biased") for word in named)):
        named.add("too wide" if excess > 0 else "too narrow")
    if not named:
        return "calibrated" if power >= _LEAST_POWER else "too few truths to say"
    named = named - {_SHAPELESS} or named
    brief = dict.fromkeys("biased" if word.startswith("biased") else word for word in sorted(named, key=_ORDER.index))
    reasons = ["coverage of all values"] if pooled <= ALPHA else []
    reasons += [f"{len(rejected)} of {len(words)} quantities"] if rejected else []
    return f"{', '.join(brief)} ({', '.join(reasons)})"


def _lost(lost: int, truths: int) -> str:
    return f"diverged for {lost} of {truths} truths"


def _about(title: str) -> dict[str, str]:
    return {"long_name": title, "units": "1"}

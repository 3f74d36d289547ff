"""Problems of assimilation with the shipped priors: what is observed of which truth, and by which method."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import xarray as xr
from check_agreement import tf32
from torch import Tensor

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.assimilate import score_method
from sdaxr.inference.problem import Problem
from sdaxr.observations.screening import Screening
from sdaxr.observations.window import as_networks, operator_of, window_times
from sdaxr.operators import Operator
from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.posterior.methods import names
from sdaxr.posterior.samplers.registry import resolve_sampler
from sdaxr.prior.files import Prior

CPU = torch.device("cpu")
# States of a trajectory; the truth is a held-out window of the prior, which has no fewer.
LENGTHS = {
    "lorenz63": 32, "lorenz96": 16, "lorenz96-forcing": 16, "kolmogorov": 8, "quasigeostrophic": 9,
    "quasigeostrophic-augmented": 9,
}  # fmt: skip

Method = Any
Case = tuple[str, Method, dict[str, Any]]


def cases() -> dict[str, Case]:
    """Prior, method and observations of each case of guidance; a method may be a function of the device."""
    found: dict[str, Case] = {}
    for prior in ("lorenz63", "kolmogorov"):
        found |= {f"{method}, {prior}": (prior, method, {}) for method in names("prior")}
        correlation = {"time": 0.2} if prior == "lorenz63" else {"x": 1.0}
        found[f"sda, correlated errors, {prior}"] = prior, "sda", {"correlation": correlation}
        found[f"sda, laplace errors, {prior}"] = prior, "sda", {"noise": "laplace"}
        found[f"mmps, laplace errors, {prior}"] = prior, "mmps", {"noise": "laplace"}
        bent = observing(prior)["operator"] >> op.arctan(0.5)
        found[f"sda, nonlinear operator, {prior}"] = prior, "sda", {"operator": bent, "error": 0.05}
    found["sda, speed, kolmogorov"] = "kolmogorov", "sda", {"operator": op.coarsen(8) >> op.function(_speed)}
    found["sda, vorticity, kolmogorov"] = "kolmogorov", "sda", {"operator": op.vorticity() >> op.subsample(8)}
    for name in UNCERTAINTIES.names():
        found[f"sda, {name}, lorenz63"] = "lorenz63", _white if name == "matrix" else {"variance": name}, {}
    for name in ("measured", "independent"):
        found[f"jacobian_free, {name}, kolmogorov"] = "kolmogorov", {"name": "jacobian_free", "covariance": name}, {}
    found["sda, quasigeostrophic"] = "quasigeostrophic", "sda", {}
    for variance in ("measured", "bounded"):
        method = {"name": "soad", "variance": variance}
        found[f"soad, {variance}, quasigeostrophic-augmented"] = "quasigeostrophic-augmented", method, {}
    return found


def observing(prior: str) -> dict[str, Any]:
    """What is observed of the states of a prior: operator, times and errors."""
    if prior == "lorenz63":
        return {"operator": op.select("a"), "every": 8, "error": 0.5}
    if prior.startswith("lorenz96"):
        return {"operator": op.select("x") >> op.subsample(2), "every": 4, "error": 1.0}
    if prior == "kolmogorov":
        return {"operator": op.coarsen(8), "every": 4, "error": 0.1}
    if prior == "quasigeostrophic":
        return {"operator": op.coarsen(8), "every": 4, "error": 1e-6}
    return {"operator": sdaxr.open_prior(prior).augmentation.operators["sin"], "every": 4, "error": 0.1}


def observations(prior: str, how: dict[str, Any]) -> xr.Dataset:
    """Observations of the truth."""
    return sdaxr.observe(truth(prior), **{**observing(prior), **how}, seed=0)


def truth(prior: str, length: int | None = None) -> xr.Dataset:
    """The first states of the first held-out window of a prior."""
    opened = opened_on(prior, CPU)
    times = opened.layout.times(0.0, length or LENGTHS[prior])
    fields = opened.layout.to_physical(opened.reference[0][0, : len(times)], times)
    template = opened.layout.template(times)
    filled = template.assign({v: (template[v].dims, fields[v], template[v].attrs) for v in opened.states})
    return filled[opened.states]


def posed(
    seen: xr.Dataset,
    opened: Prior,
    *,
    device: torch.device,
    precision: str = "auto",
    method: Method = None,
    sampler: Any = None,
    operator: Operator | None = None,
) -> Problem:
    """The problem that `sdaxr.assimilate` poses."""
    networks = as_networks(seen, opened.layout)
    operators = {name: operator_of(name, data, operator) for name, data in networks.items()}
    return Problem(
        networks, operators, opened, window_times(networks, opened.layout), score_method(opened, method),
        resolve_sampler(opened, sampler), precision, Screening(), str(device),
    )  # fmt: skip


@cache
def opened_on(name: str, device: torch.device) -> Prior:
    """A prior whose network stays on one device; what is measured of a prior is measured once, without TF32."""
    prior = sdaxr.open_prior(name)
    with tf32(False):
        prior.held_out(device)
    return prior


def _white(device: torch.device) -> Method:
    """A matrix over the four observations of Lorenz 63: those of white noise."""
    unit = torch.eye(4, dtype=torch.float64, device=device)
    return sdaxr.methods.SDA(variance=sdaxr.methods.Matrix(lambda r: unit / (1 + r**2)))


def _speed(fields: dict[str, Tensor]) -> dict[str, Tensor]:
    speed = (fields["u"].square() + fields["v"].square() + 1e-6).sqrt()
    return {"u": speed, "v": fields["v"]}

"""Networks with their preconditioning: outputs, gradients and steps of the training, on the CPU and on the device."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from check_agreement import LOSS, NETWORK, Checks, agreement, significant, tf32
from torch import Tensor, nn

import sdaxr
from sdaxr.prior.assembly import assemble
from sdaxr.prior.files import Prior
from sdaxr.prior.networks.base import NETWORKS
from sdaxr.prior.preconditioning import PARAMETERISATIONS, DenoisingNetwork
from sdaxr.states.isolation import isolated

# Priors whose states the networks see: state vectors, and fields.
SOURCES = {False: "lorenz63", True: "kolmogorov"}
WINDOW = 5
# Small sizes of the options that a network has.
SIZES = {"width": 32, "blocks": 2, "widths": (16, 24), "patch": 2}
LEVELS = (0.02, 20.0)
_BATCH = 4


def check_networks(checks: Checks) -> None:
    """Every network with every parameterisation, in float32 without and with TF32, and in bfloat16."""
    for name in NETWORKS.names():
        prior = sdaxr.open_prior(SOURCES[NETWORKS.kind(name).gridded])
        for parameterisation in PARAMETERISATIONS:
            case = f"{name}, {parameterisation}"
            checks("network", case, lambda p=parameterisation, n=name, of=prior: _network(checks, n, p, of))


def check_training(checks: Checks) -> None:
    """One step of the training from the weights of each shipped prior, and three steps of a training from nothing."""
    for name in sdaxr.priors():
        checks("training step", name, lambda name=name: _step(checks, name))
    for name in SOURCES.values():
        checks("training", name, lambda name=name: _train(checks, name))


@dataclass(frozen=True)
class Case:
    """Diffused states (batch, time, channel, *space) at the noise levels r, and what a denoiser is given besides."""

    x: Tensor
    r: Tensor
    noise: Tensor
    context: Tensor
    probe: Tensor

    @classmethod
    def of(cls, prior: Prior, window: int) -> Case:
        """Held-out states of a prior, each at a noise level of its own."""
        states, context = (torch.as_tensor(a) for a in prior.reference)
        x = states[torch.arange(_BATCH) % len(states), :window]
        generator = torch.Generator().manual_seed(0)
        noise, probe = (torch.randn(x.shape, generator=generator) for _ in range(2))
        r = torch.logspace(math.log10(LEVELS[0]), math.log10(LEVELS[1]), _BATCH)
        return cls(x, r, noise, context[:1, :window], probe)

    def to(self, device: torch.device) -> Case:
        """The same on a device."""
        return Case(*(v.to(device) for v in vars(self).values()))


def network(name: str, parameterisation: str, prior: Prior) -> DenoisingNetwork:
    """A small network with random weights, for the states of a prior."""
    known = NETWORKS.kind(name).__dataclass_fields__
    options = {key: value for key, value in SIZES.items() if key in known}
    about = {"network": {"name": name, **options}, "parameterisation": parameterisation, "window": WINDOW}
    model = assemble(prior.layout, about | {"optimisation": {"levels": LEVELS}})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            # Networks begin with an output of zero; with these weights each layer keeps the size of its input.
            size = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
            weight.copy_(size * torch.randn(weight.shape, generator=generator))
    if model.modes is not None:
        model.modes.measure([torch.as_tensor(prior.reference[0][:, :WINDOW])])
    return model


def outcome(model: DenoisingNetwork, case: Case, *, half: bool = False) -> dict[str, Tensor]:
    """The noise that the denoiser estimates, and its gradients: in z for guidance, in the weights for training."""
    z = (case.x + expand(case.r, case.x) * case.noise).requires_grad_()
    with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
        xhat = model(z, case.r, case.context)
    noise = (z - xhat) / expand(case.r, z)
    gradients = torch.autograd.grad((noise * case.probe).sum(), [z, *model.parameters()])
    weights = torch.cat([g.float().flatten() for g in gradients[1:]])
    return {"output": noise.detach(), "gradient_in_z": gradients[0], "gradient_in_weights": weights[None]}


def exact(model: DenoisingNetwork) -> DenoisingNetwork:
    """The same with its network in double precision; modes and preconditioning stay in float32."""
    found = copy.deepcopy(model)
    found.network = _Double(found.network)
    return found


def expand(r: Tensor, like: Tensor) -> Tensor:
    """Noise levels (batch,) with as many dimensions as ``like``."""
    return r.reshape(-1, *[1] * (like.ndim - 1))


class _Double(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner, self.window = network.double(), network.window

    def forward(self, *given: Tensor) -> Tensor:
        found: Tensor = self.inner(*(x.double() for x in given))
        return found.float()


def _network(checks: Checks, name: str, parameterisation: str, prior: Prior) -> dict[str, Any]:
    model, case, device = network(name, parameterisation, prior), Case.of(prior, WINDOW), checks.phase.device
    expected = outcome(exact(model), case)
    model, case = copy.deepcopy(model).to(device), case.to(device)
    found: dict[str, Any] = {}
    for precision, bound in NETWORK.items():
        with tf32(precision == "tf32"), isolated():
            computed = outcome(model, case, half=precision == "bfloat16")
        found[precision] = agreement({key: (computed[key], expected[key]) for key in expected}, bound)
    return found | {"passed": all(part["passed"] for part in found.values())}


def loss(prior: Prior, case: Case, *, half: bool) -> tuple[DenoisingNetwork, Tensor]:
    """The mean loss of a prior on a batch, with its gradient; the network is a copy on the device of the batch."""
    device = case.x.device
    model = copy.deepcopy(prior.network).to(device).train().requires_grad_(True)
    valid = None if prior.layout.mask is None else torch.as_tensor(prior.layout.mask, device=device).float()
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        value = model.loss(case.x, case.r, case.noise, case.context, valid).mean()
    value.backward()
    return model, value.detach()


def _step(checks: Checks, name: str) -> dict[str, Any]:
    prior, device = sdaxr.open_prior(name), checks.phase.device
    # Networks that are convolutional in time are trained on pieces of windows, too.
    case = Case.of(prior, min(prior.window, 32))
    _, expected = loss(prior, case, half=False)
    found: dict[str, Any] = {}
    for precision, bound in LOSS.items():
        with tf32(precision == "tf32"), isolated():
            model, value = loss(prior, case.to(device), half=precision == "bfloat16")
        found[precision] = agreement({"loss": (value[None, None], expected[None, None])}, bound)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters(), 1e-4, fused=device.type == "cuda").step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    moved = bool(after.isfinite().all()) and bool((after != before).any())
    passed = moved and all(part["passed"] for part in found.values())
    return found | {"value": significant(float(expected)), "moved": moved, "passed": passed}


def _train(checks: Checks, name: str) -> dict[str, Any]:
    """The public function on the prior's held-out windows, with a network that takes a second."""
    prior = replace(sdaxr.open_prior(name))
    states = prior.reference[0]
    times = prior.layout.times(0.0, states.shape[1])
    data = prior.layout.template(times, {"trajectory": range(len(states))})
    fields = prior.layout.to_physical(states)
    data = data.assign({v: (data[v].dims, values, data[v].attrs) for v, values in fields.items()})
    data = data.assign_coords(split=("trajectory", ["train"] * (len(states) - 1) + ["valid"]))
    small = {"widths": (16, 24)} if prior.layout.space else {"width": 16, "blocks": 1}
    path = checks.phase.scratch / f"check-{name}.safetensors"
    trained = sdaxr.train(
        data, path, window=4, network=small, steps=3, optimisation={"batch": 4}, device=str(checks.phase.device),
        overwrite=True, progress=False,
    )  # fmt: skip
    summary = trained.metadata["training"]
    losses = {key: significant(summary[key]) for key in ("training_loss", "validation_loss")}
    precision = trained.metadata["optimisation"]["precision"]
    return losses | {"precision": precision, "passed": all(map(math.isfinite, losses.values()))}

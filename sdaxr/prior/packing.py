"""The parts of a prior as the tensors of a file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdaxr.prior.assembly import assemble
from sdaxr.prior.eofs import Eofs
from sdaxr.prior.header import NETWORK, REFERENCE, check_finite, check_header, check_reference, check_weights
from sdaxr.prior.patches import Patches
from sdaxr.prior.preconditioning import DenoisingNetwork
from sdaxr.schema import PriorError
from sdaxr.states.fields import StateLayout

_VECTORS = "modes.vectors"


def packed(
    layout: StateLayout,
    network: DenoisingNetwork,
    reference: tuple[np.ndarray, np.ndarray],
    dtype: torch.dtype,
    *,
    augmented: bool,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, with learned weights in ``dtype``, and the layout's entry of its header.

    In priors of states and observed quantities (``augmented``) the eigenvectors are in ``dtype``, too: they are most of
    the file, and rounding them adds far less than the errors of observations.
    """
    arrays, entry = layout.to_file()
    learned, modes = set(dict(network.named_parameters())), network.modes
    if augmented:
        learned.add(_VECTORS)
    weights = {k: v.detach().cpu().to(dtype if k in learned else v.dtype) for k, v in network.state_dict().items()}
    if isinstance(modes, Eofs):
        # Those of EOFs are rounded in any case: few samples give them with far larger errors. Land has none.
        weights[_VECTORS] = weights[_VECTORS][modes.present.flatten().cpu() > 0].half()
    tensors = {f"{NETWORK}{k}": v for k, v in weights.items()}
    tensors |= {k: torch.as_tensor(np.array(a)) for k, a in arrays.items()}
    tensors |= {k: torch.as_tensor(np.array(a)).half() for k, a in zip(REFERENCE, reference, strict=True)}
    return {k: t.contiguous() for k, t in tensors.items()}, entry


def unpacked(
    tensors: Mapping[str, Tensor], about: dict[str, Any]
) -> tuple[StateLayout, DenoisingNetwork, tuple[np.ndarray, np.ndarray]]:
    """Layout, network and held-out windows of the tensors and the header of a file.

    Raises
    ------
    PriorError, OptionError, DataError
        If header and tensors do not describe a prior.
    """
    check_header(about)
    arrays = {k: t.numpy() for k, t in tensors.items() if k.startswith("layout.")}
    layout = StateLayout.from_file(arrays, about.pop("layout"))
    patches = Patches.of(layout, about.get("statistics", {}).get("patches", {}))
    check_reference(layout if patches is None else patches.tile, tensors)
    weights = {k.removeprefix(NETWORK): t for k, t in tensors.items() if k.startswith(NETWORK)}
    if len(weights) + len(arrays) + len(REFERENCE) != len(tensors):
        raise PriorError("found tensors that are those of no part of a prior")
    with torch.device("meta"):
        # Nothing is allocated of what the file does not have.
        check_weights(weights, assemble(layout, about).state_dict(), _VECTORS if "modes" in about else None)
    check_finite(tensors)
    network = assemble(layout, about)
    if isinstance(network.modes, Eofs):
        vectors = torch.zeros_like(network.modes.vectors, dtype=weights[_VECTORS].dtype)
        vectors[weights["modes.present"].flatten() > 0] = weights[_VECTORS]
        weights[_VECTORS] = vectors
    network.load_state_dict(weights)
    if network.modes is not None and weights[_VECTORS].dtype != torch.float32:
        network.modes.orthonormalise()
    states, context = (tensors[key].float().numpy() for key in REFERENCE)
    return layout, network.eval().requires_grad_(False), (states, context)

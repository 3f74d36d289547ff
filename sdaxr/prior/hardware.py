"""Which device, in which precision, and with how much memory."""

from __future__ import annotations

import torch

from sdaxr.archives.host import free_here, taken_here
from sdaxr.schema import OptionError, nearest

PRECISIONS = ("float32", "bfloat16")


def choose_device(device: str) -> torch.device:
    """The device of that name; ``"auto"`` is a GPU where there is one.

    Raises
    ------
    OptionError
        If torch knows no such device, or there is none here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # The least work that needs the device: its name alone is known to every build of torch.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise OptionError(f"device={device!r}, expected auto, cpu or another device that torch has here") from error
    return torch.device(device)


def choose_precision(precision: str, device: torch.device, *, fields: bool) -> str:
    """The precision; ``"auto"`` is bfloat16 for fields, on a GPU and on a processor that has instructions for it.

    Raises
    ------
    OptionError
        If ``precision`` is neither ``"auto"`` nor one of `PRECISIONS`.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise OptionError(f"precision={nearest(precision, (*PRECISIONS, 'auto'))}")
        return precision
    able = torch.cpu.get_capabilities()
    fast = device.type == "cuda" or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    # Networks on state vectors are small, and conversions take time of their own.
    return "bfloat16" if fields and fast else "float32"


def free_bytes(device: torch.device) -> float:
    """Bytes that this process may still take on a device; on a CPU within the limits of its container (cgroups)."""
    if device.type == "cuda":
        # What torch keeps for its own next tensors is free as well.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return free_here()


def taken_bytes(device: torch.device) -> float:
    """Bytes that this process has on a device."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return taken_here()

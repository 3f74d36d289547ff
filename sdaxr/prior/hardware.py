"""Which device, and in which precision."""

from __future__ import annotations

import torch

from sdaxr.schema import OptionError, nearest

PRECISIONS = ("float32", "bfloat16")


def choose_device(device: str) -> torch.device:
    """The device of that name; ``"auto"`` is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def choose_precision(precision: str, device: torch.device, *, fields: bool) -> str:
    """``"auto"`` is bfloat16 for networks on fields, on a GPU and on a processor that has instructions for it.

    Raises
    ------
    OptionError
        If it is neither ``"auto"`` nor one of `PRECISIONS`.
    """
    if precision != "auto":
        if precision not in PRECISIONS:
            raise OptionError(f"precision={nearest(precision, (*PRECISIONS, 'auto'))}")
        return precision
    able = torch.cpu.get_capabilities()
    quick = device.type == "cuda" or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bfloat16" if fields and quick else "float32"

"""Independence of the settings that torch keeps for the whole process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Work with torch's own defaults, whatever the user has set, and leave what the user has set as it is.

    These are the default dtype and device, the recording of gradients, the random numbers of the CPU, and the precision
    of products of float32 matrices: rounded to TF32 or bfloat16, those with the modes of a prior would add an error of
    the size of the smallest noise level. Convolutions round to TF32 where torch does by itself. A decorator of
    functions, too.
    """
    import torch

    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    # The mode that sets a default device costs time in every operation: only where there is one.
    placed = torch.device("cpu") if device.type != "cpu" else contextlib.nullcontext()
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), placed, _full_products():
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@contextlib.contextmanager
def _full_products() -> Iterator[None]:
    """Products of float32 matrices in float32."""
    import torch

    places: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul"))  # noqa: B009
    before = [place.fp32_precision for place in places]
    try:
        whole = torch.get_float32_matmul_precision()
    except RuntimeError:  # The user has set the places one by one; then the setting for all of them cannot be read.
        whole = "highest"
    torch.set_float32_matmul_precision("highest")
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(whole)
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision

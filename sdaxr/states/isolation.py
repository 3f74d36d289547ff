"""Independence of the settings that torch keeps for the whole process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Work with torch's own defaults, whatever the user has set, and leave what the user has set as it is.

    These are the default dtype and device, the recording of gradients, and the random numbers of the CPU. A decorator
    of functions, too.
    """
    import torch

    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    # The mode that sets a default device costs time in every operation: only where there is one.
    placed = torch.device("cpu") if device.type != "cpu" else contextlib.nullcontext()
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]), placed:
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)

"""How many bytes of data a training holds at once."""

from __future__ import annotations

import logging

import torch

from sdaxr.prior.hardware import free_bytes

_log = logging.getLogger(__name__)

# Where nothing else is known.
_USUAL = 4e9
# Fraction of the free memory for the data of the training; a quarter as much is for those of the validation.
_SHARE = 0.5


def data_budget(needed: float, device: torch.device, recorded: float | None = None) -> float:
    """Bytes of data that are held at once: 4 GB times a power of two.

    What a machine has free changes all the time, and which windows are drawn together depends on the budget: powers of
    two make it the same from run to run, and a run that goes on takes that of its checkpoint.

    Parameters
    ----------
    needed
        Bytes of all data. The budget is more than 4 GB where they fit into it, and half of the free memory holds it.
    device
        Where the data are held.
    recorded
        The budget of the checkpoint that the run continues.
    """
    free = free_bytes(device)
    if recorded is not None and recorded <= free:
        return recorded
    budget = _USUAL
    while budget > _SHARE * free and budget > 1e6:
        budget /= 2
    while budget < needed and 2 * budget <= _SHARE * free:
        budget *= 2
    found = budget if budget >= needed else min(budget, _USUAL)
    if recorded is not None:
        _log.warning(
            "the checkpoint is of a run that held %.2g GB of data, of which %.2g GB are free: windows are drawn in "
            "another order", recorded / 1e9, free / 1e9,
        )  # fmt: skip
    return found

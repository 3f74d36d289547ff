"""The memory of a training: how much of it is for data, and how much it takes, before it is taken."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from sdaxr.archives.host import check_room
from sdaxr.prior.hardware import free_bytes, taken_bytes
from sdaxr.prior.settings import Settings
from sdaxr.prior.sizes import step_bytes
from sdaxr.prior.windows import Windows
from sdaxr.states.fields import StateLayout

_log = logging.getLogger(__name__)

# Where nothing else is known.
_USUAL = 4e9
# Fraction of the free memory for the data of the training; a quarter as much is for those of the validation.
_SHARE = 0.5
# Copies of the weights: the network and its average, gradients, and two moments of the optimiser.
_COPIES = 5
# A checkpoint: network, average and moments, as bytes of each tensor and as bytes of the file.
_SAVED = 8
# On a CPU, what reading and normalising takes beside the buffers, at most and in copies of the data; and the libraries
# of convolutions.
_READING, _READ, _LIBRARIES = 7e7, 5, 7e7
# EOFs: up to so many points all eigenvectors are computed, up to so many the covariance is held as a whole, and beyond
# them so many rows of it (`sdaxr.prior.decomposition`); copies of the first, of the others, and of the states.
_DIRECT, _WHOLE, _ROWS, _DIRECT_COPIES, _ROW_COPIES, _STATE_COPIES = 2500, 16_000, 8_000, 19, 4.5, 7
# Most numbers that they are measured on (`Windows.series`).
_SAMPLED = 2**27
# Error of the estimate; beyond it the training cannot fit.
_ERROR = 0.2


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


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training takes on its device.

    Attributes
    ----------
    before
        The most that the process had while the layout was measured (`check_statistics`).
    taken
        What the process has at present.
    data
        Buffers of the data of the training and of the validation.
    statistics
        For the EOFs, before the steps; 0 without.
    weights
        Weights, their average, gradients and moments.
    step
        A step of the training, or a checkpoint, beside these.
    """

    before: float
    taken: float
    data: float
    statistics: float
    weights: float
    step: float

    @classmethod
    def of(
        cls, settings: Settings, layout: StateLayout, windows: Windows, held_out: Windows, device: torch.device,
        before: float = 0.0,
    ) -> TrainingMemory:  # fmt: skip
        """The memory of a training whose data have not been read; nothing of it is taken."""
        inputs, precision = settings.inputs(layout), settings.optimisation.precision
        with torch.device("meta"):
            parameters = settings.network.module(inputs).parameters()
        weights, data = float(sum(each.nbytes for each in parameters)), windows.untaken + held_out.untaken
        host = device.type == "cpu"
        step, states = 0.0, windows.states + held_out.states
        if settings.steps != 0:
            try:
                step = step_bytes(settings.network, inputs, layout.shape, settings.batch, precision)
            except RuntimeError as error:  # What such a network does depends on values.
                _log.info("the memory of a step is not known, and is left out: %s", error)
        return cls(
            before=host * before,
            taken=taken_bytes(device),
            data=data + host * min(_READING, _READ * data),
            statistics=_eofs_bytes(states, layout) if settings.parameterisation == "eof" else 0.0,
            weights=_COPIES * weights,
            step=max(step + host * _LIBRARIES, host * _SAVED * weights),
        )

    @property
    def more(self) -> float:
        """The most beside what is taken at present."""
        return max(self.statistics, self.data + self.weights + self.step)

    @property
    def peak(self) -> float:
        """The most at any one time."""
        return max(self.before, self.taken + self.more)

    def __str__(self) -> str:
        parts = {
            "data": self.data,
            "weights and moments": self.weights,
            "a step or a checkpoint": self.step,
            "EOFs": self.statistics,
        }
        return ", ".join(f"{name} {value / 1e9:.2g} GB" for name, value in parts.items() if value)


def check_statistics(needed: float) -> float:
    """The most bytes that the process has while statistics are measured that take ``needed`` bytes.

    Raises
    ------
    OptionError
        If they cannot fit.
    """
    host = torch.device("cpu")
    remedy = "store the data in smaller chunks, or read with fewer threads, dask.config.set(num_workers=1)"
    check_room(needed, free_bytes(host), "the statistics of the data take about", remedy, error=_ERROR)
    return taken_bytes(host) + needed


def check_memory(needed: TrainingMemory, device: torch.device) -> None:
    """Say how much memory a training takes.

    Raises
    ------
    OptionError
        If it cannot fit.
    """
    more, free = needed.more, free_bytes(device)
    remedy = (
        "take fewer windows in a step, optimisation={'batch': ...}, fewer bytes of data, optimisation={'memory': ...}, "
        "a smaller network, or patches of the domain, statistics={'patches': ...}"
    )
    check_room(more, free, f"the training ({needed}) takes about", remedy, on=device, error=_ERROR)
    tell = _log.warning if more > free else _log.info
    tell("about %.2g GB at most, %s; %.3g GB are free", needed.peak / 1e9, needed, free / 1e9)


def _eofs_bytes(states: int, layout: StateLayout) -> float:
    """Bytes of the states that EOFs are measured on, and of their covariance."""
    points = layout.channels * int(torch.Size(layout.shape).numel())
    measured = min(states, _SAMPLED // points)
    rows = points if points <= _WHOLE else _ROWS
    copies = _DIRECT_COPIES if points <= _DIRECT else _ROW_COPIES
    return 4.0 * points * (_STATE_COPIES * measured + copies * rows)

"""Phase `forcing`: the prior of Lorenz 1996 with an unknown forcing, which is one number of the diffusion."""

from __future__ import annotations

from lorenz96 import trained_with
from phase import Phase

FORCINGS = (5.0, 11.0)


def run(phase: Phase) -> None:
    """Simulate, train, and look at the denoiser."""
    trained_with(phase, "lorenz96-forcing", FORCINGS)

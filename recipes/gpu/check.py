"""GPU and CPU agree: networks, guidance, samplers, priors; and what the package says of the device is true.

Everything is seeded, and compared with the CPU: networks with double precision, all else with float32. On the CPU
itself (the rehearsal) the comparison in bfloat16 is not trivial, either.
"""

from __future__ import annotations

from collections.abc import Callable

from check_agreement import Checks
from check_device import check_choice, check_memory, check_two_processes
from check_networks import check_networks, check_training
from check_posteriors import check_functions, check_guidance, check_noise, check_priors, check_samplers
from phase import Phase

# In the order of their importance, should the time run out.
PARTS: tuple[Callable[[Checks], None], ...] = (
    check_networks, check_priors, check_training, check_noise, check_memory, check_guidance, check_samplers,
    check_two_processes, check_functions, check_choice,
)  # fmt: skip


def run(phase: Phase) -> None:
    """All checks, as far as the time goes, then the verdict.

    Raises
    ------
    SystemExit
        If a check failed.
    """
    checks = Checks(phase)
    for part in PARTS:
        part(checks)
    failed = [key for key, passed in checks.passed.items() if passed is False]
    left_out = [key for key, passed in checks.passed.items() if passed is None]
    good = len(checks.passed) - len(failed) - len(left_out)
    phase.record("verdict", passed=good, failed=len(failed), left_out=len(left_out), failures=failed)
    if failed:
        raise SystemExit(f"check: {len(failed)} of {len(checks.passed)} failed")

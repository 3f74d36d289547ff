"""What a check is: a result, the reference, the error between the two, and the largest error that is allowed.

The tolerances are relative errors in the Euclidean norm. Random rounding errors of one layer add up over the layers
like a random walk, so that they grow to several times the rounding error of one number; a fault, such as a wrong
padding, a missing term or uninitialised memory, makes an error of order one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from phase import Phase
from torch import Tensor

# A network, and its gradients. A number is rounded to 2^-24 in float32, to 2^-11 in TF32 and to 2^-8 in bfloat16. On a
# CPU the errors of the networks here are at most 5e-6 in float32 and 0.014 in bfloat16; the bounds leave a factor of
# three in bfloat16, an eighth of that in TF32, and in float32 a digit more for algorithms that are not plain sums
# (Winograd, FFT).
NETWORK = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 0.04}
# A loss is a mean of many squared errors, whose rounding errors cancel: 1.3e-3 in bfloat16.
LOSS = {"float32": 1e-4, "tf32": 2e-3, "bfloat16": 0.01}
# One evaluation of a posterior. The increment is a small difference of two states, and a Krylov method amplifies the
# rounding errors of the Jacobian: up to 0.25 in bfloat16. Increments below FLOOR standard deviations are rounding.
GUIDANCE, FLOOR = {"float32": 1e-3, "bfloat16": 0.5}, 1e-3
# Members of a sampling run of a few steps, each of which carries on the errors of those before: 0.02 in bfloat16.
SAMPLES = {"float32": 1e-3, "bfloat16": 0.1}


@dataclass
class Checks:
    """The checks of one phase; each is guarded, so that the others go on.

    Attributes
    ----------
    phase
        Where results are recorded.
    passed
        Whether each check passed, in this run or in an earlier one; None where no time was left for a check.
    """

    phase: Phase
    passed: dict[str, bool | None] = field(default_factory=dict)

    def __call__(self, what: str, case: str, compute: Callable[[], dict[str, Any]]) -> None:
        """Record what ``compute`` returns, with the key ``passed``; an exception is a check that failed.

        A check that passed in an earlier run is not repeated; a check that failed is. A rehearsal does not end early.
        """
        key = f"{what}, {case}"
        if any(line["case"] == case and line["passed"] for line in self.phase.records(what)):
            self.passed[key] = True
            return
        if self.phase.left <= 0 and not self.phase.tenth:
            self.passed[key] = None
            return
        start = time.monotonic()
        try:
            found = compute()
        except Exception as error:
            found = {"passed": False, "reason": reason(error)}
        self.passed[key] = passed = bool(found["passed"])
        self.phase.record(what, case=case, **found | {"passed": passed}, seconds=round(time.monotonic() - start, 2))


def agreement(pairs: dict[str, tuple[Tensor, Tensor]], bound: float, floor: float = 0.0) -> dict[str, Any]:
    """Errors of results, given with their references, and whether all of them are within the bound."""
    errors = {name: difference(found, expected, floor) for name, (found, expected) in pairs.items()}
    passed = all(error <= bound for error in errors.values())
    return {**{name: significant(e) for name, e in errors.items()}, "bound": bound, "passed": passed}


def difference(found: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Largest relative error of a member of a batch, (batch, ...), in the Euclidean norm; infinite if not finite.

    A member whose root mean square is below ``floor`` counts as one of that size.
    """
    found, expected = (x.detach().cpu().double().flatten(1) for x in (found, expected))
    if found.shape != expected.shape or not found.isfinite().all():
        return math.inf
    size = expected.norm(dim=1).clamp_min(max(floor * expected.shape[1] ** 0.5, 1e-30))
    return float(((found - expected).norm(dim=1) / size).max())


def reason(error: Exception) -> str:
    """The type and the first line of an exception."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def significant(number: float, digits: int = 3) -> float:
    """A number as it is recorded."""
    return float(f"{number:.{digits}g}")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether the user lets matrix products and convolutions in float32 round their factors to TF32 on a GPU."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value

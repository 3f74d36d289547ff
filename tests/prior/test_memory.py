"""Memory of a computation, counted tensor by tensor."""

from __future__ import annotations

import runpy
import sys

import pytest
import torch

from sdaxr.prior import memory
from sdaxr.prior.memory import peak_bytes

NUMBER = 4 * 1000  # bytes of one float32 tensor of a thousand numbers


def chain(steps: int) -> torch.Tensor:
    x = torch.zeros(1000)
    for _ in range(steps):
        x = x + 1
    return x


@pytest.mark.parametrize("steps", [1, 5])
def test_what_is_freed_is_not_counted_twice(steps: int) -> None:
    """Each step holds its input and its output, however many there are."""
    assert peak_bytes(lambda: chain(steps)) == 2 * NUMBER


def test_views_hold_nothing() -> None:
    """Until their numbers are copied, fifty here."""
    assert peak_bytes(lambda: torch.zeros(1000).reshape(10, 100).T[:5].flatten()) == NUMBER + 4 * 50


def test_what_is_kept_for_gradients_counts() -> None:
    """Each sine keeps its argument until the gradient has been taken."""

    def gradient(depth: int) -> None:
        x = first = torch.zeros(1000, requires_grad=True)
        for _ in range(depth):
            x = x.sin()
        torch.autograd.grad(x.sum(), first)

    few, many = (peak_bytes(lambda depth=depth: gradient(depth)) for depth in (4, 12))
    assert many - few == pytest.approx(8 * NUMBER, abs=NUMBER)


def test_the_compiler_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, in every process that assimilates."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    anew = runpy.run_path(memory.__file__)  # A module that was used before may have imported it already.
    assert anew["peak_bytes"](lambda: chain(1)) == 2 * NUMBER

"""Bytes of data that a training holds."""

from __future__ import annotations

import pytest
import torch

from sdaxr.prior.budget import data_budget

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("free", "needed", "recorded", "expected"),
    [
        (20e9, 1e9, None, 4e9),
        (8e9, 1e12, None, 4e9),
        (7e9, 1e9, None, 2e9),  # half of the free memory
        (0.5e9, 1e12, None, 0.25e9),
        (40e9, 12e9, None, 16e9),  # all data fit
        (40e9, 100e9, None, 4e9),  # they do not: a larger buffer takes longer to read
        (40e9, 1e9, 1e9, 1e9),
        (7e9, 1e9, 4e9, 4e9),
    ],
)
def test_the_budget_is_what_fits_into_free_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    free: float, needed: float, recorded: float | None, expected: float,
) -> None:  # fmt: skip
    monkeypatch.setattr("sdaxr.prior.budget.free_bytes", lambda _: free)
    assert data_budget(needed, CPU, recorded) == expected
    assert not caplog.text


def test_a_budget_that_is_not_free_any_more_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sdaxr.prior.budget.free_bytes", lambda _: 2e9)
    assert data_budget(1e9, CPU, 4e9) == 1e9
    assert "held 4 GB of data, of which 2 GB are free: windows are drawn in another order" in caplog.text

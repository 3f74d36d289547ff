"""Texts of results."""

from __future__ import annotations

import sdaxr
from sdaxr import operators as op
from sdaxr.commands import texts
from sdaxr.verification.verdict import describe


def test_a_calibration_is_its_description() -> None:
    how = {"error": 0.5, "steps": 4, "truths": 3, "members": 3, "progress": False}
    result = sdaxr.calibrate("linear", op.select("x1"), system="linear", **how, method="kalman")
    assert texts.calibration(result) == describe(result)
    assert texts.calibration(result).startswith("Calibration of kalman with the system 'linear': 3 truths, 3 members\n")

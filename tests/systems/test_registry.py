"""Systems by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from sdaxr import systems
from sdaxr.schema import OptionError
from sdaxr.systems import registry
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.lorenz63 import Lorenz63


@dataclass(frozen=True)
class Decay(systems.System):
    """A user's system, in one file."""

    name: ClassVar[str] = "decay"

    step: float = 0.5
    rate: float = 1.0

    def template(self):
        return xr.Dataset({"x": ((), np.zeros((), np.float32), {"units": "1", "long_name": "what is left"})})

    def trajectory(self, steps, seed):
        return {"x": (seed * np.exp(-self.rate * self.step * np.arange(steps))).astype(np.float32)}

    def advance(self, state, steps, seed=0):
        return {"x": (state["x"] * np.exp(-self.rate * self.step * np.arange(1, steps + 1))).astype(np.float32)}


def test_open_system_reads_options_and_offers_the_nearest_name():
    assert systems.open_system("kolmogorov", resolution="128", reynolds=500) == Kolmogorov(
        resolution=128, reynolds=500.0
    )
    assert isinstance(systems.open_system("kolmogorov", reynolds=500).reynolds, float)
    for name, options, message in [
        ("lorens63", {}, "Did you mean 'lorenz63'"),
        ("kolmogorov", {"resolutoin": 64}, "Did you mean 'resolution'"),
        ("kolmogorov", {"resolution": 64.5}, "expected a whole number of at least 4 .* such as 256"),
        (
            "kolmogorov",
            {"resolution": "fine"},
            "expected a whole number of at least 4 .* such as 256",
        ),
        ("kolmogorov", {"resolution": 62}, "a resolution that coarsen divides"),
        ("lorenz63", {"step": 0}, "expected a number above 0"),
        ("lorenz96", {"sites": 2}, "expected a whole number of at least 4"),
        ("linear", {"matrix": [[1.0, 0.0], [0.0, 0.5]]}, "eigenvalue of modulus 1, expected less than 1"),
        ("linear", {"matrix": [[0.5]]}, "a matrix of 1 rows and a noise of 2"),
        ("linear", {"matrix": [0.5, 0.1]}, "expected a list of a list of a number"),
        ("linear", {"matrix": "none"}, "expected a list of a list of a number"),
        ("linear", {"noise": [[1.0, 0.5], [0.0, 1.0]]}, "not symmetric"),
        ("linear", {"noise": [[1.0, 2.0], [2.0, 1.0]]}, "the eigenvalue -1, expected none below 0"),
        ("linear", {"step": 0}, "expected a number above 0"),
    ]:
        with pytest.raises(OptionError, match=message):
            systems.open_system(name, **options)
    with pytest.raises(OptionError, match="found 5 for the system, expected one of .*, or a system object"):
        systems.open_system(5)
    with pytest.raises(OptionError, match="found the option name='x' of the system 'lorenz63'"):
        systems.open_system("lorenz63", name="x")
    with pytest.raises(OptionError, match="beside a Lorenz63 object"):
        systems.open_system(Lorenz63(), noise=0)


def test_a_user_adds_a_system_in_one_file(monkeypatch):
    monkeypatch.setattr(registry.SYSTEMS, "homes", dict(registry.SYSTEMS.homes))
    systems.register("decay", f"{__name__}:Decay")
    assert "decay" in systems.systems()
    assert systems.open_system("decay", rate="2").options() == {"step": 0.5, "rate": 2.0}
    with pytest.raises(OptionError, match="is already"):
        systems.register("decay", "elsewhere:Decay")
    with pytest.raises(OptionError, match="expected 'module:Class'"):
        systems.register("other", "elsewhere")

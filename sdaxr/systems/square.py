"""Flows on a doubly periodic square, whose states are means over square blocks of the solver's cells."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from sdaxr.systems.base import System, require


class Square(System):
    """A flow on a doubly periodic square; ``resolution`` and ``coarsen`` are options of it.

    Attributes
    ----------
    resolution
        Cells of the solver's grid along each side.
    coarsen
        Cells along each side that are averaged into one cell of a state.
    """

    resolution: int
    coarsen: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.resolution % self.coarsen == 0,
            f"found resolution={self.resolution} and coarsen={self.coarsen}; expected a resolution that coarsen "
            f"divides, such as {max(1, self.resolution // self.coarsen) * self.coarsen}",
        )

    @property
    @abstractmethod
    def length(self) -> float:
        """Side of the domain."""

    @property
    def cells(self) -> int:
        """Cells of a state along each side."""
        return self.resolution // self.coarsen

    def centres(self, units: str) -> dict[str, Any]:
        """The coordinates ``y`` and ``x`` of the centres of the cells; those with a length are a projection's."""
        places = (np.arange(self.cells) + 0.5) * self.length / self.cells
        found = {}
        for name in ("y", "x"):
            attrs = {"units": units, "long_name": f"{name} of the cell centre", "axis": name.upper()}
            if units == "m":
                attrs["standard_name"] = f"projection_{name}_coordinate"
            found[name] = (name, places, attrs | {"periodic": 1, "period": self.length})
        return found

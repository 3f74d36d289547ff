"""What a phase of the programme knows: its device, its time, its results of now and of an earlier run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Phase:
    """One phase on one device.

    Attributes
    ----------
    name
        Name of the phase, and of its file of results.
    device
        Where the phase computes.
    seconds
        Its budget. A phase looks at `left` and ends by itself.
    tenth
        Rehearse on a CPU: every part at about a tenth of its size.
    out
        Folder of the results that are kept: a file of JSON lines for each phase, and priors.
    scratch
        Folder of what is too large to keep: checkpoints with the moments of the optimiser, trajectories.
    """

    name: str
    device: torch.device
    seconds: float
    tenth: bool
    out: Path
    scratch: Path
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.seconds - (time.monotonic() - self.start)

    def size(self, full: int, least: int = 1) -> int:
        """A size of the programme: ``full``, or a tenth of it in a rehearsal."""
        return max(least, round(full / 10)) if self.tenth else full

    def record(self, what: str, **values: Any) -> dict[str, Any]:
        """Append a result to the phase's file of JSON lines, and print it; nothing is held back in a buffer."""
        line = {"what": what, "at": round(time.monotonic() - self.start, 1), **values}
        text = json.dumps(line, default=lambda value: value.item() if hasattr(value, "item") else str(value))
        with self._path.open("a") as file:
            file.write(text + "\n")
        print(f"{self.name}: {text}", flush=True)
        return line

    def records(self, what: str) -> list[dict[str, Any]]:
        """Results of that kind so far, those of an earlier run included."""
        if not self._path.exists():
            return []
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [line for line in lines if line["what"] == what]

    def missing(self, what: str, **key: Any) -> bool:
        """Whether there is no result of that kind with these values yet, and time is left to compute it."""
        found = any(all(line.get(k) == v for k, v in key.items()) for line in self.records(what))
        return not found and self.left > 0

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked; timings need it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def _path(self) -> Path:
        return self.out / f"{self.name}.jsonl"

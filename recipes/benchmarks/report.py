"""What the benchmarks share: the table on the screen, and the same numbers with the hardware as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import sdaxr

HERE = Path(__file__).parent


def report(name: str, rows: Sequence[Mapping[str, Any]], load: float) -> None:
    """Print ``rows`` as a table and write them to ``<name>.json`` beside this file.

    ``load`` is the load average before the benchmark began; well above zero means that the machine was shared.
    """
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}", na_rep="-"))
    print(f"{hardware()['cores']} cores, load average {load:.1f} before the benchmark")
    about = {"benchmark": name, "hardware": hardware(), "load_average_before": round(load, 2)}
    cleaned = json.loads(table.to_json(orient="records", double_precision=5))
    (HERE / f"{name}.json").write_text(json.dumps(about | {"rows": cleaned}, indent=1) + "\n")


def hardware() -> dict[str, Any]:
    """Kind of processor, number of cores, GPU, and the versions that matter."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sdaxr": sdaxr.__version__,
    }

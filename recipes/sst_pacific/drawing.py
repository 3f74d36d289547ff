"""The figure of the index Nino 3.4 and of the ranks at withheld places."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

METHOD = "network"


def index_and_ranks(months: pd.DataFrame, ranks: pd.DataFrame, path: Path) -> None:
    """One row for each number of places: the index with its 90 % interval against the truth, and the rank histogram."""
    counts = list(dict.fromkeys(months["places"]))
    figure = Figure(figsize=(9, 2.3 * len(counts)), layout="constrained")
    axes = figure.subplots(len(counts), 2, squeeze=False, sharey="col", sharex="col", width_ratios=(3, 1))
    for count, (left, right) in zip(counts, axes, strict=True):
        m = months[(months["places"] == count) & (months["method"] == METHOD)]
        left.axhline(0, color="0.8", linewidth=0.6)
        left.fill_between(m.index, m["low"], m["high"], color="C0", alpha=0.35, linewidth=0, label="90 % interval")
        left.plot(m.index, m["mean"], color="C0", linewidth=1, label="posterior mean")
        left.plot(m.index, m["truth"], color="k", linewidth=0.9, label="truth")
        left.set_ylabel("Nino 3.4 [K]")
        left.set_title(f"{count} places", fontsize=10)
        h = ranks[(ranks["places"] == count) & (ranks["method"] == METHOD)]
        right.bar(h["rank"], h["frequency"] * len(h), width=1, color="C0", edgecolor="w", linewidth=0.3)
        right.axhline(1, color="k", linewidth=0.6)
        right.set_title("ranks at withheld places", fontsize=10)
    axes[0, 0].legend(fontsize=8, frameon=False)
    axes[-1, 1].set_xlabel("rank of the truth")
    figure.savefig(path, dpi=110)

"""Tables and heat maps of the comparison, from comparison.csv.

python recipes/quasigeostrophic/tables.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pandas as pd
from comparison import HERE, KEYS, MAIN, METHODS, SCORES
from setting import OPERATORS

# RMSE of SOAD in the paper, read off its plots: with observations at each state and at every eighth.
PUBLISHED = {
    ("known", "random 1"): {"arctan": (0.084, 0.112), "sin": (0.064, 0.110), "velocity": (0.103, 0.128)},
    ("known", "random 0.25"): {"arctan": (0.110, 0.141), "sin": (0.107, 0.174), "velocity": (0.121, 0.147)},
    ("known", "random 0.01"): {"arctan": (0.208, 0.222), "sin": (0.326, 0.332), "velocity": (0.168, 0.185)},
    ("none", "random 1"): {"arctan": (0.138, 0.229), "sin": (0.110, 0.655), "velocity": (0.118, 0.181)},
    ("none", "random 0.25"): {"arctan": (0.228, 0.385), "sin": (0.528, 1.137), "velocity": (0.165, 0.253)},
    ("none", "random 0.01"): {"arctan": (0.891, 1.045), "sin": (1.44, 1.55), "velocity": (0.493, 0.685)},
}


@click.command()
@click.option("--table", type=Path, default=HERE / "comparison.csv", show_default=True)
def main(table: Path) -> None:
    """Write the tables as comparison.md and the heat maps as comparison.png, beside the results."""
    found = pd.read_csv(table)
    table.with_suffix(".md").write_text("\n\n".join(_pages(found)) + "\n")
    _heat_maps(found, table.with_suffix(".png"))


def _pages(found: pd.DataFrame) -> Iterator[str]:
    count = found.window.nunique()
    yield (
        f"RMSE of the ensemble mean, mean and standard error over test windows (at most {count}); the best method "
        "of a case in bold, with those within one standard error of the difference. Made by `tables.py`."
    )
    titles = {"all": "three networks at once"}
    methods = [*METHODS, "interpolation", "background", "climatology"]
    for operator, group in found[found.noise == "gaussian"].groupby("operator", sort=False):
        yield f"### {titles.get(operator, operator)}\n\n" + _table(group, methods, operator)
    others = found[found.noise != "gaussian"]
    if len(others):
        yield "### errors of other families\n\n" + _table(others, methods, None)
    yield "### how honest the ensembles are\n\n" + _honesty(found)
    yield "### all cases of a method, and what a sample costs\n\n" + _summary(found)


def _table(group: pd.DataFrame, methods: list[str], operator: str | None) -> str:
    methods = [m for m in methods if m in set(group.method)]
    lines = [["mask", "every", "background", "noise", *methods, "paper's SOAD"]]
    for key, rows in group.groupby(KEYS, sort=False):
        case = dict(zip(KEYS, key, strict=True))
        wide = rows.pivot(index="window", columns="method", values="rmse")
        best = wide[[m for m in METHODS if m in wide]].mean().idxmin()
        cells = []
        for method in methods:
            if method not in wide or wide[method].isna().all():
                cells.append("diverged" if method in wide and method in METHODS else "")
                continue
            text = f"{wide[method].mean():.3f}" + (f" ± {wide[method].sem():.3f}" if wide[method].count() > 1 else "")
            margin = wide[method] - wide[best]
            winner = method in METHODS and margin.mean() <= (margin.sem() if margin.count() > 1 else 0.0)
            cells.append(f"**{text}**" if winner else text)
        published = PUBLISHED.get((case["background"], case["mask"]), {}).get(str(operator))
        cells.append(f"{published[case['every'] == 8]:.3f}" if published and case["every"] in (1, 8) else "")
        lines.append([case["mask"], str(case["every"]), case["background"], case["noise"], *cells])
    return _markdown(lines)


def _honesty(found: pd.DataFrame) -> str:
    """Spread over error, and how often a 90 % interval has the truth, of the methods that sample every case."""
    methods, scores = ("default", "soad"), ("crps", "spread_skill", "inside_90")
    lines = [[*KEYS, *(f"{m}: {s}" for m in methods for s in scores)]]
    for key, rows in found.groupby(KEYS, sort=False):
        mean = rows.groupby("method")[list(scores)].mean()
        lines.append(
            [*map(str, key), *(f"{mean.loc[m, s]:.3f}" if m in mean.index else "" for m in methods for s in scores)]
        )
    return _markdown(lines)


def _summary(found: pd.DataFrame) -> str:
    mean = found[found.method.isin(METHODS)].groupby("method", sort=False)[SCORES].mean()
    lines = [["method", *SCORES]]
    lines += [[str(name), *(f"{row[s]:.3g}" for s in SCORES)] for name, row in mean.iterrows()]
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    """A table, its heading the first line."""
    rule = ["---"] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _density(mask: str) -> tuple[str, float]:
    """Random places before strides, each from the densest on."""
    kind, number = mask.split()
    return kind, float(number) if kind == "stride" else -float(number)


def _heat_maps(found: pd.DataFrame, path: Path) -> None:
    """RMSE by mask and interval, white where not sampled: an operator and background a row, a method a column."""
    import matplotlib.pyplot as plt

    shown = found[(found.noise == "gaussian") & (found.operator != "all")]
    methods = [m for m in MAIN if m in METHODS] + ["interpolation"]
    rows = [(o, b) for o in OPERATORS for b in ("none", "known", "unknown")]
    rows = [r for r in rows if ((shown.operator == r[0]) & (shown.background == r[1])).any()]
    masks, every = sorted(set(shown["mask"]), key=_density), sorted(set(shown.every))
    size = (1.5 + 2.0 * len(methods), 1.2 + (0.6 + 0.25 * len(masks)) * len(rows))
    figure, axes = plt.subplots(len(rows), len(methods), figsize=size, layout="constrained", squeeze=False)
    for i, (operator, first) in enumerate(rows):
        for j, method in enumerate(methods):
            axis = axes[i, j]
            part = shown[(shown.operator == operator) & (shown.background == first) & (shown.method == method)]
            grid = part.pivot_table("rmse", "mask", "every").reindex(index=masks, columns=every)
            norm = plt.matplotlib.colors.LogNorm(0.05, 1.4)
            image = axis.imshow(grid.to_numpy(), cmap="viridis_r", norm=norm, aspect="auto")
            for (k, n), value in np.ndenumerate(grid.to_numpy()):
                if np.isfinite(value):
                    colour = "w" if value > 0.3 else "k"
                    axis.text(n, k, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
            for mask, interval in part.loc[part.rmse.isna(), ["mask", "every"]].drop_duplicates().to_numpy():
                axis.text(every.index(interval), masks.index(mask), "diverged", ha="center", va="center", fontsize=8)
            axis.set_xticks(range(len(every)), every if i == len(rows) - 1 else [""] * len(every))
            axis.set_yticks(range(len(masks)), masks if j == 0 else [""] * len(masks))
            axis.set_title(method if i == 0 else "", fontsize=10)
        axes[i, 0].set_ylabel(f"{operator}\nbackground: {first}", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("observed every ... days", fontsize=8)
    figure.colorbar(image, ax=axes, label="RMSE of the mean, in standard deviations", shrink=0.6)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()

"""Posteriors with four modes: Figure 3 of Rozet & Louppe (2023).

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/modes.py --store lorenz63.zarr

The third component is observed every 4th state with an error of 0.1 of its normalisation, 49 states. The equations do
not change when a and b change their signs, so there are at least two modes; the first test trajectories whose exact
posterior has four are taken. Each sample is moved to its mode by weak-constraint 4D-Var, for draws of the exact one
(forward filtering, backward simulation, 2^17 particles) and for score-based ones. Writes modes.csv, modes.md and
modes.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import xarray as xr

import sdaxr
from sdaxr import operators as op

HERE = Path(__file__).parent
LENGTH, EVERY, ERROR = 49, 4, 0.1 * 8.6
LEAST = 0.02  # share of the samples that makes a mode worth the name
NEAR = 1.5  # root mean square distance of a within one mode


EXACT = sdaxr.methods.FFBS(particles=2**17)
FEW = 128  # draws that show how many modes there are
# Options of `sdaxr.assimilate`.
CASES: dict[str, dict[str, Any]] = {"assimilate": {}, "mixing=False": {"sampler": {"mixing": False}}}


@click.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--members", default=256, show_default=True)
@click.option("--draws", default=1024, show_default=True, help="Draws of the exact posterior.")
@click.option("--truths", default=4, show_default=True)
@click.option("--output", type=Path, default=HERE)
def main(store: str, prior: str, members: int, draws: int, truths: int, output: Path) -> None:
    """Find posteriors with four modes, and count them."""
    trajectories, rows = sdaxr.open_archive(store), list[dict[str, Any]]()
    for index in map(int, np.flatnonzero(trajectories.split.values == "test")):
        truth = trajectories.isel(trajectory=index, time=slice(LENGTH)).load()
        seen = sdaxr.observe(truth, op.select("c"), every=EVERY, error=ERROR, seed=index)
        found = seen.sda.assimilate(system="lorenz63", method="ffbs", members=FEW, progress=False)
        centres = modes(refine(seen, found))
        if len(centres) < 4:
            continue
        exact = seen.sda.assimilate(system="lorenz63", method=EXACT, members=draws, seed=1, progress=False)
        samples = {"exact (ffbs)": exact}
        for case, options in CASES.items():
            samples[case] = seen.sda.assimilate(prior, members=members, seed=1, progress=False, **options)
        if not rows:
            picture(samples, centres, seen, truth, output / "modes.png")
        rows += [{"trajectory": index} | row for row in compared(samples, centres, seen)]
        table = pd.DataFrame(rows)
        table.to_csv(output / "modes.csv", index=False, float_format="%.4f")
        print(table.tail(len(samples)).T.to_string(), flush=True)
        if table.trajectory.nunique() == truths:
            break
    else:
        raise click.ClickException(f"fewer than {truths} test trajectories have four modes; generate more of them")
    (output / "modes.md").write_text(page(table))


def compared(samples: dict[str, xr.Dataset], centres: np.ndarray, seen: xr.Dataset) -> list[dict[str, Any]]:
    """A row for each set of samples: the shares of the modes, and how far they are from those of the first set."""
    rows: list[dict[str, Any]] = []
    for name, drawn in samples.items():
        refined = refine(seen, drawn)
        # An exact draw and its image, with the other signs of a and b, are equally probable: both count.
        a = refined.a.values if rows else np.concatenate([refined.a.values, -refined.a.values])
        shares = belong(a, centres)
        fit = sdaxr.innovations(drawn, seen)["c_normalised_rms"].mean()
        about = {"samples": name, "count": drawn.sizes["member"], "modes": len(modes(refined)), "residual": float(fit)}
        about |= {key: drawn.attrs.get(key, np.nan) for key in ("evaluations_per_member", "effective_members")}
        about |= {"shares": " ".join(f"{share:.3f}" for share in shares[:-1]), "elsewhere": shares[-1]}
        known = np.array(rows[0]["shares"].split() if rows else about["shares"].split(), dtype=float)
        about["largest_difference"] = float(np.abs(np.array(shares[:-1]) - known).max()) if rows else np.nan
        rows.append(about | {"not_converged": refined.attrs["members_not_converged"]})
    return rows


def page(table: pd.DataFrame) -> str:
    """The table of modes.md."""
    heads = "trajectory, samples, evaluations, modes, shares, in none, largest difference, effective, residual"
    lines = [f"| {heads.replace(', ', ' | ')} |", "|" + "---|" * len(heads.split(", "))]
    for row in table.itertuples():
        known = ["" if np.isnan(v) else f"{v:.0f}" for v in (row.evaluations_per_member, row.effective_members)]
        shares = ", ".join(f"{float(share):.2f}" for share in row.shares.split())
        difference = "" if np.isnan(row.largest_difference) else f"{row.largest_difference:.3f}"
        lines.append(
            f"| {row.trajectory} | {row.samples}, {row.count} | {known[0]} | {row.modes} | {shares} "
            f"| {row.elsewhere:.2f} | {difference} | {known[1]} | {row.residual:.2f} |"
        )
    return "\n".join(lines) + "\n"


def refine(seen: xr.Dataset, samples: xr.Dataset) -> xr.Dataset:
    """Each sample at its mode."""
    method = sdaxr.methods.FourDVar(first_guess=samples)
    return seen.sda.assimilate(system="lorenz63", method=method, members=samples.sizes["member"], progress=False)


def modes(refined: xr.Dataset) -> np.ndarray:
    """Component a of the modes that enough samples are at, the most frequent first; (mode, time)."""
    waiting, centres = refined.a.values, []
    while len(waiting):
        near = distance(waiting, waiting[0]) < NEAR
        centres.append((near.mean() * len(waiting) / refined.sizes["member"], waiting[0]))
        waiting = waiting[~near]
    chosen = sorted((c for c in centres if c[0] >= LEAST), key=lambda c: -c[0])
    return np.array([centre for _, centre in chosen])


def belong(a: np.ndarray, centres: np.ndarray) -> list[float]:
    """Share of the samples at each mode, and at none of them."""
    nearest = np.array([distance(a, c) for c in centres])
    at = np.where(nearest.min(0) < NEAR, nearest.argmin(0), len(centres))
    return (np.bincount(at, minlength=len(centres) + 1) / len(a)).tolist()


def distance(a: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.sqrt(((a - centre) ** 2).mean(-1))


def picture(
    samples: dict[str, xr.Dataset], centres: np.ndarray, seen: xr.Dataset, truth: xr.Dataset, path: Path
) -> None:
    """Component a, which is not observed, and c, which is: samples, modes and truth."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(samples), figsize=(10, 6), sharex=True, sharey="row", layout="constrained")
    for column, (name, drawn) in enumerate(samples.items()):
        for row, variable in enumerate("ac"):
            axis = axes[row, column]
            axis.plot(truth.time, drawn[variable].values[:100].T, color="C0", alpha=0.1, linewidth=0.8)
            axis.plot(truth.time, truth[variable], "k--", linewidth=1.2, label="truth")
        for number, centre in enumerate(centres):
            axes[0, column].plot(truth.time, centre, color="C1", linewidth=1.2, label="modes" if number == 0 else None)
        axes[1, column].errorbar(seen.time, seen.c, ERROR, fmt="k.", label="observed")
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("time")
    axes[0, 0].set_ylabel("a")
    axes[1, 0].set_ylabel("c")
    axes[0, 0].legend(fontsize="small")
    axes[1, 0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

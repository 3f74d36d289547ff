"""A posterior with several modes: Figure 3 of Rozet & Louppe (2023).

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    python recipes/lorenz63/modes.py --store lorenz63.zarr

The third component is observed every 4th state with an error of 0.1 of its normalisation, 49 states. The equations do
not change when a and b change their signs, so there are at least two modes; the first test trajectory whose exact
posterior has four is taken. Each sample is moved to its mode by weak-constraint 4D-Var, for draws of the exact one
(forward filtering, backward simulation) and for score-based ones. Writes modes.csv and modes.png.
"""

from __future__ import annotations

from pathlib import Path

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


@click.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--members", default=256, show_default=True)
@click.option("--steps", type=int, default=64, show_default=True, help="Noise levels.")
@click.option("--corrections", type=int, default=7, show_default=True, help="On each of them.")
@click.option("--output", type=Path, default=HERE)
def main(store: str, prior: str, members: int, steps: int, corrections: int, output: Path) -> None:
    """Find a posterior with four modes, and count them."""
    trajectories = sdaxr.open_archive(store)
    for index in np.flatnonzero(trajectories.split.values == "test"):
        truth = trajectories.isel(trajectory=int(index), time=slice(LENGTH)).load()
        seen = sdaxr.observe(truth, op.select("c"), every=EVERY, error=ERROR, seed=int(index))
        exact = seen.sda.assimilate(system="lorenz63", method="ffbs", members=members, progress=False)
        centres = modes(refine(seen, exact))
        if len(centres) >= 4:
            break
    else:
        raise click.ClickException("no test trajectory has four modes; generate more of them")
    sampler = {"steps": steps, "corrections": corrections}
    ours = seen.sda.assimilate(prior, sampler=sampler, members=members, seed=1, progress=False)
    samples = {"exact (ffbs)": exact, "sdaxr": ours}
    rows = []
    for name, drawn in samples.items():
        refined = refine(seen, drawn)
        shares = belong(refined.a.values, centres)
        found = modes(refined)
        fit = sdaxr.innovations(drawn, seen)["c_normalised_rms"].mean()
        rows.append(
            {"trajectory": int(index), "samples": name, "modes": len(found), "residual": float(fit)}
            | {f"share_{i + 1}": shares[i] for i in range(len(centres))}
            | {"share_elsewhere": shares[-1], "not_converged": refined.attrs["members_not_converged"]}
        )
    table = pd.DataFrame(rows)
    table.to_csv(output / "modes.csv", index=False, float_format="%.4f")
    print(table.T.to_string())
    picture(samples, centres, seen, truth, output / "modes.png")


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

"""Posteriors with several modes: what `assimilate` gives, with and without drawing again, and the exact posterior.

    python recipes/lorenz63/run.py generate --store lorenz63.zarr
    pip install pot
    python recipes/lorenz63/several.py sample --store lorenz63.zarr
    python recipes/lorenz63/several.py report

The third component is observed every 3rd to 8th state with errors of 0.1 to 0.3 of its normalisation; it is the same
after a change of the signs of the other two. Eight test trajectories, each with another interval and error. The exact
posterior is drawn by forward filtering and backward simulation: four sets for comparison, and a
fifth one, which shows what an exact sampler would get. A draw and its image, with the other signs of a and b, are
equally probable. The filter knows their shares to a few hundredths only, so that each draw of the four sets is
replaced by its image where a coin says so, twice over; the fifth set is moved as the samples are
(`sdaxr.posterior.orbits`). Modes are clusters of exact draws and their images; a sample belongs to the mode of the
nearest one. *One image* is W1 over its floor where all samples and draws are replaced by the one of their images that
is nearer to the first exact draw: it does not see the shares of images.

*share by the prior*: the share of one of the two modes that are images of each other, which is one half, by the density
of the prior. The difference of log p of a trajectory x and of its image is (Kong, Brekelmans & Ver Steeg 2023,
arXiv:2302.03792)

    -1/2 * integral of E|x - xhat(x + r e)|^2 d(1 / r^2)

for x, less that for its image. The mean over exact draws gives the share. Rows that are in several.csv already are not
computed again; `report` writes several.md.
"""

from __future__ import annotations

import time
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import xarray as xr

import sdaxr
from sdaxr import operators as op
from sdaxr.inference.binding import bind_observations
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.orbits import Orbits

HERE = Path(__file__).parent
NAMES = ("a", "b", "c")
SCALE = 8.6
# Interval and error of each trajectory.
OBSERVED = [(6, 0.1), (3, 0.1), (4, 0.2), (5, 0.3), (6, 0.2), (8, 0.1), (3, 0.3), (4, 0.1)]
CASES: dict[str, Any] = {"assimilate": {}, "mixing=False": {"sampler": {"mixing": False}}, "exact": None}
# Sets of exact draws for comparison, and coins for each draw.
SETS, COINS = 4, 2
SIGNS = np.array([-1, -1, 1])
# Root mean square distance of a and b between draws of different modes, at least.
APART = 3.0
# Noise levels of the integral, and draws for its mean.
LEVELS, DRAWS = np.geomspace(60.0, 0.003, 60), 192


@click.group()
def main() -> None:
    """Compare with the exact posterior where it has several modes."""


@main.command()
@click.option("--store", default="lorenz63.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="lorenz63", help="Name or file.")
@click.option("--members", default=512, show_default=True)
@click.option("--length", default=41, show_default=True, help="Number of states.")
@click.option("--truths", default=len(OBSERVED), show_default=True)
@click.option("--case", "chosen", multiple=True, type=click.Choice(list(CASES)), help="Only these.")
@click.option("--output", type=Path, default=HERE)
def sample(
    store: str, prior: str, members: int, length: int, truths: int, chosen: tuple[str, ...], output: Path
) -> None:
    """Draw the posteriors, and write one row for each to several.csv."""
    trajectories, path, opened = sdaxr.open_archive(store), output / "several.csv", sdaxr.open_prior(prior)
    tests = np.flatnonzero(trajectories.split.values == "test")[:truths]
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for index, (every, error) in zip(map(int, tests), OBSERVED, strict=False):
        about = {"trajectory": index, "every": every, "error": error, "members": members}
        keys = [about | {"case": case} for case in chosen or CASES]
        waiting = [key for key in keys if not any(all(r[k] == v for k, v in key.items()) for r in rows)]
        if not waiting:
            continue
        truth = trajectories.isel(trajectory=index, time=slice(length)).load()
        seen = sdaxr.observe(truth, op.select("c"), every=every, error=error * SCALE, seed=index)
        how = {"members": members, "progress": False}
        exact = [seen.sda.assimilate(system="lorenz63", method="ffbs", seed=s, **how) for s in range(SETS + 1)]
        share = share_by_the_prior(opened, exact[0])
        for row in waiting:
            start = time.perf_counter()
            if CASES[row["case"]] is None:
                drawn = moved(exact[-1], opened, seen)
            else:
                drawn = seen.sda.assimilate(opened, seed=1, **how, **CASES[row["case"]])
                row |= {"seconds": time.perf_counter() - start, "evaluations": drawn.attrs["evaluations_per_member"]}
            row |= {"effective": drawn.attrs.get("effective_members", np.nan)}
            rows.append(row | compare(drawn, exact[:SETS]) | {"share_by_the_prior": share})
            pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)


@main.command()
@click.option("--output", type=Path, default=HERE)
def report(output: Path) -> None:
    """Tables of all trajectories, and of the means, in several.md."""
    table = pd.read_csv(output / "several.csv")
    heads = (
        "trajectory, every, error, samples, evaluations, W1 / floor, one image, largest difference, effective, "
        "share by the prior"
    )
    lines = [f"| {heads.replace(', ', ' | ')} |", "|" + "---|" * len(heads.split(", "))]
    for row in table.sort_values(["members", "trajectory", "case"]).itertuples():
        known = ["" if np.isnan(v) else f"{v:.0f}" for v in (row.evaluations, row.effective)]
        name = row.case if row.members == 512 else f"{row.case}, {row.members} samples"
        lines.append(
            f"| {row.trajectory} | {row.every} | {row.error} | {name} | {known[0]} | {row.ratio:.2f} "
            f"| {row.one_image:.2f} | {row.largest_difference:.3f} | {known[1]} | {row.share_by_the_prior:.2f} |"
        )
    lines += [
        "",
        "| samples | W1 / floor, mean | largest | one image, mean | largest | difference of shares, mean | largest "
        "| n |",
        "|" + "---|" * 8,
    ]
    for (members, case), rows in table.groupby(["members", "case"]):
        ratio, one, off = rows.ratio, rows.one_image, rows.largest_difference
        lines.append(
            f"| {case}, {members} | {ratio.mean():.2f} ± {ratio.sem():.2f} | {ratio.max():.2f} | {one.mean():.2f} "
            f"± {one.sem():.2f} | {one.max():.2f} | {off.mean():.3f} | {off.max():.3f} | {len(rows)} |"
        )
    (output / "several.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def compare(drawn: xr.Dataset, exact: list[xr.Dataset]) -> dict[str, float]:
    """W1 over its floor, and the largest difference of the shares of a mode from those of the exact draws."""
    sets, sample, random = [vectors(states) for states in exact], vectors(drawn), np.random.default_rng(0)
    tossed = [[np.where(random.random((len(x), 1)) < 0.5, mirrored(x), x) for x in sets] for _ in range(COINS)]
    floor, w1 = np.mean([distances(sample, each) for each in tossed], axis=0)
    one_floor, one_w1 = distances(folded(sample, sets[0][0]), [folded(x, sets[0][0]) for x in sets])
    known = np.concatenate([*sets, *map(mirrored, sets)])
    mode = modes(known)
    found, truth = (shares(states, known, mode) for states in (sample, known))
    return {
        "floor": float(floor),
        "ratio": float(w1 / floor),
        "one_image": float(one_w1 / one_floor),
        "modes": float((truth > 0.02).sum()),
        "largest_difference": float(np.abs(found - truth).max()),
    }


def moved(exact: xr.Dataset, prior: sdaxr.prior.files.Prior, seen: xr.Dataset) -> xr.Dataset:
    """Exact draws, moved among their images as posterior samples of the prior are."""
    observed = bind_observations(seen, op.select("c"), prior, exact.time, torch.device("cpu"))
    states = torch.as_tensor(prior.layout.to_array(exact))
    states = Orbits(prior.symmetries).moved(Likelihood([observed]), states, range(len(states)), seed=1, together=True)
    found = [prior.layout.to_physical(each, exact.time) for each in states.numpy()]
    return exact.assign({n: exact[n].copy(data=np.stack([each[n] for each in found])) for n in NAMES})


def share_by_the_prior(prior: sdaxr.prior.files.Prior, exact: xr.Dataset) -> float:
    """Share of the mode of the first draw, of this mode and its image, by the density of the prior."""
    states = exact.isel(member=slice(DRAWS))
    with xr.set_options(keep_attrs=True):
        mirrored = states.assign(a=-states.a, b=-states.b)
    hidden = vectors(states).reshape(DRAWS, -1, len(NAMES))[:, :, :2].reshape(DRAWS, -1)
    same = torch.as_tensor(hidden @ hidden[0] > 0)[:, None, None]
    one, other = (torch.as_tensor(prior.layout.to_array(each)) for each in (states, mirrored))
    x, image = torch.where(same, one, other), torch.where(same, other, one)
    denoise, random = prior.denoiser(exact.time, torch.device("cpu")), torch.Generator().manual_seed(0)
    signs, difference = torch.tensor([-1.0, -1.0, 1.0]), torch.zeros(len(x))
    with torch.no_grad():
        for r, after in pairwise(LEVELS.tolist()):
            middle, noise = (r * after) ** 0.5, torch.randn(x.shape, generator=random)
            for sign, given, e in ((1, x, noise), (-1, image, signs * noise)):
                error = (given - denoise(given + middle * e, middle)).square().flatten(1).sum(1)
                difference -= sign * error / 2 * (after**-2 - r**-2)
    return float(torch.sigmoid(difference.mean()))


def vectors(states: xr.Dataset) -> np.ndarray:
    """Trajectories in the units of the system, (member, time * component)."""
    stacked = np.stack([states[n].transpose("member", "time").values for n in NAMES], axis=-1)
    return stacked.reshape(len(stacked), -1)


def mirrored(draws: np.ndarray) -> np.ndarray:
    """The images of trajectories, with the other signs of a and b."""
    return (draws.reshape(len(draws), -1, len(NAMES)) * SIGNS).reshape(draws.shape)


def folded(draws: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The one of each trajectory and its image that is nearer to ``near``."""
    images = mirrored(draws)
    nearer = ((images - near) ** 2).sum(1) < ((draws - near) ** 2).sum(1)
    return np.where(nearer[:, None], images, draws)


def distances(sample: np.ndarray, sets: list[np.ndarray]) -> tuple[float, float]:
    """Mean distance of two sets of exact draws, and of the sample from a set."""
    floor = [distance(a, b) for a, b in combinations(sets, 2)]
    return float(np.mean(floor)), float(np.mean([distance(sample, each) for each in sets]))


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Wasserstein-1 distance between two sets of trajectories, with their Euclidean distance."""
    import ot  # POT, which nothing else needs

    costs = ot.dist(one, other, "euclidean")
    return float(ot.emd2(ot.unif(len(one)), ot.unif(len(other)), costs, numItermax=10**7))


def modes(draws: np.ndarray) -> np.ndarray:
    """Number of the cluster of each draw, from 0; clusters of average linkage in a and b."""
    from scipy.cluster.hierarchy import fcluster, linkage

    hidden = draws.reshape(len(draws), -1, len(NAMES))[:, :, :2].reshape(len(draws), -1)
    tree = linkage(hidden / np.sqrt(hidden.shape[1]), "average")
    return np.asarray(fcluster(tree, APART, "distance")) - 1


def shares(draws: np.ndarray, exact: np.ndarray, mode: np.ndarray) -> np.ndarray:
    """Share of the draws in each mode, by the nearest exact draw."""
    square = (draws**2).sum(1)[:, None] - 2 * draws @ exact.T + (exact**2).sum(1)
    return np.bincount(mode[square.argmin(1)], minlength=mode.max() + 1) / len(draws)


if __name__ == "__main__":
    main()

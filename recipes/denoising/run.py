"""Denoising velocity fields of Kolmogorov flow: the posterior, Langevin steps, a Gaussian and two Wiener filters.

Writes results.csv, results.md and results.png beside this file (or to --output); see README.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import scipy.ndimage
import xarray as xr

import sdaxr

SIGNAL, NOISE = 0.7, 0.4  # the students' mixture
STEP_SIZES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)  # in units of the square of the score's noise level
STEPS = (1, 3, 10, 30, 100, 300)
SIGMAS = np.arange(0.3, 3.01, 0.1)  # grid cells

Fields = np.ndarray  # (window, time, variable, y, x), normalised: mean 0 and standard deviation 1 over the training


@click.command()
@click.option("--prior", default="kolmogorov", show_default=True, help="Name of a shipped prior, or file.")
@click.option("--trajectories", default="kolmogorov.zarr", show_default=True, help="Archive of sdaxr.generate.")
@click.option("--windows", default=8, show_default=True, help="Windows, each from a trajectory of its own if possible.")
@click.option("--states", default=8, show_default=True, help="States a window.")
@click.option("--members", default=8, show_default=True, help="Posterior samples that are averaged.")
@click.option("--level", default=0.1, show_default=True, help="Noise level of the score of the Langevin steps.")
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="Few steps: only to see that it runs.")
@click.option("--output", type=Path, default=Path(__file__).parent, help="Folder of the results.")
def main(
    prior: str,
    trajectories: str,
    windows: int,
    states: int,
    members: int,
    level: float,
    seed: int,
    quick: bool,
    output: Path,
) -> None:
    """Run both studies and compare with the filters."""
    model = sdaxr.open_prior(prior)
    data = sdaxr.open_archive(trajectories)
    training = normalise(model, cut(data, "train", 16 * windows, states, seed))
    clean = cut(data, "test", windows, states, seed + 1)
    truth = normalise(model, clean)
    ratio = NOISE / SIGNAL
    # SIGNAL * x + NOISE * noise, divided by SIGNAL.
    noisy = truth + ratio * np.random.default_rng(seed + 2).normal(size=truth.shape).astype(np.float32)
    labelled = physical(model, noisy, clean)
    stds = {v: ratio * float(s) for v, s in zip(model.layout.variables, model.layout.std.ravel(), strict=True)}
    rows: list[dict] = []

    def add(study: str, method: str, setting: float, make: Callable[[], Fields]) -> None:
        start = time.perf_counter()
        result = make()
        seconds = time.perf_counter() - start
        rows.append({"study": study, "method": method, "setting": setting, **score(result, truth), "seconds": seconds})
        line = "{study:10s} {method:28s} {setting:8.4g}  MSE {mse:.4f} ± {mse_sd:.4f}  PSNR {psnr:.2f} ± {psnr_sd:.2f}"
        print(line.format(**rows[-1]), f" {seconds:.0f} s", flush=True)

    def langevin(step_size: float, steps: int) -> Callable[[], Fields]:
        options = {"step_size": step_size * level**2, "steps": steps, "level": level, "seed": seed}
        return lambda: normalise(model, sdaxr.denoise(labelled, model, error=stds, method="langevin", **options))

    def posterior(count: int) -> Callable[[], Fields]:
        def mean() -> Fields:
            levels = 4 if quick else None
            drawn = sdaxr.denoise(labelled, model, error=stds, members=count, steps=levels, seed=seed)
            return normalise(model, drawn.mean("member", keep_attrs=True) if count > 1 else drawn)

        return mean

    known = training[:windows]
    noisy_training = known + ratio * np.random.default_rng(seed + 3).normal(size=known.shape)
    best = min(SIGMAS, key=lambda s: float(((gaussian(noisy_training, s) - known) ** 2).mean()))
    add("comparison", "noisy", np.nan, lambda: noisy)
    add("comparison", "Gaussian filter", best, lambda: gaussian(noisy, best))
    add("comparison", "Wiener filter, space", np.nan, lambda: wiener(noisy, training, ratio, in_time=False))
    add("comparison", "Wiener filter, space and time", np.nan, lambda: wiener(noisy, training, ratio, in_time=True))
    add("comparison", "posterior, one sample", 1, posterior(1))
    add("comparison", "posterior mean", members, posterior(members))
    fixed, longest = (5, 10) if quick else (100, 300)
    for step_size in STEP_SIZES:
        add("step size", f"Langevin, {fixed} steps", step_size, langevin(step_size, fixed))
    for steps in (n for n in STEPS if n <= longest):
        add("steps", "Langevin, step size 0.1", steps, langevin(0.1, steps))
    output.mkdir(parents=True, exist_ok=True)
    write(rows, output)
    picture(rows, output)


def cut(data: xr.Dataset, split: str, windows: int, states: int, seed: int) -> xr.Dataset:
    """Random windows of one split, (trajectory, time, y, x), all labelled with the first times of the data."""
    which = np.flatnonzero(data["split"].values == split)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(np.tile(which, -(-windows // which.size)))[:windows])
    starts = random.integers(data.sizes["time"] - states + 1, size=windows)
    times = data["time"][:states]
    parts = [
        data.isel(trajectory=int(i), time=slice(int(s), int(s) + states)).assign_coords(time=times).drop_vars(
            ["trajectory", "split", "status"], errors="ignore"
        )
        for i, s in zip(chosen, starts, strict=True)
    ]  # fmt: skip
    return xr.concat(parts, "trajectory").load()


def normalise(model: sdaxr.prior.Prior, data: xr.Dataset) -> Fields:
    """Fields in units of the prior's standard deviations."""
    return model.layout.to_array(data)


def physical(model: sdaxr.prior.Prior, fields: Fields, like: xr.Dataset) -> xr.Dataset:
    """Normalised fields with the labels of ``like``."""
    dims = ("trajectory", "time", *model.layout.space)
    values = model.layout.to_physical(fields, like.time)
    return like.assign({v: (dims, a, model.layout.attrs[v]) for v, a in values.items()})


def gaussian(fields: Fields, sigma: float) -> Fields:
    """Gaussian filter of each field, periodic."""
    return scipy.ndimage.gaussian_filter(fields, (0, 0, 0, sigma, sigma), mode="wrap")


def wiener(fields: Fields, training: Fields, ratio: float, *, in_time: bool) -> Fields:
    """The best linear filter of stationary periodic fields, each variable alone, from the spectrum of the training.

    Fourier coefficients of different wavenumbers are uncorrelated; those of one wavenumber at the times of a window
    have a covariance C (time, time), which is diagonal when ``in_time`` is False. The filter is C (C + n I)^-1, where n
    is the power of the noise.
    """
    cells = fields.shape[-1] * fields.shape[-2]
    known, coefficients = np.fft.fft2(training), np.fft.fft2(fields)
    covariance = np.einsum("wtvyx,wsvyx->vyxts", known, known.conj()) / len(known)
    length = fields.shape[1]
    if not in_time:
        power = np.einsum("vyxtt->vyx", covariance).real / length
        covariance = power[..., None, None] * np.eye(length)
    gain = np.linalg.solve(covariance + ratio**2 * cells * np.eye(length), covariance)
    # C and C + n I commute, so the order does not matter.
    return np.fft.ifft2(np.einsum("vyxts,wsvyx->wtvyx", gain, coefficients)).real


def score(fields: Fields, truth: Fields) -> dict[str, float]:
    """MSE and PSNR (peak: range of the true field) of each state, mean and standard deviation over states."""
    mse = ((fields - truth) ** 2).mean((-3, -2, -1))
    peak = np.ptp(truth, axis=(-3, -2, -1))
    psnr = 10 * np.log10(peak**2 / np.maximum(mse, 1e-12))
    return {"mse": mse.mean(), "mse_sd": mse.std(), "psnr": psnr.mean(), "psnr_sd": psnr.std(), "fields": mse.size}


def write(rows: list[dict], output: Path) -> None:
    """results.csv and results.md."""
    keys = list(rows[0])
    lines = [",".join(keys), *(",".join(_text(row[k]) for k in keys) for row in rows)]
    (output / "results.csv").write_text("\n".join(lines) + "\n")
    table = ["| study | method | setting | MSE | PSNR (dB) | seconds |", "|---|---|---|---|---|---|"]
    for row in rows:
        setting = "" if np.isnan(row["setting"]) else f"{row['setting']:.3g}"
        line = "| {study} | {method} | {0} | {mse:.4f} ± {mse_sd:.4f} | {psnr:.2f} ± {psnr_sd:.2f} | {seconds:.0f} |"
        table.append(line.format(setting, **row))
    (output / "results.md").write_text("\n".join(table) + "\n")


def _text(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return "" if np.isnan(value) else f"{value:.6g}"


def picture(rows: list[dict], output: Path) -> None:
    """results.png: both studies with the filters as lines."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    names = {"step size": "step size / level²", "steps": "number of steps"}
    for axis, (study, label) in zip(axes, names.items(), strict=True):
        found = [row for row in rows if row["study"] == study]
        x, y, sd = ([row[k] for row in found] for k in ("setting", "psnr", "psnr_sd"))
        axis.errorbar(x, y, sd, marker="o", capsize=3, label="Langevin")
        for i, row in enumerate(_lines(rows)):
            axis.axhline(row["psnr"], color=f"C{i + 1}", linestyle="--", label=row["method"])
        axis.set(xscale="log", xlabel=label, title=found[0]["method"])
    axes[0].set_ylabel("PSNR (dB)")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(output / "results.png", dpi=110)


def _lines(rows: list[dict]) -> Iterator[dict]:
    return (row for row in rows if row["study"] == "comparison" and "one sample" not in row["method"])


if __name__ == "__main__":
    main()

"""What the LETKF needs to follow quasi-geostrophic turbulence: single analyses and cycles of the first truth.

    python recipes/ensemble_filters/flows.py generate --store flows
    python recipes/ensemble_filters/tries.py single --store flows      # single.csv, two minutes
    python recipes/ensemble_filters/tries.py cycles --store flows      # tries.csv, three minutes

The climate is the same everywhere (beta plane, periodic), so that its covariance is diagonal in waves: one matrix of
two layers for each. Optimal interpolation with it is what an ensemble of the climate has without limit. Errors are in
standard deviations of the climate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from climates import Climate, means, read
from flows import CELLS, FLOWS, Run, draw_members, measure, save

from sdaxr import operators as op
from sdaxr.filters.binding import build_model
from sdaxr.filters.ensemble import Forecast
from sdaxr.filters.letkf import LETKF
from sdaxr.filters.state_space import StateObservation, StateSpaceModel

HERE = Path(__file__).parent
NAME = "quasigeostrophic"
# Members, and halves of the distance beyond which observations do not act, in m, of single analyses.
MEMBERS, HALVES = (28, 76, 200), (3e4, 5e4, 8e4, 1.2e5)
# Members and options of cycles.
CYCLES: tuple[tuple[int, dict[str, Any]], ...] = (
    (28, {"localisation": 1e5, "inflation": 1.1}),
    (28, {"localisation": 5e4, "inflation": 1.1}),
    (28, {"localisation": 4e4, "rtpp": 0.5}),
)
STORE = click.option("--store", type=Path, default="flows", show_default=True, help="A directory.")


@click.group()
def main() -> None:
    """Try the LETKF on quasi-geostrophic turbulence."""
    torch.set_num_threads(1)


@main.command()
@STORE
@click.option("--output", type=Path, default=HERE / "single.csv", show_default=True)
def single(store: Path, output: Path) -> None:
    """Analyses of the first observations, beside optimal interpolation in closed form."""
    climate = read(store, NAME)
    states = means(climate.states, CELLS).q.values.astype(float)
    mean, expected = interpolation(model_of(climate, 2).observations[0], spectra(states))
    rows: list[dict[str, Any]] = [{"method": "oi"} | errors(mean, expected, climate)]
    for members in MEMBERS:
        for half in HALVES:
            found = analysed(LETKF(localisation=half), model_of(climate, members))
            about = {"method": "letkf", "members": members, "localisation": half}
            rows.append(about | errors(found.mean(0), found.std(0, ddof=1), climate))
    pd.DataFrame(rows).convert_dtypes().to_csv(output, index=False, float_format="%.4g")


@main.command()
@STORE
@click.option("--output", type=Path, default=HERE / "tries.csv", show_default=True)
def cycles(store: Path, output: Path) -> None:
    """Whole windows with other options and numbers of members."""
    climate = read(store, NAME)
    for members, options in CYCLES:
        run = Run("letkf", members, LETKF(**options), "the truth's")
        found, seconds = draw_members(FLOWS[NAME], run, climate, 0)
        text = ", ".join(f"{key}={value:g}" for key, value in options.items())
        parts = measure(FLOWS[NAME], found, climate, 0)
        save([{"members": members, "options": text} | part | {"seconds": seconds} for part in parts], output)


def model_of(climate: Climate, members: int) -> StateSpaceModel:
    """The first truth, observed as in `flows`, with an ensemble of the climate."""
    flow, truth = FLOWS[NAME], means(climate.truths.isel(truth=0), CELLS)
    system = flow.models["the truth's"]
    first = system.to_vectors({"q": climate.ensemble(system, members, 0).q.values})
    return build_model({"": flow.observe(truth, 0)}, {"": flow.operator}, system, truth.time, first=first)[0]


def analysed(method: LETKF, model: StateSpaceModel) -> np.ndarray:
    """The first ensemble given the first observations, (members, layer, y, x)."""
    assert model.first is not None and model.observations[0] is not None
    forecast = Forecast(model.first, model.observations[0], method.points(model), np.random.default_rng(0))
    return method.analyse(forecast)(forecast.states).reshape(-1, 2, CELLS, CELLS)


def spectra(states: np.ndarray) -> np.ndarray:
    """Covariances of the layers by wave, (2, 2, y, x), of states (count, 2, y, x), all places alike."""
    waves = np.fft.fft2(states - states.mean((2, 3), keepdims=True))
    found: np.ndarray = np.einsum("kiyx,kjyx->ijyx", waves, waves.conj()) / len(states) / states[0, 0].size
    return found


def product(covariance: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The covariance with these spectra times vectors (count, n)."""
    waves = np.fft.fft2(vectors.reshape(-1, *covariance.shape[1:]))
    found: np.ndarray = np.fft.ifft2(np.einsum("ijyx,kjyx->kiyx", covariance, waves)).real
    return found.reshape(vectors.shape)


def interpolation(observation: StateObservation, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optimal interpolation of linear observations: the mean and its expected error, (layer, y, x) each."""
    shape = covariance.shape[1:]
    origin = torch.zeros((1, covariance[0].size), dtype=torch.float64, requires_grad=True)
    predicted = observation.operator(origin)[0]
    rows = np.stack([torch.autograd.grad(p, origin, retain_graph=True)[0][0].numpy() for p in predicted])
    cross = product(covariance, rows)
    gain = np.linalg.solve(cross @ rows.T + np.diag(observation.errors.std**2), cross)
    mean = gain.T @ (observation.values - predicted.detach().numpy())
    before = np.fft.ifft2(covariance[[0, 1], [0, 1]]).real[:, :1, :1]
    return mean.reshape(shape), np.sqrt(before - (gain * cross).sum(0).reshape(shape))


def errors(mean: np.ndarray, spread: np.ndarray, climate: Climate) -> dict[str, float]:
    """Errors and spread of q over both layers, and errors of the streamfunction by layer."""
    states, truth = means(climate.states, CELLS), means(climate.truths.isel(truth=0, time=0), CELLS)
    away = truth.copy(data={"q": mean - truth.q.values})
    invert = op.pv_inversion("streamfunction")
    variance = states.q.var(["state", "y", "x"])
    found = {
        "q": np.sqrt((away.q**2 / variance).mean().item()),
        "spread": np.sqrt((truth.q.copy(data=spread) ** 2 / variance).mean().item()),
    }
    psi, natural = (invert.apply(each).streamfunction for each in (away, states))
    ratio = np.sqrt((psi**2).mean(["y", "x"]) / natural.var(["state", "y", "x"]))
    return found | {f"psi_{i}": float(ratio.sel(layer=i)) for i in (1, 2)}


if __name__ == "__main__":
    main()

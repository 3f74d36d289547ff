"""What is left of the noise of test windows: by Wiener's filter of states, by that of windows, and by the network.

python recipes/quasigeostrophic/run.py generate --store qg.zarr
python recipes/quasigeostrophic/denoisers.py --store qg.zarr
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd
import torch
from setting import windows

import sdaxr

HERE = Path(__file__).parent
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 6.0, 12.0, 25.0)


@click.command()
@click.option("--store", default="qg.zarr", help="Archive of `run.py generate`.")
@click.option("--prior", default="quasigeostrophic", help="Name or file of a prior of the states.")
@click.option("--count", default=9, show_default=True, help="Test windows.")
@click.option("--output", type=Path, default=HERE / "denoisers.csv", show_default=True)
def main(store: str, prior: str, count: int, output: Path) -> None:
    """Write the RMSE of each at each noise level, in standard deviations of the states."""
    opened = sdaxr.open_prior(prior)
    network, modes = opened.network, opened.network.modes
    assert modes is not None
    truths = [w.load() for w in windows(sdaxr.open_archive(store), count, states=opened.window)]
    states = torch.stack([torch.as_tensor(opened.layout.to_array(w)) for w in truths])
    context = torch.as_tensor(opened.layout.context_array(truths[0].time))[None]
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for r in LEVELS:
        z, levels = states + r * noise, torch.full((len(states),), r)
        with torch.no_grad():
            found = {
                "states": modes.inverse(modes.variances / (modes.variances + r**2) * modes(z)),
                "windows": modes.filter(z, levels),
                "network": network(z, levels, context),
            }
        rows.append({"r": r} | {name: float((x - states).square().mean().sqrt()) for name, x in found.items()})
    table = pd.DataFrame(rows)
    table.to_csv(output, index=False, float_format="%.4f")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()

"""Animations: the panels of a figure over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sdaxr.archives.paths import Location, located
from sdaxr.archives.stores import written_to
from sdaxr.plotting.plot import Update, draw
from sdaxr.schema import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Most frames of an animation, 50 s at the default rate; of more times, every n-th is drawn.
_FRAMES = 400


def animate(
    data: xr.Dataset,
    path: str | PathLike[str],
    *,
    truth: xr.Dataset | None = None,
    observations: xr.Dataset | None = None,
    variable: str | None = None,
    fps: float = 8,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Write an animated GIF: the panels of `sdaxr.plot` side by side, with one member, over time.

    Parameters
    ----------
    data, truth, observations, variable
        As for `sdaxr.plot`.
    path
        Path or URL to write, ending in ``.gif``.
    fps
        Frames per second.
    storage_options
        Options of the file system of ``path`` (fsspec).

    Returns
    -------
    Path or URL of the file that was written.

    Raises
    ------
    DataError
        If ``path`` does not end in ``.gif`` or ``fps`` is not positive; else as `sdaxr.plot`.
    """
    target = located(path, storage_options)
    if target.suffix.lower() != ".gif":
        raise DataError(f"cannot write an animation to '{target.name}', expected a name that ends in .gif")
    if fps <= 0:
        raise DataError(f"fps is {fps}, expected more than zero frames per second")
    with written_to(target) as file:
        figure, update = draw(data, truth, observations, variable, None, 1, animated=True)
        step = -(-update.frames // _FRAMES)
        _write_gif((_render(figure, update, i) for i in range(0, update.frames, step)), file, fps)
    return target


def _render(figure: Figure, update: Update, frame: int) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    update.move(frame)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()
    if frame == 0:
        # The layout is solved once, so that only the fields move.
        figure.set_layout_engine("none")
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _write_gif(frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    # All frames share one palette: with several, colours flicker.
    sample = [np.asarray(images[i]) for i in np.unique(np.linspace(0, len(images) - 1, 6).astype(int))]
    palette = Image.fromarray(np.concatenate(sample)).quantize(256, method=Image.Quantize.MEDIANCUT)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=round(1000 / fps), loop=0)

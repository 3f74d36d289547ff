"""From means over coarse cells to a finer grid, in Fourier space."""

from __future__ import annotations

import math

import numpy as np


def refine(mean: np.ndarray, factor: int, face: int | None = None) -> np.ndarray:
    """Values on a grid that is finer by a factor, whose block means are those given.

    The damping of each wave by the mean over a block is divided out; waves that the coarse grid does not hold start
    at zero. Its shortest one has no phase, and is left out where it would have to be shifted.

    Parameters
    ----------
    mean
        Means over square blocks of a doubly periodic square, shape (..., n, n).
    factor
        Fine cells in a block, along a side.
    face
        None for values at the centres of fine cells; 0 or 1 if the block means are those of the mean over the two faces
        of a cell along that of the last two axes, and the values are wanted on its upper face.

    Returns
    -------
    Shape (..., n factor, n factor), in double precision.
    """
    if factor == 1 and face is None:
        return np.asarray(mean, float)
    cells = mean.shape[-1]
    spectrum = np.fft.fft2(mean) * factor**2
    wavenumbers = np.rint(np.fft.fftfreq(cells, 1 / cells)).astype(int)
    kept = np.flatnonzero(2 * np.abs(wavenumbers) < cells)
    fine = cells * factor
    half_cell = wavenumbers[kept] * math.pi / fine
    for axis in (0, 1):
        to_face = axis == face
        block = np.sinc(factor * half_cell / math.pi) / np.sinc(half_cell / math.pi)
        damping = block * np.cos(half_cell) if to_face else block
        shift = np.exp(1j * half_cell * ((2 if to_face else 1) - factor))
        # Without coarsening the mean of two faces nearly removes the shortest waves: do not blow them up.
        along = shift / np.maximum(damping, 0.3)
        spectrum = np.take(spectrum, kept, axis - 2) * (along[:, None] if axis == 0 else along)
    rows = wavenumbers[kept] % fine
    padded = np.zeros((*mean.shape[:-2], fine, fine), complex)
    padded[..., rows[:, None], rows] = spectrum
    return np.fft.ifft2(padded).real

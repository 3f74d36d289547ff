"""Interpolation from means over coarse cells to a finer grid, in Fourier space."""

from __future__ import annotations

import math

import numpy as np


def refine(mean: np.ndarray, factor: int, face: int | None = None) -> np.ndarray:
    """Values on a grid that is finer by a factor, with the given block means.

    The damping of each wave by the mean over a block is divided out. Waves that the coarse grid does not resolve are
    zero. So is its shortest wave, of two cells, because its phase is not known. For ``factor=1`` without ``face``, the
    values are the means themselves.

    Parameters
    ----------
    mean
        Means over square blocks of a doubly periodic square, shape (..., n, n).
    factor
        Number of fine cells along each side of a block.
    face
        None: the values are at the centres of the fine cells. 0 or 1: the values are on the upper faces of the fine
        cells along this one of the last two axes, and ``mean`` is the block mean of the means over the two faces of
        each fine cell.

    Returns
    -------
    Array of shape (..., n factor, n factor), in double precision.
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
        # For factor 1 the mean of two faces nearly removes the shortest waves: amplify none by more than 1 / 0.3.
        along = shift / np.maximum(damping, 0.3)
        spectrum = np.take(spectrum, kept, axis - 2) * (along[:, None] if axis == 0 else along)
    rows = wavenumbers[kept] % fine
    padded = np.zeros((*mean.shape[:-2], fine, fine), complex)
    padded[..., rows[:, None], rows] = spectrum
    return np.fft.ifft2(padded).real

"""Fields refined from the means of blocks, and faces from the means of cells."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr.systems.refinement import refine


def block_means(fine: np.ndarray, factor: int) -> np.ndarray:
    n = fine.shape[-1] // factor
    return fine.reshape(*fine.shape[:-2], n, factor, n, factor).mean((-3, -1))


def waves(cells: int, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """cos(2 x - y) + 0.5 sin(3 y) + 1 at the centres of cells, or so much of a cell beside them; shape (2, n, n)."""
    y, x = ((np.arange(cells) + 0.5 + s) * 2 * np.pi / cells for s in shift)
    field = np.cos(2 * x - y[:, None]) + 0.5 * np.sin(3 * y[:, None]) + 1
    return np.stack([field, -2 * field])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_long_waves_come_back_at_the_centres(factor: int) -> None:
    fine = waves(16 * factor)
    np.testing.assert_allclose(refine(block_means(fine, factor), factor), fine, atol=1e-10)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("face", [0, 1])
def test_faces_whose_means_over_cells_are_known(factor: int, face: int) -> None:
    """The value of a cell is the mean over its lower and its upper face; the upper ones are returned."""
    shift = [0.0, 0.0]
    shift[face] = 0.5
    faces = waves(16 * factor, tuple(shift))
    cells = (faces + np.roll(faces, 1, face - 2)) / 2
    np.testing.assert_allclose(refine(block_means(cells, factor), factor, face), faces, atol=1e-10)


def test_any_means_come_back_but_for_the_shortest_wave() -> None:
    means = np.random.default_rng(0).normal(size=(3, 15, 15))
    np.testing.assert_allclose(block_means(refine(means, 4), 4), means, atol=1e-10)
    np.testing.assert_array_equal(refine(means, 1), means)
    checkered = np.indices((16, 16)).sum(0) % 2 - 0.5
    np.testing.assert_allclose(refine(checkered, 2), 0, atol=1e-12)

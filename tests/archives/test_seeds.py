"""Seeds of units: fixed numbers, and no two alike."""

from __future__ import annotations

import numpy as np

from sdaxr.archives.seeds import unit_seed


def test_unit_seeds_differ() -> None:
    seeds = {unit_seed(seed, index) for seed in range(20) for index in range(200)}
    assert len(seeds) == 4000
    assert len({unit_seed(0, 1), unit_seed(1, 0), unit_seed(0, 1, 1)}) == 3


def test_numbers_are_those_of_the_seed_sequence() -> None:
    assert unit_seed(3, 5, 1) == np.random.SeedSequence((3, 5, 1)).generate_state(1, np.uint64)[0]
    # Streams of torch take 63 bits of it, or the lower 32.
    assert unit_seed(3, 5) % 2**32 == np.random.SeedSequence((3, 5)).generate_state(1)[0]

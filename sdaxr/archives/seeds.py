"""Seeds of random streams that are independent of each other."""

from __future__ import annotations

import numpy as np


def unit_seed(seed: int, *index: int) -> int:
    """Seed of one unit of work, an integer of 64 bits.

    Every combination of ``seed`` and ``index`` (the number of a trajectory or member, of an attempt) has a stream of
    its own, so that a unit does not depend on which other units there are. The words are mixed by
    `numpy.random.SeedSequence`, to which (seed, i) and (seed, i, 0) are the same.
    """
    return int(np.random.SeedSequence((seed, *index)).generate_state(1, np.uint64)[0])

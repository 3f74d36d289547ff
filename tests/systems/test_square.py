"""The cells of flows on a square."""

from __future__ import annotations

import numpy as np
import pytest

from sdaxr.schema import OptionError
from sdaxr.systems.kolmogorov import Kolmogorov
from sdaxr.systems.quasigeostrophic import QuasiGeostrophic
from sdaxr.systems.square import Square


@pytest.mark.parametrize(("kind", "units", "named"), [(Kolmogorov, "1", False), (QuasiGeostrophic, "m", True)])
def test_cells_are_blocks_of_the_solver(kind: type[Square], units: str, named: bool) -> None:
    flow = kind(resolution=32, coarsen=4)
    state = flow.template()
    for name in ("y", "x"):
        np.testing.assert_allclose(state[name], (np.arange(8) + 0.5) * flow.length / 8)
        attrs = {"units": units, "long_name": f"{name} of the cell centre", "axis": name.upper(), "periodic": 1}
        attrs |= {"standard_name": f"projection_{name}_coordinate"} if named else {}
        assert state[name].attrs == attrs | {"period": flow.length}
    with pytest.raises(OptionError, match="resolution=33 and coarsen=4; expected a resolution .*, such as 32"):
        kind(resolution=33, coarsen=4)

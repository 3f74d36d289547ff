"""Results as texts, which commands print."""

from __future__ import annotations

import numpy as np
import xarray as xr


def table(scores: xr.Dataset) -> str:
    """The mean over time of the scores of `verify`, as a text with units."""
    from sdaxr.verification.verify import summary

    frame = summary(scores)
    units = frame.attrs.get("units", {})
    labelled = frame.rename(columns=lambda name: f"{name} [{units.get(name, '1')}]")
    return str(labelled.to_string(float_format="%.4g"))


def statuses(found: xr.Dataset | xr.DataTree) -> str:
    """The number of values of each status of `report`, by variable (and network), as a text."""
    import pandas as pd

    from sdaxr.observations.screening import STATUS

    tree = found if isinstance(found, xr.DataTree) else xr.DataTree(found)
    counts = {}
    for node in tree.leaves:
        network, data = node.path.strip("/"), node.to_dataset()
        for name in (str(n) for n in data.data_vars if f"{n}_status" in data):
            number = np.bincount(data[f"{name}_status"].values.ravel(), minlength=len(STATUS))
            counts[f"{network} {name}".strip()] = dict(zip(STATUS.values(), number, strict=True))
    return str(pd.DataFrame(counts).to_string())


def calibration(result: xr.Dataset) -> str:
    """One screen of text about the result of `calibrate`."""
    from sdaxr.verification.verdict import describe

    return describe(result)

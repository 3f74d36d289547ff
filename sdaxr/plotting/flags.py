"""Flags as categories: variables whose attributes ``flag_values`` and ``flag_meanings`` (CF) name each value."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def meanings(field: xr.DataArray) -> dict[float, str]:
    """What each value of ``field`` means; empty if it is no flag."""
    values, texts = field.attrs.get("flag_values"), str(field.attrs.get("flag_meanings", "")).split()
    if values is None or isinstance(values, str) or not texts:
        return {}
    return {float(value): text.replace("_", " ") for value, text in zip(np.atleast_1d(values), texts, strict=False)}


def numbered(field: xr.DataArray) -> xr.DataArray:
    """``field`` with the number of each value in the place of the value, from 0; NaN for values without meaning."""
    known = np.array(sorted(meanings(field)))
    values = field.values.astype(float)
    place = np.searchsorted(known, values).clip(0, known.size - 1)
    return field.copy(data=np.where(known[place] == values, place, np.nan))


def scale(texts: tuple[str, ...]) -> dict[str, Any]:
    """Colour map and limits of numbered flags."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colours = colormaps["tab10" if len(texts) <= 10 else "tab20"]
    listed = [colours(i % 20) for i in range(len(texts))]
    return {"cmap": ListedColormap(listed), "vmin": -0.5, "vmax": len(texts) - 0.5, "extend": "neither"}

"""Attributes that every file can hold: texts, numbers, and lists of texts or of numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def plain(data: xr.Dataset) -> xr.Dataset:
    """``data`` with attributes that JSON, Zarr and NetCDF can hold, those of its variables too.

    A truth value becomes 1 or 0, a time its ISO text, a type its name, a mapping or a mixed list its JSON; anything
    else its text. An attribute that is None says nothing and is left out.
    """
    result = data.assign_attrs()
    result.attrs = plain_attrs(data.attrs)
    for name, variable in data.variables.items():
        result[name].attrs = with_typed_flags(plain_attrs(variable.attrs), variable.dtype)
    return result


def with_typed_flags(attrs: dict[Any, Any], dtype: np.dtype) -> dict[Any, Any]:
    """Attributes of a variable of whole numbers whose flags have its type, as CF demands; JSON has one type only."""
    flags = {key: attrs[key] for key in ("flag_values", "flag_masks") if not isinstance(attrs.get(key), str | None)}
    return attrs | {key: np.asarray(value).astype(dtype) for key, value in flags.items() if dtype.kind in "iu"}


def plain_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that every file can hold, as `plain` has them."""
    return {str(key): _plain(value) for key, value in attrs.items() if value is not None}


def _plain(value: Any) -> Any:
    value = _scalar(value)
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.ndim == 1 else json.dumps(value.tolist(), default=_text)
    if isinstance(value, list | tuple):
        parts = [_scalar(part) for part in value]
        alike = all(isinstance(p, str) for p in parts) or all(isinstance(p, int | float) for p in parts)
        return parts if parts and alike else json.dumps(parts, default=_text)
    return value if isinstance(value, str | int | float) else _text(value)


def _scalar(value: Any) -> Any:
    """A truth value or number of numpy as one of Python; a whole number that no file holds as text."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.generic) and value.dtype.kind in "biufUS":
        value = value.item()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):  # dates and times of Python, pandas and cftime
        return str(value.isoformat())
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, Mapping):
        return json.dumps({str(key): _json_ready(each) for key, each in value.items()})
    return str(value)


def _json_ready(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_ready(each) for key, each in value.items()}
    value = _scalar(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else _plain(value)

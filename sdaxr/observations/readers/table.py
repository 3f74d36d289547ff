"""Tables: CSV and other text files, Parquet, and DataFrames, with a row for each measurement.

A table is wide (a column for each variable) or long (the columns ``observation`` and ``variable``, as in the data
frames of earth2studio). Lines that begin with ``#`` before the header are comments. Times are ISO dates, in UTC where
they name no other zone.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.observations.places import OBS
from sdaxr.observations.readers.roles import LABELS, with_units_of_header
from sdaxr.schema import TIME, ArchiveError, DataError

TEXT = (".csv", ".tsv", ".txt", ".dat")
PARQUET = (".parquet", ".pq")
# Characters of a line of a table, of which the longest have some thousands.
_LONGEST = 1 << 20
_COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def is_table(source: Any) -> bool:
    """Whether the source is a DataFrame or the path of a table."""
    if isinstance(source, Path):
        return _suffix(source) in (*TEXT, *PARQUET)
    return hasattr(source, "columns") and hasattr(source, "to_numpy")


def read_table(source: Any) -> xr.Dataset:
    """The columns of a table, on (obs).

    Raises
    ------
    ArchiveError
        If the file cannot be read, or Parquet needs a package that is not installed.
    DataError
        If the table has no row, or two columns of one name.
    """
    frame = _opened(source) if isinstance(source, Path) else source
    if frame.columns.nlevels > 1:
        raise DataError(f"the table has {frame.columns.nlevels} levels of column names, expected one; join them first")
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    elif frame.index.dtype.kind == "M":
        frame = frame.rename_axis(index=TIME).reset_index()
    names = [str(c).strip() for c in frame.columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"the table has several columns named {twice}, expected one of each; rename them")
    if len(frame) == 0:
        raise DataError(f"the table has the columns {names} and no row, expected at least one")
    columns = {name: (OBS, _values(frame.iloc[:, i])) for i, name in enumerate(names)}
    return with_units_of_header(xr.Dataset(columns))


def _opened(path: Path) -> Any:
    import pandas as pd

    try:
        if _suffix(path) in PARQUET:
            if not any(importlib.util.find_spec(name) for name in ("pyarrow", "fastparquet")):
                raise ArchiveError(f"'{path}' is Parquet, which needs pyarrow; pip install 'sdaxr[parquet]'")
            return pd.read_parquet(path)
        comments, header = _header(path)
        separator = max((",", ";", "\t"), key=header.count)
        separator = separator if separator in header else r"\s+"
        names = [n.strip() for n in header.split(separator if separator != r"\s+" else None)]
        # Numbers of stations are names: 03772 is not 3772.
        labels = {n: str for n in names if n.lower().strip('"') in LABELS}
        return pd.read_csv(
            path, sep=separator, skiprows=comments, skipinitialspace=True, dtype=labels, low_memory=False
        )
    except ArchiveError:
        raise
    except FileNotFoundError as error:
        raise ArchiveError(f"there is nothing at '{path}'; expected a table") from error
    except Exception as error:  # pandas and its engines raise whatever they like on a broken file
        raise ArchiveError(f"'{path}' cannot be read as a table: {error}") from error


def _header(path: Path) -> tuple[int, str]:
    """Number of lines with comments, and the line of the header."""
    # Without the byte order mark that spreadsheets write.
    with _COMPRESSED.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), "")):
            if len(line) == _LONGEST or "\0" in line:
                raise ValueError(f"its line {number + 1} is no text, or has {_LONGEST:,} characters and more")
            if line.strip() and not line.startswith("#"):
                return number, line.strip()
    raise ArchiveError(f"'{path}' is empty, expected a line with the names of the columns")


def _values(column: Any) -> np.ndarray:
    """Numbers, times without a zone, or texts as objects, with None where there is none."""
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if column.dtype.kind in "fiumM":
        if isinstance(column.dtype, np.dtype):
            return np.array(column.to_numpy())
        return np.array(column.to_numpy(float, na_value=np.nan))
    return np.asarray(column.astype(object).where(column.notna(), None).to_numpy(object))


def _suffix(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""

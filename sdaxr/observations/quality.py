"""Quality flags: which values are good.

The flags of a variable are ``<variable>_qc``, and those of its ancillary variables whose CF standard name ends in
``status_flag`` or ``quality_flag``. A value is used if each of its flags is good. Which flags are good is found, in
this order,

- in ``good=`` of `sdaxr.observations.screening.Screening`;
- in the words of ``flag_meanings``, for ``flag_values``, ``flag_masks`` or both (CF conventions 1.11, section 3.5);
- in the convention that an attribute of the flags, or ``Conventions`` of the Dataset, names: `CONVENTIONS`.

A flag that is missing (NaN, blank, ``_FillValue``) is not good. An unknown flag is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.schema import DataError

QUALITY = "_qc"

CONVENTIONS = {
    # Argo user's manual (doi:10.13155/29825), reference table 2: 1 good, 2 probably good.
    "argo": ((1, 2), (0, 3, 4, 5, 6, 7, 8, 9)),
    # U.S. IOOS manual for the use of real-time oceanographic data quality control flags: 1 pass, 2 not evaluated.
    "qartod": ((1,), (2, 3, 4, 9)),
    # OceanSITES data format reference manual 1.4, reference table 2, also of the Copernicus in situ centres.
    "oceansites": ((1, 2), (0, 3, 4, 5, 6, 7, 8, 9)),
    # SeaDataNet measurand qualifier flags (NERC vocabulary L20): 1 good, 2 probably good.
    "seadatanet": ((1, 2), (0, 3, 4, 5, 6, 7, 8, 9)),
    # WMO/IOC GTSPP real-time quality control manual (IOC Manuals and Guides 22), BUFR code table 0 33 050.
    "gtspp": ((1, 2), (0, 3, 4, 5, 8, 9, 15)),
    # WMO manual on codes, BUFR code table 0 33 020: 0 good, 1 inconsistent, 2 doubtful, 3 wrong, 4 not checked.
    "wmo": ((0,), (1, 2, 3, 4, 5, 6, 7)),
    # WOCE hydrographic programme, water sample and CTD flags: 2 acceptable, 6 mean of replicates.
    "woce": ((2, 6), (1, 3, 4, 5, 7, 8, 9)),
    # GHRSST data specification 2, quality level: 4 acceptable, 5 best.
    "ghrsst": ((4, 5), (0, 1, 2, 3)),
}
"""Flags of each convention: those that are good, and all others."""

_NAMED = {"ioos": "qartod", "033020": "wmo", "033050": "gtspp", "l20": "seadatanet", "instac": "oceansites"}
_ATTRIBUTES = ("conventions", "Conventions", "flag_conventions", "references", "standard_name", "long_name", "comment")

# Words of ``flag_meanings``, which are joined by underscores, such as "probably_good_data" or "not_evaluated".
_GOOD = {"good", "ok", "okay", "correct", "valid", "best", "acceptable", "accepted", "usable", "reliable", "clear"}
_GOOD |= {"pass", "passed", "passes"}
_NEUTRAL = {"probably", "nominally", "all", "high", "quality", "data", "point", "value", "values", "measurement"}
_NEUTRAL |= {"test", "tests", "check", "checks", "the", "qc", "range"}
_COMPLAINTS = {"problem", "problems", "error", "errors", "issue", "issues", "flag", "flags", "bad", "data", "noted"}
_BAD = (
    *("bad", "fail", "suspect", "question", "doubt", "wrong", "err", "invalid", "incorrect", "inconsistent", "reject"),
    *("missing", "unknown", "uncheck", "not", "no", "unqualified", "unassessed", "spike", "outlier", "poor", "worst"),
    *("low", "interpolated", "estimated", "changed", "nominal", "correctable", "below", "excess", "out", "cloud"),
    *("contaminated", "saturated", "blacklist", "duplicate", "unevaluated", "unvalidated", "uncertain"),
)


def flags_of(observations: xr.Dataset, name: str) -> list[str]:
    """Names of the variables with quality flags of the variable ``name``."""
    named = str(observations[name].attrs.get("ancillary_variables", "")).split()
    ancillary = [n for n in named if n in observations and _is_flag(observations[n])]
    own = [str(n) for n in observations.variables if str(n).lower() == f"{name}{QUALITY}".lower()]
    return list(dict.fromkeys([*own, *ancillary]))


def good_values(observations: xr.Dataset, name: str, good: Sequence[Any] | None = None) -> xr.DataArray | None:
    """Where the values of the variable ``name`` are good, as a boolean DataArray; None where there are no flags.

    Parameters
    ----------
    observations
        Observations, with or without quality flags.
    name
        A variable.
    good
        Flags that are good: values, or words of ``flag_meanings``. None where the attributes of the flags say so.

    Raises
    ------
    DataError
        If it is not known whether a flag that a value has is good.
    """
    found = None
    for label in flags_of(observations, name):
        flags = observations[label]
        strange = [d for d in flags.dims if d not in observations[name].dims]
        if strange:
            raise DataError(f"'{label}' has the dimensions {strange}, expected some of {observations[name].dims}")
        numbers = _numbers(flags)
        present = numbers.notnull() & observations[name].notnull()
        kinds, place = np.unique(numbers.values, return_inverse=True)
        seen = np.unique(numbers.broadcast_like(present).where(present).values)
        verdicts = _verdicts(flags, observations, kinds, set(seen[~np.isnan(seen)].tolist()), name, good)
        one = xr.DataArray(verdicts[place].reshape(flags.shape), dims=flags.dims)
        found = one if found is None else found & one
    return found


def _verdicts(
    flags: xr.DataArray, data: xr.Dataset, kinds: np.ndarray, seen: set[float], name: str, good: Sequence[Any] | None
) -> np.ndarray:
    """Whether each of the flags ``kinds``, (n,), is good; an error for those of ``seen`` of which it is not known."""
    verdicts: list[bool | None]
    if good is not None:
        verdicts = [_is_given(flags, kind, good) for kind in kinds]
    elif "flag_meanings" in flags.attrs:
        verdicts = [_by_meaning(flags, kind) for kind in kinds]
    else:
        convention = _convention(flags, data)
        fine, poor = CONVENTIONS[convention] if convention else ((), ())
        verdicts = [True if kind in fine else False if kind in poor else None for kind in kinds]
    unknown = [float(kind) for kind, verdict in zip(kinds, verdicts, strict=True) if verdict is None and kind in seen]
    if unknown:
        texts = [f"{k:g}" + (f" ({m})" if (m := " ".join(_meanings(flags, k))) else "") for k in unknown]
        raise DataError(
            f"'{flags.name}' has the flags {', '.join(texts)}, not known to be good or bad, expected "
            f"flag_meanings, or a convention ({', '.join(CONVENTIONS)}) in ds['{flags.name}'].attrs['conventions']; "
            f"say which flags are good, screening={{'good': {{{name!r}: [1, 2]}}}}, or good={{{name!r}: [1, 2]}} of a "
            "preparation"
        )
    return np.array([verdict is True for verdict in verdicts], bool)


def _is_given(flags: xr.DataArray, flag: float, good: Sequence[Any]) -> bool:
    words = {str(g).lower() for g in good if isinstance(g, str)}
    numbers = {n for g in good if not np.isnan(n := _number(g))}
    meanings = [m.lower() for m in _meanings(flags, flag)]
    return flag in numbers or (bool(meanings) and words.issuperset(meanings))


def _by_meaning(flags: xr.DataArray, flag: float) -> bool | None:
    meanings = [m.lower() for m in _meanings(flags, flag)]
    if not meanings:
        # Without a bit that is set there is no complaint. A value without a meaning is unknown.
        return True if flag == 0 and "flag_masks" in flags.attrs else None
    verdicts = [_verdict(meaning.split("_")) for meaning in meanings]
    return False if False in verdicts else None if None in verdicts else True


def _verdict(words: list[str]) -> bool | None:
    if words[0] == "no" and len(words) > 1 and _COMPLAINTS.issuperset(words[1:]) and words[1:] != ["data"]:
        return True
    if any(word.startswith(_BAD) or word in ("land", "ice") for word in words):
        return False
    return True if _GOOD & set(words) and (_GOOD | _NEUTRAL).issuperset(words) else None


def _meanings(flags: xr.DataArray, flag: float) -> list[str]:
    """The words of ``flag_meanings`` that apply to a flag: one of ``flag_values``, any number of ``flag_masks``."""
    words = str(flags.attrs.get("flag_meanings", "")).split()
    if not words or np.isnan(flag):
        return []
    masks, values = (_listed(flags.attrs.get(key)) for key in ("flag_masks", "flag_values"))
    if len(masks) not in (0, len(words)) or len(values) not in (0, len(words)) or not (masks or values):
        raise DataError(
            f"'{flags.name}' has {len(words)} flag_meanings, {len(values)} flag_values and {len(masks)} flag_masks, "
            "expected as many of either; correct its attributes"
        )
    if not masks:
        return [word for word, value in zip(words, values, strict=True) if value == flag]
    pairs = zip(words, masks, values or masks, strict=True)
    return [word for word, mask, value in pairs if int(flag) & int(mask) == int(value) and int(mask)]


def _convention(flags: xr.DataArray, data: xr.Dataset) -> str | None:
    texts = [str(flags.attrs[key]) for key in _ATTRIBUTES if key in flags.attrs] + [str(data.attrs.get("Conventions"))]
    for text in texts:
        words = re.sub(r"[^a-z0-9]+", " ", text.lower())
        for name, convention in {**{c: c for c in CONVENTIONS}, **_NAMED}.items():
            if re.search(rf"\b{name}\b", words):
                return convention
    return None


def _is_flag(variable: xr.DataArray) -> bool:
    return str(variable.attrs.get("standard_name", "")).endswith(("status_flag", "quality_flag"))


def _numbers(flags: xr.DataArray) -> xr.DataArray:
    """Flags as floats, NaN where there is none; Argo and others write characters."""
    if flags.dtype.kind in "fiub":
        numbers = flags.astype(float)
        fills = [flags.attrs[key] for key in ("_FillValue", "missing_value") if key in flags.attrs]
        return numbers.where(~numbers.isin(np.ravel(np.asarray(fills, float)))) if fills else numbers
    kinds, place = np.unique(flags.values.astype(str), return_inverse=True)
    return flags.copy(data=np.array([_number(k) for k in kinds])[place].reshape(flags.shape))


def _number(flag: Any) -> float:
    text = flag.decode() if isinstance(flag, bytes) else str(flag)
    text = text.strip().removeprefix("b'").removesuffix("'").strip()
    try:
        return float(text)
    except ValueError:
        return float(ord(text)) if len(text) == 1 else np.nan  # a letter, such as A of SeaDataNet


def _listed(values: Any) -> list[float]:
    if values is None:
        return []
    if isinstance(values, str):
        values = re.split(r"[,\s]+", values.strip())
    return [_number(v) for v in np.atleast_1d(values).tolist()]

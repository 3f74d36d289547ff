"""Values against their declared types and bounds: options, recipes, operators, the headers of files.

A declaration is a type. Numbers have their bounds in it, ``Annotated[int, Meta(ge=1)]``; `Count` and its likes below
are the usual ones. msgspec compares a value with it, and converts what means the same: ``64``, ``64.0`` and ``"64"``
are one whole number, a list is a tuple. Complex numbers, truth values and dates are no numbers. A number is finite,
and a whole number has at most 64 bits. Types of other libraries are left to who reads them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from sdaxr.schema import OptionError, shown

P = ParamSpec("P")
T = TypeVar("T")

# More than that of anything cannot be meant, and is asked for by mistake, or to exhaust the memory.
_MOST = 10**9
# A network of this width has 10^9 weights in a layer; published ones have some thousands.
_WIDEST = 1 << 15
# Seeds have 64 bits without a sign.
_BITS = 1 << 64

# Above it there is infinity only; NaN is not within any bounds.
_LARGEST = sys.float_info.max

Count = Annotated[int, Meta(ge=1, le=_MOST)]
"""A number of things, at least one."""
Natural = Annotated[int, Meta(ge=0)]
"""Zero or a whole number above it, such as a seed."""
Width = Annotated[int, Meta(ge=1, le=_WIDEST)]
"""A number of channels of a network."""
Levels = Annotated[int, Meta(ge=1, le=_WIDEST)]
"""A number of noise levels."""
Steps = Annotated[int, Meta(ge=1, le=_WIDEST)]
"""A number of steps or iterations of one calculation."""
SpinUp = Annotated[int, Meta(ge=0, le=10**7)]
"""A number of states before the first one that is kept."""
Points = Annotated[int, Meta(ge=4, le=_WIDEST)]
"""A number of points along one dimension."""
Cells = Annotated[int, Meta(ge=1, le=_WIDEST)]
"""A number of cells of a grid, or of parts of a domain, along one dimension."""
Wavenumber = Annotated[int, Meta(ge=0, le=_WIDEST)]
"""A number of waves along a domain."""
Few = Annotated[int, Meta(ge=0, le=1024)]
"""A number of parts that are built one by one, such as the blocks of a network; or none."""
Widths = Annotated[tuple[Width, ...], Meta(min_length=1, max_length=16)]
"""Numbers of channels, level by level."""
Number = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
"""A finite number."""
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
"""A number above zero."""
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
"""Zero or a number above it."""
Factor = Annotated[float, Meta(gt=0, le=1e6)]
"""A factor above zero."""
Share = Annotated[float, Meta(ge=0, le=1)]
"""A number from 0 to 1."""

PositiveShare = Annotated[float, Meta(gt=0, le=1)]
"""A number above 0, at most 1."""
ShareBelowOne = Annotated[float, Meta(ge=0, lt=1)]
"""A number from 0 on, below 1."""
Particles = Annotated[int, Meta(ge=2, le=_MOST)]
"""A number of particles, which has to have a spread."""

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "nothing"}


def checked(
    name: str,
    value: Any,
    kind: Any,
    *,
    owner: str = "",
    infinite: bool = False,
    example: Any = None,
    strict: bool = False,
    sign: str = "=",
) -> Any:
    """``value`` in the declared type ``kind``.

    Parameters
    ----------
    name, owner
        What the value is called, and what it is an option of, for the message.
    infinite
        Whether numbers may be infinite.
    example
        A value that fits, for the message.
    strict
        Whether a text is never a number, nor a list of one, as in YAML, where texts and numbers are told apart.
    sign
        What stands between name and value in the message.

    Raises
    ------
    OptionError
        If the value is of another type, or out of bounds.
    """
    if kind is Any:
        return value
    try:
        return _converted(value, kind, infinite, strict)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        of = f" for {owner}" if owner else ""
        such = "" if example is None else f" such as {example}"
        raise OptionError(f"found {name}{sign}{shown(value)}{of}, expected {words(kind)}{such}") from error


def words(kind: Any) -> str:
    """Words for a type and its bounds: "a whole number of at least 1, or nothing"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return words(args[0]) + _bounds(args[1])
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(each) for each in args if each is not type(None)))
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"{len(args)} values, {words(args[0])} each"
    if origin in (tuple, list, Sequence, Iterable):
        return f"a list of {words(args[0])}" if args and args[0] is not Any else "a list"
    if origin in (dict, Mapping) or kind in (dict, Mapping):
        return f"a mapping to {words(args[1])}" if args and args[1] is not Any else "a mapping"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def fields_of(cls: type) -> dict[str, Any]:
    """The declared types of the annotations of a class, with their bounds; `Any` where a type cannot be compared."""
    return {name: _comparable(kind) for name, kind in _resolved(cls).items()}


def plain(kind: Any) -> Any:
    """The type of a value from JSON or YAML for a parameter of this type; `Any` where that is not known."""
    members = _members(kind)
    mappings = [dict for each in members if typing.get_origin(each) is Mapping and not _is_plain(each)]
    known = [each for each in members if _is_plain(each)] + mappings
    # What has objects of sdaxr, and neither numbers nor names for them, is read elsewhere.
    if Any in members or (len(known) < len(members) and not {int, float, bool, str} & set(known)):
        return Any
    return _comparable(functools.reduce(lambda a, b: a | b, known))


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The declared types of the parameters of a function, as `fields_of`, without that of its result."""
    return {name: kind for name, kind in _resolved(function).items() if name != "return"}


def options_checked(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: keyword-only parameters are compared with their annotations before the function runs."""
    names = {n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}

    @functools.wraps(function)
    def check_first(*args: P.args, **kwargs: P.kwargs) -> T:
        kinds = parameters_of(function)
        for name in names & set(kwargs):
            kwargs[name] = checked(name, kwargs[name], _comparable(kinds[name]), strict=True)
        return function(*args, **kwargs)

    return check_first


@functools.cache
def _resolved(declaring: type | Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(getattr(declaring, "__mro__", (declaring,))):
        names = vars(sys.modules.get(base.__module__, typing))
        for name, text in inspect.get_annotations(base).items():
            try:
                found[name] = eval(text, dict(names)) if isinstance(text, str) else text
            except NameError:  # of a library that is imported when it is used
                found[name] = Any
    return found


def _is_plain(kind: Any) -> bool:
    """Whether a type, and all types within it, are those of JSON."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _is_plain(args[0])
    if origin is Literal or kind in (Any, Ellipsis):
        return True
    whole = (origin or kind) in (int, float, bool, str, type(None), tuple, list, dict, Mapping, Sequence, Iterable)
    return (whole or origin in (typing.Union, types.UnionType)) and all(map(_is_plain, args))


def _comparable(kind: Any) -> Any:
    """The type as msgspec knows it; `Any` where it has types that are not those of JSON."""
    if not _is_plain(kind):
        return Any
    members = [_sequence_of(each) for each in _members(kind)]
    found = functools.reduce(lambda a, b: a | b, members)
    return found if _decodable(found) else Any


def _sequence_of(kind: Any) -> Any:
    # msgspec does not know what can be gone through only.
    if typing.get_origin(kind) in (Iterable, Sequence):
        return list[typing.get_args(kind)[0]]  # type: ignore[misc]
    return kind


@functools.cache
def _decodable(kind: Any) -> bool:
    try:
        msgspec.json.Decoder(kind)
    except TypeError:  # such as two kinds of lists, of which it cannot choose
        return False
    return True


def _converted(value: Any, kind: Any, infinite: bool, strict: bool) -> Any:
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) and _is_listing(kind):
        value = list(value)
    value = _of_python(value)
    if not strict and isinstance(value, str) and (numbers := _numbers_of(kind)) is not None:
        # A text that is a number is one, where both a number and a word can be meant.
        with contextlib.suppress(msgspec.ValidationError):
            value = msgspec.convert(value, numbers, strict=False)
    try:
        found = msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError:
        if strict and isinstance(value, float) and value.is_integer():
            return _converted(int(value), kind, infinite, strict)
        # A single text or mapping stands for a list of one.
        if strict or not isinstance(value, str | Mapping) or not _is_listing(kind):
            raise
        found = msgspec.convert([value], kind, strict=False)
    _check_numbers(found, infinite)
    return found


def _numbers_of(kind: Any) -> Any:
    """The types of numbers in a union that has texts, too; None for any other type."""
    members = _members(kind)
    if str not in members:
        return None
    numbers = [each for each in members if (typing.get_args(each) or (each,))[0] in (int, float)]
    return functools.reduce(lambda a, b: a | b, numbers) if numbers else None


def _members(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def _is_listing(kind: Any) -> bool:
    return any(typing.get_origin(each) in (tuple, list, Sequence) for each in _members(kind))


def _of_python(value: Any) -> Any:
    """``value`` in Python's own types: numbers and arrays of numpy, and what can be listed."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: value[key].item() if isinstance(value[key], np.generic) else value[key] for key in value}
    return [_of_python(each) for each in value] if isinstance(value, list | tuple) else value


def _check_numbers(found: Any, infinite: bool) -> None:
    if isinstance(found, float) and not (math.isfinite(found) or (infinite and not math.isnan(found))):
        raise ValueError("a number that is not finite")
    if isinstance(found, int) and abs(found) >= _BITS:
        raise ValueError("a whole number of more than 64 bits")
    if isinstance(found, tuple | list):
        for each in found:
            _check_numbers(each, infinite)
    if isinstance(found, Mapping):
        for each in found.values():
            _check_numbers(each, infinite)


def _bounds(meta: Meta) -> str:
    parts = [
        f"{word} {bound}"
        for word, bound in (
            ("above", meta.gt),
            ("of at least", meta.ge),
            ("below", meta.lt),
            ("of at most", meta.le),
            ("of a length of at least", meta.min_length),
            ("of a length of at most", meta.max_length),
        )
        if bound is not None and abs(bound) not in (_MOST, _LARGEST)
    ]
    return f" {' and '.join(parts)}" if parts else ""

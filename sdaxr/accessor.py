"""The accessor ``.sda``: the functions of sdaxr as methods, for notebooks.

It holds no state. Each method passes the Dataset (or DataTree) on as the first argument of the function of
the same name; signature and documentation are the function's.
"""

from __future__ import annotations

import functools
import html
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import xarray as xr

import sdaxr

from .info import format_facts, provenance, safe_describe

_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Delegate:
    # The functions live in modules that are slow to import, so that their documentation is read when somebody
    # asks for it. (A class with a property __doc__ cannot have a docstring of its own.)
    def __init__(self, method: Callable[..., Any]) -> None:
        functools.update_wrapper(self, method, assigned=("__module__", "__name__", "__qualname__"))

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return getattr(sdaxr, self.__wrapped__.__name__).__doc__  # type: ignore[attr-defined]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)


def _delegate(method: _Method) -> _Method:
    return cast(_Method, _Delegate(method))


class _Accessor:
    """What Dataset and DataTree have in common: the data, and a description of them."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def _facts(self) -> dict[str, dict[str, str]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        parts = [f"{title}\n{format_facts(facts)}" for title, facts in self._facts().items()]
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        rows = []
        for title, facts in self._facts().items():
            rows.append(f'<tr><th colspan="2" style="text-align:left">{html.escape(title)}</th></tr>')
            rows += [f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items()]
        return f"<table>{''.join(rows)}</table>"


@xr.register_dataset_accessor("sda")
class DatasetAccessor(_Accessor):
    """The functions of sdaxr as methods of a Dataset; printing it says what the Dataset is."""

    def _facts(self) -> dict[str, dict[str, str]]:
        return {"sdaxr": safe_describe(self._data) | provenance(self._data)}


@xr.register_datatree_accessor("sda")
class DataTreeAccessor(_Accessor):
    """The functions of sdaxr that take several networks of observations, as methods of a DataTree."""

    def _facts(self) -> dict[str, dict[str, str]]:
        nodes = {node.path: node.to_dataset() for node in self._data.leaves}
        return {f"sdaxr {path}": safe_describe(data) | provenance(data) for path, data in nodes.items()}

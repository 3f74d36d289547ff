"""The accessor ``.sda``: the functions of sdaxr as methods of Datasets and DataTrees, for notebooks.

The accessor holds no state. Each method is a signature: it calls the function of the same name, in the module that its
decorator names, with the Dataset or DataTree as the first argument. The documentation is that of the function.
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

import functools
import html
import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, cast

import xarray as xr

from sdaxr.archives.description import format_facts, provenance, safe_describe
from sdaxr.states.inputs import as_dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdaxr.archives.paths import Location
    from sdaxr.observations.screening import Screening
    from sdaxr.observations.window import Operators
    from sdaxr.operators import Operator
    from sdaxr.posterior.methods import Method
    from sdaxr.posterior.samplers.base import Sampler
    from sdaxr.prior.files import Prior
    from sdaxr.prior.networks.base import Network
    from sdaxr.prior.settings import Optimisation, Statistics
    from sdaxr.systems.base import System

_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Delegate:
    # The modules of the functions are slow to import, and are therefore imported on first use. (A class with a property
    # __doc__ cannot have a docstring of its own.)
    def __init__(self, method: Callable[..., Any], home: str) -> None:
        functools.update_wrapper(self, method, assigned=("__module__", "__name__", "__qualname__"))
        self._name, self._home = method.__name__, home

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(self._home), self._name)
        return function

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return str(self._function.__doc__)

    def __call__(self, accessor: _Accessor, *args: Any, **kwargs: Any) -> Any:
        return self._function(accessor._data, *args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)


def _delegate(home: str) -> Callable[[_Method], _Method]:
    """Decorate a method: it is the function of the same name in the module ``home``."""

    def decorate(method: _Method) -> _Method:
        return cast(_Method, _Delegate(method, home))

    return decorate


class _Accessor:
    """Methods that Dataset and DataTree share: both may hold observations, and both have a description."""

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

    @_delegate("sdaxr.inference.assimilate")
    def assimilate(
        self,
        prior: str | Location | Prior | None = None,
        *,
        method: str | Method | Mapping[str, Any] | None = None,
        sampler: str | Sampler | Mapping[str, Any] | None = None,
        members: int | str = 16,
        seed: int = 0,
        store: str | Location | None = None,
        operator: Operators = None,
        times: Any = None,
        background: xr.Dataset | None = None,
        system: str | System | None = None,
        outside: str = "error",
        units: str = "error",
        screening: Screening | Mapping[str, Any] | None = None,
        batch: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.inference.cycle")
    def cycle(
        self,
        prior: str | Location | Prior | None = None,
        *,
        system: str | System | None = None,
        window: int | None = None,
        lag: int = 0,
        carry: str | Location | System | Prior | None = None,
        members: int = 16,
        seed: int = 0,
        store: str | Location | None = None,
        times: Any = None,
        background: xr.Dataset | None = None,
        inflation: float | str = 1.0,
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.inference.report")
    def report(
        self,
        prior: str | Location | Prior,
        *,
        operator: Operators = None,
        times: Any = None,
        background: xr.Dataset | None = None,
        units: str = "error",
        screening: Screening | Mapping[str, Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset | xr.DataTree: ...


@xr.register_dataset_accessor("sda")
class DatasetAccessor(_Accessor):
    """The functions of sdaxr as methods of a Dataset; ``print(ds.sda)`` describes the Dataset."""

    @_delegate("sdaxr.prior.training")
    def train(
        self,
        store: str | Location,
        *,
        window: int | None = None,
        variables: Sequence[str] | None = None,
        context: Sequence[str] | str = (),
        statistics: Statistics | Mapping[str, Any] | None = None,
        augment: Mapping[str, Operator] | None = None,
        network: str | Mapping[str, Any] | Network = "auto",
        parameterisation: str = "auto",
        start: str | Location | Prior | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        optimisation: Optimisation | Mapping[str, Any] | None = None,
        name: str | None = None,
        seed: int = 0,
        device: str = "auto",
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> Prior: ...

    @_delegate("sdaxr.observations.observe")
    def observe(
        self,
        operator: Operator,
        *,
        every: int = 1,
        start: int = 0,
        error: float | Mapping[str, float | xr.DataArray] | xr.DataArray,
        noise: str = "gaussian",
        correlation: Mapping[str, float] | None = None,
        seed: int = 0,
        missing: float = 0.0,
        where: xr.DataArray | Mapping[str, Any] | None = None,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.superobbing")
    def superob(
        self, grid: Any, *, representativeness: float | Mapping[str, float] = 0.0, good: Any = None
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.thinning")
    def thin(self, *, km: float, per: Any = None, good: Any = None) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.duplicates")
    def drop_duplicates(self, *, keep: str = "first", good: Any = None) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.neighbours")
    def buddy_check(
        self,
        *,
        km: float,
        neighbours: int = 5,
        threshold: float = 2.0,
        least: float = 1.0,
        iterations: int = 2,
        height: float = 0.0,
        gradient: float = 0.0,
        good: Any = None,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.inflation")
    def inflate(self, factor: float | Mapping[str, float], *, by: str = "source") -> xr.Dataset: ...

    @_delegate("sdaxr.observations.splitting")
    def split(self, fraction: float, *, by: str = "station", seed: int = 0) -> tuple[xr.Dataset, xr.Dataset]: ...

    @_delegate("sdaxr.observations.bias")
    def with_bias(
        self,
        deviation: float | Mapping[str, float],
        *,
        by: str | None = None,
        predictors: Mapping[str, float | Mapping[str, float]] | None = None,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.desroziers")
    def estimate_errors(
        self,
        background: xr.Dataset,
        analysis: xr.Dataset,
        *,
        by: str | None = None,
        operator: Operator | None = None,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.observations.innovations")
    def innovations(
        self,
        observations: xr.Dataset,
        *,
        operator: Operator | None = None,
        screening: Screening | Mapping[str, Any] | None = None,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.inference.forecast")
    def forecast(
        self,
        model: str | Location | System | Prior,
        *,
        steps: int,
        seed: int = 0,
        store: str | Location | None = None,
        context: int | None = None,
        block: int | None = None,
        error: float = 0.03,
        method: str | Method | Mapping[str, Any] | None = None,
        sampler: str | Sampler | Mapping[str, Any] | None = None,
        batch: int | None = None,
        device: str = "auto",
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.inference.denoise")
    def denoise(
        self,
        prior: str | Location | Prior,
        *,
        error: float | Mapping[str, float],
        method: str = "posterior",
        members: int = 1,
        step_size: float | None = None,
        steps: int | None = None,
        level: float = 0.1,
        seed: int = 0,
        batch: int | None = None,
        device: str = "auto",
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.verification.verify")
    def verify(
        self,
        truth: xr.Dataset,
        *,
        metrics: Sequence[str] | None = None,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.verification.calibrate")
    def calibrate(
        self,
        operator: Operator,
        prior: str | Location | Prior | None = None,
        *,
        error: float | Mapping[str, float | xr.DataArray] | xr.DataArray,
        system: str | System | None = None,
        method: str | Method | Mapping[str, Any] | None = None,
        sampler: str | Sampler | Mapping[str, Any] | None = None,
        truths: int = 64,
        steps: int | None = None,
        members: int = 19,
        quantities: Sequence[str] | None = None,
        points: int | Mapping[str, Sequence[int]] = 3,
        levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
        seed: int = 0,
        store: str | Location | None = None,
        overwrite: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset: ...

    @_delegate("sdaxr.plotting.plot")
    def plot(
        self,
        *,
        truth: xr.Dataset | None = None,
        observations: xr.Dataset | None = None,
        variable: str | None = None,
        times: int | Sequence[Any] = 4,
        members: int = 2,
        path: str | PathLike[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Figure: ...

    @_delegate("sdaxr.plotting.animate")
    def animate(
        self,
        path: str | PathLike[str],
        *,
        truth: xr.Dataset | None = None,
        observations: xr.Dataset | None = None,
        variable: str | None = None,
        fps: float = 8,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Location: ...

    def _facts(self) -> dict[str, dict[str, str]]:
        return {"sdaxr": safe_describe(self._data) | provenance(self._data)}


@xr.register_datatree_accessor("sda")
class DataTreeAccessor(_Accessor):
    """The functions of sdaxr for observations, as methods of a DataTree of several networks of instruments."""

    def _facts(self) -> dict[str, dict[str, str]]:
        nodes = {node.path: node.to_dataset() for node in self._data.leaves}
        return {f"sdaxr {path}": safe_describe(data) | provenance(data) for path, data in nodes.items()}


@xr.register_dataarray_accessor("sda")
class DataArrayAccessor(DatasetAccessor):
    """The methods of `DatasetAccessor`, of the Dataset that holds this DataArray alone; the DataArray needs a name."""

    def __init__(self, data: xr.DataArray) -> None:
        super().__init__(as_dataset(data, ".sda"))

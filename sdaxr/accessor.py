"""The accessor ``.sda``: the functions of sdaxr as methods of Datasets and DataTrees, for notebooks.

The accessor holds no state. Each method calls the function of the same name with the Dataset or DataTree as the first
argument. Signature and documentation of the method are those of the function.
"""

from __future__ import annotations

import functools
import html
import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import xarray as xr

from sdaxr.archives.description import format_facts, provenance, safe_describe
from sdaxr.states.inputs import as_dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    # The modules of the functions are slow to import. Their documentation is therefore read on first use. (A class
    # with a property __doc__ cannot have a docstring of its own.)
    def __init__(self, method: Callable[..., Any], home: str) -> None:
        functools.update_wrapper(self, method, assigned=("__module__", "__name__", "__qualname__"))
        self._method, self._home = method, home

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        function = getattr(importlib.import_module(self._home), self._method.__name__)
        return str(function.__doc__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)


def _delegate(home: str) -> Callable[[_Method], _Method]:
    """Decorate a method: its documentation is that of the function of the same name in the module ``home``."""

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
        prior: str | Path | Prior | None = None,
        *,
        method: str | Method | Mapping[str, Any] | None = None,
        sampler: str | Sampler | Mapping[str, Any] | None = None,
        members: int = 16,
        seed: int = 0,
        store: str | Path | None = None,
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
        progress: bool = True,
    ) -> xr.Dataset:
        from sdaxr.inference.assimilate import assimilate

        return assimilate(
            self._data,
            prior,
            method=method,
            sampler=sampler,
            members=members,
            seed=seed,
            store=store,
            operator=operator,
            times=times,
            background=background,
            system=system,
            outside=outside,
            units=units,
            screening=screening,
            batch=batch,
            device=device,
            precision=precision,
            overwrite=overwrite,
            progress=progress,
        )

    @_delegate("sdaxr.inference.cycle")
    def cycle(
        self,
        prior: str | Path | Prior,
        *,
        window: int | None = None,
        carry: str | Path | System | Prior | None = None,
        members: int = 16,
        seed: int = 0,
        store: str | Path | None = None,
        times: Any = None,
        background: xr.Dataset | None = None,
        inflation: float = 1.0,
        overwrite: bool = False,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset:
        from sdaxr.inference.cycle import cycle

        return cycle(
            self._data,
            prior,
            window=window,
            carry=carry,
            members=members,
            seed=seed,
            store=store,
            times=times,
            background=background,
            inflation=inflation,
            overwrite=overwrite,
            progress=progress,
            **options,
        )

    @_delegate("sdaxr.inference.report")
    def report(
        self,
        prior: str | Path | Prior,
        *,
        operator: Operators = None,
        times: Any = None,
        screening: Screening | Mapping[str, Any] | None = None,
    ) -> xr.Dataset | xr.DataTree:
        from sdaxr.inference.report import report

        return report(self._data, prior, operator=operator, times=times, screening=screening)


@xr.register_dataset_accessor("sda")
class DatasetAccessor(_Accessor):
    """The functions of sdaxr as methods of a Dataset; ``print(ds.sda)`` describes the Dataset."""

    @_delegate("sdaxr.prior.training")
    def train(
        self,
        store: str | Path,
        *,
        window: int | None = None,
        variables: Sequence[str] | None = None,
        context: Sequence[str] | str = (),
        statistics: Statistics | Mapping[str, Any] | None = None,
        augment: Mapping[str, Operator] | None = None,
        network: str | Mapping[str, Any] | Network = "auto",
        parameterisation: str = "auto",
        start: str | Path | Prior | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        optimisation: Optimisation | Mapping[str, Any] | None = None,
        name: str | None = None,
        seed: int = 0,
        device: str = "auto",
        overwrite: bool = False,
        progress: bool = True,
    ) -> Prior:
        from sdaxr.prior.training import train

        return train(
            self._data,
            store,
            window=window,
            variables=variables,
            context=context,
            statistics=statistics,
            augment=augment,
            network=network,
            parameterisation=parameterisation,
            start=start,
            steps=steps,
            minutes=minutes,
            optimisation=optimisation,
            name=name,
            seed=seed,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )

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
    ) -> xr.Dataset:
        from sdaxr.observations.observe import observe

        return observe(
            self._data,
            operator,
            every=every,
            start=start,
            error=error,
            noise=noise,
            correlation=correlation,
            seed=seed,
            missing=missing,
            where=where,
        )

    @_delegate("sdaxr.observations.innovations")
    def innovations(
        self,
        observations: xr.Dataset,
        *,
        operator: Operator | None = None,
        screening: Screening | Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        from sdaxr.observations.innovations import innovations

        return innovations(self._data, observations, operator=operator, screening=screening)

    @_delegate("sdaxr.inference.forecast")
    def forecast(
        self,
        model: str | Path | System | Prior,
        *,
        steps: int,
        seed: int = 0,
        store: str | Path | None = None,
        context: int | None = None,
        block: int | None = None,
        error: float = 0.03,
        method: str | Method | Mapping[str, Any] | None = None,
        sampler: str | Sampler | Mapping[str, Any] | None = None,
        batch: int | None = None,
        device: str = "auto",
        overwrite: bool = False,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset:
        from sdaxr.inference.forecast import forecast

        return forecast(
            self._data,
            model,
            steps=steps,
            seed=seed,
            store=store,
            context=context,
            block=block,
            error=error,
            method=method,
            sampler=sampler,
            batch=batch,
            device=device,
            overwrite=overwrite,
            progress=progress,
            **options,
        )

    @_delegate("sdaxr.inference.denoise")
    def denoise(
        self,
        prior: str | Path | Prior,
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
        progress: bool = True,
    ) -> xr.Dataset:
        from sdaxr.inference.denoise import denoise

        return denoise(
            self._data,
            prior,
            error=error,
            method=method,
            members=members,
            step_size=step_size,
            steps=steps,
            level=level,
            seed=seed,
            batch=batch,
            device=device,
            progress=progress,
        )

    @_delegate("sdaxr.verification.verify")
    def verify(
        self,
        truth: xr.Dataset,
        *,
        metrics: Sequence[str] | None = None,
    ) -> xr.Dataset:
        from sdaxr.verification.verify import verify

        return verify(self._data, truth, metrics=metrics)

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
    ) -> Figure:
        from sdaxr.plotting.plot import plot

        return plot(
            self._data,
            truth=truth,
            observations=observations,
            variable=variable,
            times=times,
            members=members,
            path=path,
        )

    @_delegate("sdaxr.plotting.plot")
    def animate(
        self,
        path: str | PathLike[str],
        *,
        truth: xr.Dataset | None = None,
        observations: xr.Dataset | None = None,
        variable: str | None = None,
        fps: float = 8,
    ) -> Path:
        from sdaxr.plotting.plot import animate

        return animate(self._data, path, truth=truth, observations=observations, variable=variable, fps=fps)

    def _facts(self) -> dict[str, dict[str, str]]:
        return {"sdaxr": safe_describe(self._data) | provenance(self._data)}


@xr.register_dataarray_accessor("sda")
class DataArrayAccessor(DatasetAccessor):
    """The methods of `DatasetAccessor`, of the Dataset that holds this DataArray alone; the DataArray needs a name."""

    def __init__(self, data: xr.DataArray) -> None:
        super().__init__(as_dataset(data, ".sda"))


@xr.register_datatree_accessor("sda")
class DataTreeAccessor(_Accessor):
    """The functions of sdaxr for observations, as methods of a DataTree of several networks of instruments."""

    def _facts(self) -> dict[str, dict[str, str]]:
        nodes = {node.path: node.to_dataset() for node in self._data.leaves}
        return {f"sdaxr {path}": safe_describe(data) | provenance(data) for path, data in nodes.items()}

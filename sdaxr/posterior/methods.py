r"""Methods that draw samples of the posterior: objects that hold their options.

``sdaxr.assimilate(method=...)`` takes a name, an object, or a mapping of a name and options::

    obs.sda.assimilate(prior, method="mmps")
    obs.sda.assimilate(prior, method=sdaxr.methods.MMPS(iterations=2))
    obs.sda.assimilate(prior, method={"name": "mmps", "iterations": 2})         # as in recipes
    obs.sda.assimilate(system="lorenz63", method=sdaxr.methods.FFBS(particles=65536))

==================  ===================  ========================================================================
name                object               needs
==================  ===================  ========================================================================
``sda``             `SDA`                a prior
``mmps``            `MMPS`               a prior
``jacobian_free``   `JacobianFree`       a prior
``dmps``            `DMPS`               a prior, and linear operators
``soad``            `SOAD`               a prior of states and observed quantities
``dps``             `DPS`                a prior
``oi``              `OI`                 a prior with modes, linear operators, Gaussian errors
``bpf``             `BPF`                a system with Gaussian noise
``ffbs``            `FFBS`               a system with Gaussian noise
``kalman``          `Kalman`             a linear system with Gaussian noise, linear operators, Gaussian errors
``4dvar``           `FourDVar`           a system with Gaussian noise, Gaussian errors
``enkf``            `EnKF`               any system, Gaussian errors
``etkf``            `ETKF`               any system, Gaussian errors
``ensrf``           `EnSRF`              any system, independent Gaussian errors
``letkf``           `LETKF`              any system with space, independent Gaussian errors
``enks``            `EnKS`               what its filter needs
``ienks``           `IEnKS`              any deterministic system, Gaussian errors
``pff``             `PFF`                any system
``ensf``            `EnSF`               any system
``enff``            `EnFF`               any system
``latent``          `Latent`             what its filter needs
==================  ===================  ========================================================================

The uncertainty of the observed quantities given z (the diffused state :math:`z = x + r \epsilon` at the noise level r)
is an object, too: `Measured`, `Scalar`, `Bounded`, `Covariance`, `Independent` or `Matrix`. It is an option of `SDA`,
`SOAD` and `JacobianFree`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from sdaxr.observations.provenance import fingerprint
from sdaxr.posterior.covariance.registry import UNCERTAINTIES
from sdaxr.schema import nearest
from sdaxr.states.registry import Options, Registry

if TYPE_CHECKING:
    from sdaxr.prior.files import Prior


@dataclass(frozen=True)
class Method(Options):
    """A method that draws samples of the posterior; its fields are its options."""

    name: ClassVar[str] = ""
    # What the method needs in addition to the observations: a "prior" or a "system".
    needs: ClassVar[str] = "prior"


METHODS: Registry[Method] = Registry(
    "method",
    Method,
    {
        "sda": "sdaxr.posterior.guidance.sda:SDA",
        "mmps": "sdaxr.posterior.guidance.mmps:MMPS",
        "jacobian_free": "sdaxr.posterior.guidance.jacobian_free:JacobianFree",
        "dmps": "sdaxr.posterior.guidance.dmps:DMPS",
        "soad": "sdaxr.posterior.guidance.soad:SOAD",
        "dps": "sdaxr.posterior.guidance.dps:DPS",
        "oi": "sdaxr.posterior.guidance.oi:OI",
        "bpf": "sdaxr.filters.bpf:BPF",
        "ffbs": "sdaxr.filters.ffbs:FFBS",
        "kalman": "sdaxr.filters.kalman:Kalman",
        "4dvar": "sdaxr.filters.fourdvar:FourDVar",
        "enkf": "sdaxr.filters.enkf:EnKF",
        "etkf": "sdaxr.filters.etkf:ETKF",
        "ensrf": "sdaxr.filters.ensrf:EnSRF",
        "letkf": "sdaxr.filters.letkf:LETKF",
        "enks": "sdaxr.filters.enks:EnKS",
        "ienks": "sdaxr.filters.ienks:IEnKS",
        "pff": "sdaxr.filters.pff:PFF",
        "ensf": "sdaxr.filters.ensf:EnSF",
        "enff": "sdaxr.filters.enff:EnFF",
        "latent": "sdaxr.filters.latent:Latent",
    },
)

register = METHODS.register

__all__ = [*METHODS.class_names(), *UNCERTAINTIES.class_names(), "Method", "register"]


def resolve_method(prior: Prior, given: str | Method | Mapping[str, Any] | None = None) -> Method:
    """The method as an object; without one, the method that the file of the prior records, else ``"sda"``.

    An option that is not given has the value that the file of the prior records for this method, else its default. An
    object is returned as it is.

    Raises
    ------
    OptionError
        If the name or an option is unknown, or the value of an option is impossible.
    """
    recorded: dict[str, Any] = prior.metadata.get("sampling", {}).get("method", {"name": "sda"})
    if not isinstance(given, str | Mapping | None):
        return METHODS.build(given)
    asked = {"name": given} if isinstance(given, str) else {"name": recorded["name"], **(given or {})}
    return METHODS.build({**recorded, **asked} if asked["name"] == recorded["name"] else asked)


def build_method(given: str | Method | Mapping[str, Any] | None, default: str) -> Method:
    """The method as an object: the method ``default`` for None, and for a mapping of options without a name.

    Raises
    ------
    OptionError
        If the name or an option is unknown, or the value of an option is impossible.
    """
    return METHODS.build({"name": default, **(given or {})} if isinstance(given, Mapping | None) else given)


def names(needs: str) -> list[str]:
    """Names of the methods that need a ``"prior"`` or a ``"system"``."""
    return [name for name in METHODS.homes if METHODS.kind(name).needs == needs]


def describe_method(method: Method) -> dict[str, str]:
    """Attributes that record a method: its name, and its options as JSON."""
    return {"method": method.name, "method_options": json.dumps(_options(method), sort_keys=True, default=_text)}


def _options(method: Method) -> dict[str, Any]:
    return {field.name: _plain(getattr(method, field.name)) for field in fields(method)}


def _plain(value: Any) -> Any:
    return {"name": getattr(value, "name", ""), **value.to_dict()} if isinstance(value, Options) else value


def _text(value: Any) -> str:
    """A text for a value that JSON does not hold.

    Data are recorded by their hash, because the ``repr`` of an array leaves out values; a function is recorded by its
    module and name, because its ``repr`` holds an address, which is another one in each process.
    """
    if isinstance(value, xr.Dataset):
        return fingerprint([value])
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value.detach().cpu() if hasattr(value, "detach") else value)
        return f"{array.dtype}{list(array.shape)} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}"
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)


def __getattr__(name: str) -> Any:
    if found := METHODS.class_named(name) or UNCERTAINTIES.class_named(name):
        return found
    raise AttributeError(f"sdaxr.methods has no {nearest(name, __all__)}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

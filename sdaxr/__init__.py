"""Score-based data assimilation for xarray: the table of contents.

The names below are loaded when they are first used, so that ``import sdaxr`` costs little more than
``import xarray``; it also registers the accessor ``.sda`` on Dataset and DataTree.

======================  ====================================================================
`generate`              trajectories of a dynamical system -> Zarr archive
`train`                 trajectories -> prior (one ``.safetensors`` file)
`open_prior`, `priors`  a prior by name or path; the names of the shipped ones
`observe`               truth + operator -> synthetic observations
`random_mask`,          which places are observed, and when
`strided_mask`
`assimilate`            observations + (prior | system) -> posterior ensemble
`cycle`                 the same window after window, each from the last one's ensemble
`innovations`           observation minus H(posterior)
`forecast`              posterior + (system | prior) -> forecast
`denoise`               noisy fields + prior -> clean fields
`verify`                scores against the truth
`plot`, `animate`       pictures
`open_archive`          any of these files -> Dataset; refuses unfinished ones
`open_system`           a dynamical system by name
`operators`             observation operators (module)
`systems`               dynamical systems and their registry (module)
`baselines`             climatology and interpolation, to compare with (module)
`densities`             log-prior and log-likelihood of trajectories (module)
======================  ====================================================================
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from . import accessor as accessor
from . import schema
from .schema import SdaxrError

if TYPE_CHECKING:
    from . import baselines, densities, operators, systems
    from .archive import open_archive
    from .assimilate import assimilate
    from .cycling import cycle
    from .denoise import denoise
    from .forecast import forecast
    from .generate import generate
    from .innovations import innovations
    from .masks import random_mask, strided_mask
    from .observations import observe
    from .plot import animate, plot
    from .prior import open_prior, priors, train
    from .systems import open_system
    from .verify import verify

__version__ = "0.1.0"

__all__ = [
    "generate",
    "train",
    "open_prior",
    "priors",
    "observe",
    "random_mask",
    "strided_mask",
    "assimilate",
    "cycle",
    "innovations",
    "forecast",
    "denoise",
    "verify",
    "plot",
    "animate",
    "open_archive",
    "open_system",
    "operators",
    "systems",
    "baselines",
    "densities",
    "schema",
    "SdaxrError",
    "__version__",
]

_FUNCTIONS = {
    "generate": "generate",
    "train": "prior",
    "open_prior": "prior",
    "priors": "prior",
    "observe": "observations",
    "random_mask": "masks",
    "strided_mask": "masks",
    "assimilate": "assimilate",
    "cycle": "cycling",
    "innovations": "innovations",
    "forecast": "forecast",
    "denoise": "denoise",
    "verify": "verify",
    "plot": "plot",
    "animate": "plot",
    "open_archive": "archive",
    "open_system": "systems",
}
_MODULES = ("operators", "systems", "baselines", "densities")


class _Package(types.ModuleType):
    # Some functions are named as the module that holds them. Importing `sdaxr.generate` must not put the
    # module in the function's place, whichever is touched first.
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FUNCTIONS and isinstance(value, types.ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        value = getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'sdaxr' has no attribute {schema.nearest(name, __all__)}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

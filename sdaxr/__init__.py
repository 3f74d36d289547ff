"""Score-based data assimilation for xarray: the table of contents.

The names below are loaded when they are first used, so that ``import sdaxr`` costs little more than
``import xarray``; it also registers the accessor ``.sda`` on Dataset and DataTree.

======================  ====================================================================
`generate`              trajectories of a dynamical system -> Zarr archive
`train`                 trajectories -> prior (one ``.safetensors`` file)
`Statistics`,           options of the training: what is known of the data, how the weights
`Optimisation`          are found
`networks`              score networks and their options (module)
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
`methods`               how observations guide a prior, and methods by a physical model (module)
`samplers`              how samples are drawn (module)
`baselines`             climatology and interpolation, to compare with (module)
`densities`             log-prior and log-likelihood of trajectories (module)
======================  ====================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sdaxr import accessor as accessor
from sdaxr import schema
from sdaxr.schema import VERSION, SdaxrError

if TYPE_CHECKING:
    from sdaxr import operators, systems
    from sdaxr.archives.reading import open_archive
    from sdaxr.inference.assimilate import assimilate
    from sdaxr.inference.cycle import cycle
    from sdaxr.inference.denoise import denoise
    from sdaxr.inference.forecast import forecast
    from sdaxr.observations.innovations import innovations
    from sdaxr.observations.masks import random_mask, strided_mask
    from sdaxr.observations.observe import observe
    from sdaxr.plotting.plot import animate, plot
    from sdaxr.posterior import methods
    from sdaxr.posterior.samplers import registry as samplers
    from sdaxr.prior import networks
    from sdaxr.prior.files import Prior, open_prior, priors
    from sdaxr.prior.settings import Optimisation, Statistics
    from sdaxr.prior.training import train
    from sdaxr.systems.generation import generate
    from sdaxr.systems.registry import open_system
    from sdaxr.verification import baselines, densities
    from sdaxr.verification.verify import verify

__version__ = VERSION

__all__ = [
    "generate",
    "train",
    "Statistics",
    "Optimisation",
    "networks",
    "open_prior",
    "priors",
    "Prior",
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
    "methods",
    "samplers",
    "baselines",
    "densities",
    "schema",
    "SdaxrError",
    "__version__",
]

# Where each name is defined; it is loaded when it is first used.
_HOMES = {
    "generate": "sdaxr.systems.generation",
    "train": "sdaxr.prior.training",
    "Statistics": "sdaxr.prior.settings",
    "Optimisation": "sdaxr.prior.settings",
    "open_prior": "sdaxr.prior.files",
    "priors": "sdaxr.prior.files",
    "Prior": "sdaxr.prior.files",
    "observe": "sdaxr.observations.observe",
    "random_mask": "sdaxr.observations.masks",
    "strided_mask": "sdaxr.observations.masks",
    "assimilate": "sdaxr.inference.assimilate",
    "cycle": "sdaxr.inference.cycle",
    "innovations": "sdaxr.observations.innovations",
    "forecast": "sdaxr.inference.forecast",
    "denoise": "sdaxr.inference.denoise",
    "verify": "sdaxr.verification.verify",
    "plot": "sdaxr.plotting.plot",
    "animate": "sdaxr.plotting.plot",
    "open_archive": "sdaxr.archives.reading",
    "open_system": "sdaxr.systems.registry",
}
_MODULES = {
    "networks": "sdaxr.prior.networks",
    "operators": "sdaxr.operators",
    "systems": "sdaxr.systems",
    "methods": "sdaxr.posterior.methods",
    "samplers": "sdaxr.posterior.samplers.registry",
    "baselines": "sdaxr.verification.baselines",
    "densities": "sdaxr.verification.densities",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'sdaxr' has no attribute {schema.nearest(name, __all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

"""Score-based data assimilation for xarray: the table of contents.

``import sdaxr`` costs little more than ``import xarray``: each name below is loaded when it is first used. The import
also registers the accessor ``.sda`` on Dataset and DataTree, whose methods are the functions below.

Trajectories and priors

======================  ==========================================================================================
`generate`              simulate trajectories of a dynamical system into a Zarr archive
`open_system`           a dynamical system by name
`systems`               module: dynamical systems, and how to add one
`train`                 train a prior on trajectories; the prior is one ``.safetensors`` file
`Statistics`            options of `train`: what is known of the statistics of the states
`Optimisation`          options of `train`: how the weights of the network are found
`networks`              module: score networks ``SpaceTimeUNet``, ``WindowUNet``, ``TemporalConvolution``,
                        ``ResidualMLP``
`open_prior`            a prior by name or path, as a `Prior`
`priors`                names of the shipped priors
======================  ==========================================================================================

Observations

======================  ==========================================================================================
`read_observations`     observations from CSV, Parquet, DataFrames, CF points, IODA, DART, altimetry
`observations`          module: preparation, such as ``superob``, ``thin`` and ``split``, and ``estimate_errors``
`observe`               make synthetic observations of a truth
`operators`             module: observation operators, such as ``coarsen``, ``points`` and ``vorticity``
`random_mask`           observed places at random
`strided_mask`          observed places at regular distances
`report`                the status of every observation: used, or why it is not
`Screening`             options of `assimilate` and `report`: which observations are used
`innovations`           observations minus H(posterior)
======================  ==========================================================================================

Posteriors and forecasts

======================  ==========================================================================================
`assimilate`            draw a posterior ensemble of trajectories given observations
`cycle`                 assimilate window after window; the ensemble of each is the background of the next
`methods`               module: methods with a prior ``SDA``, ``MMPS``, ``OI``, ``JacobianFree``, ``DMPS``, ``SOAD``,
                        ``DPS``; methods with a system ``FFBS``, ``BPF``, ``Kalman``, ``FourDVar``, ``EnKF``,
                        ``ETKF``, ``EnSRF``, ``LETKF``, ``EnKS``, ``IEnKS``, ``PFF``, ``EnSF``, ``EnFF``, ``Latent``
`samplers`              module: samplers ``SDEDPMSolver``, ``DPMSolver``, ``Ancestral``, ``DDIM``, ``Exponential``,
                        ``Twisted``
`forecast`              forecast from the last states of an ensemble, by a system or a prior
`denoise`               remove Gaussian noise from fields
======================  ==========================================================================================

Verification and figures

======================  ==========================================================================================
`verify`                scores of an ensemble against the truth
`calibrate`             simulation-based calibration: ranks of many truths among the members of their posteriors
`baselines`             module: climatology and interpolation, to compare with
`densities`             module: log-densities of trajectories, and of observations given trajectories
`plot`, `animate`       figures and animations of truth, observations, members, mean and spread
`open_archive`          open any of these files as a Dataset; unfinished archives are refused
`schema`                module: names of dimensions, and the errors, which derive from `SdaxrError`
======================  ==========================================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sdaxr.commands import starting

# Before anything that takes time to import.
starting.listen()

from sdaxr import accessor as accessor
from sdaxr import schema
from sdaxr.schema import VERSION, SdaxrError

if TYPE_CHECKING:
    from sdaxr import observations, operators, systems
    from sdaxr.archives.reading import open_archive
    from sdaxr.inference.assimilate import assimilate
    from sdaxr.inference.cycle import cycle
    from sdaxr.inference.denoise import denoise
    from sdaxr.inference.forecast import forecast
    from sdaxr.inference.report import report
    from sdaxr.observations.innovations import innovations
    from sdaxr.observations.masks import random_mask, strided_mask
    from sdaxr.observations.observe import observe
    from sdaxr.observations.read_observations import read_observations
    from sdaxr.observations.screening import Screening
    from sdaxr.plotting.animate import animate
    from sdaxr.plotting.plot import plot
    from sdaxr.posterior import methods
    from sdaxr.posterior.samplers import registry as samplers
    from sdaxr.prior import networks
    from sdaxr.prior.catalogue import priors
    from sdaxr.prior.files import Prior
    from sdaxr.prior.opening import open_prior
    from sdaxr.prior.settings import Optimisation, Statistics
    from sdaxr.prior.training import train
    from sdaxr.systems.generation import generate
    from sdaxr.systems.registry import open_system
    from sdaxr.verification import baselines, densities
    from sdaxr.verification.calibrate import calibrate
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
    "read_observations",
    "observations",
    "observe",
    "random_mask",
    "strided_mask",
    "assimilate",
    "cycle",
    "report",
    "Screening",
    "innovations",
    "forecast",
    "denoise",
    "verify",
    "calibrate",
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
    "open_prior": "sdaxr.prior.opening",
    "priors": "sdaxr.prior.catalogue",
    "Prior": "sdaxr.prior.files",
    "observe": "sdaxr.observations.observe",
    "read_observations": "sdaxr.observations.read_observations",
    "random_mask": "sdaxr.observations.masks",
    "strided_mask": "sdaxr.observations.masks",
    "assimilate": "sdaxr.inference.assimilate",
    "cycle": "sdaxr.inference.cycle",
    "report": "sdaxr.inference.report",
    "Screening": "sdaxr.observations.screening",
    "innovations": "sdaxr.observations.innovations",
    "forecast": "sdaxr.inference.forecast",
    "denoise": "sdaxr.inference.denoise",
    "verify": "sdaxr.verification.verify",
    "calibrate": "sdaxr.verification.calibrate",
    "plot": "sdaxr.plotting.plot",
    "animate": "sdaxr.plotting.animate",
    "open_archive": "sdaxr.archives.reading",
    "open_system": "sdaxr.systems.registry",
}
_MODULES = {
    "networks": "sdaxr.prior.networks",
    "observations": "sdaxr.observations",
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

"""Score-based priors: networks, their composition over a trajectory, training, and the file format."""

from sdaxr.prior.files import Prior, open_prior, priors
from sdaxr.prior.training import train

__all__ = ["Prior", "open_prior", "priors", "train"]

r"""Ensemble transform Kalman filter with the symmetric square root.

With the deviations X of the members, and the deviations Y of the predicted quantities and the innovation d in units of
the errors, the analysis of an ensemble of N members is (Hunt, Kostelich & Szunyogh 2007)

.. math::
    P = ((N - 1) I + Y Y^T)^{-1}, \qquad w = P Y d, \qquad T = \sqrt{N - 1}\, P^{1/2}, \qquad
    x_i \leftarrow \bar x + \sum_j (w_j + T_{ij}) X_j .

The symmetric square root changes the members as little as possible, and keeps their mean. Mean and covariance are those
of the Kalman filter for the covariance of the ensemble, without random numbers. A rotation of the deviations by a
random orthogonal matrix that maps the vector of ones to itself leaves both as they are (Sakov & Oke 2008); it brings
the ensemble back to a Gaussian distribution, which matters where the model is nonlinear.

References
----------
.. [1] Bishop, C. H., Etherton, B. J. & Majumdar, S. J. (2001). Adaptive sampling with the ensemble transform Kalman
   filter. doi:10.1175/1520-0493(2001)129<0420:ASWTET>2.0.CO;2
.. [2] Hunt, B. R., Kostelich, E. J. & Szunyogh, I. (2007). Efficient data assimilation for spatiotemporal chaos: a
   local ensemble transform Kalman filter. doi:10.1016/j.physd.2006.11.008
.. [3] Sakov, P. & Oke, P. R. (2008). Implications of the form of the ensemble transformation in the ensemble square
   root filters. doi:10.1175/2007MWR2021.1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from sdaxr.filters.ensemble import EnsembleFilter, Forecast, Update
from sdaxr.filters.inflation import finite_size_precision
from sdaxr.states.validation import Positive


@dataclass(frozen=True)
class ETKF(EnsembleFilter):
    r"""Ensemble transform Kalman filter (Hunt, Kostelich & Szunyogh 2007, doi:10.1016/j.physd.2006.11.008).

    .. math:: x_i \leftarrow \bar x + \sum_j (w_j + T_{ij}) X_j, \qquad w = P Y d, \qquad T = \sqrt{N - 1}\, P^{1/2}

    Any system, operators of any kind, Gaussian errors, which may be correlated. Members are draws of the filtering
    distribution where system and operators are linear and the ensemble is large.

    Parameters
    ----------
    inflation, rtps, rtpp, adaptive, adaptive_first
        As of `sdaxr.filters.ensemble.EnsembleFilter`.
    rotation
        Whether the deviations are rotated at random after each analysis.
    finite_size
        How sure the hyperprior of the finite-size filter (EnKF-N) is, which inflates before each analysis
        (`sdaxr.filters.inflation`): 1, or more for an ensemble that is better than draws. None: no such inflation.
    """

    name: ClassVar[str] = "etkf"

    rotation: bool = False
    finite_size: Positive | None = None

    def analyse(self, forecast: Forecast) -> Update:
        """Linear combinations of the members, the same for every element of the state."""
        weights = transform(*forecast.whitened, self.finite_size)
        if self.rotation:
            weights = rotated(weights, forecast.random)
        return partial(np.matmul, weights)


def transform(deviations: np.ndarray, innovation: np.ndarray, finite_size: float | None = None) -> np.ndarray:
    """Weights W of the members, (..., members, members): the analysis of an ensemble E, (members, n), is W E.

    Parameters
    ----------
    deviations
        Y, in units of the errors, shape (..., members, m).
    innovation
        d, in units of the errors, shape (..., m).
    finite_size
        As of `ETKF`.
    """
    members = deviations.shape[-2]
    values, vectors = np.linalg.eigh(deviations @ deviations.swapaxes(-1, -2))
    values, turned = values.clip(min=0.0), vectors.swapaxes(-1, -2)
    projected = (turned @ (deviations @ innovation[..., None]))[..., 0]
    prior = members - 1 if finite_size is None else finite_size_precision(values, projected, finite_size)[..., None]
    inverse = 1 / (values + prior)
    root = (vectors * np.sqrt((members - 1) * inverse)[..., None, :]) @ turned
    mean = (vectors @ (inverse * projected)[..., None]).swapaxes(-1, -2)
    # Weights of deviations become those of members, whose mean has equal weights.
    away = root + mean
    weights: np.ndarray = 1 / members + away - away.mean(-1, keepdims=True)
    return weights


def rotated(weights: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Weights whose deviations from the mean are rotated at random, all by one matrix, (..., members, members)."""
    mean = weights.mean(-2, keepdims=True)
    turned: np.ndarray = mean + rotation(weights.shape[-1], random) @ (weights - mean)
    return turned


def rotation(members: int, random: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix that maps the vector of ones to itself, (members, members), uniformly distributed."""
    # The QR decomposition of a Gaussian matrix with positive diagonal of R is uniform (Haar).
    q, r = np.linalg.qr(random.standard_normal((members - 1, members - 1)))
    inner = q * np.sign(np.diag(r))
    # An orthonormal basis whose first vector is that of ones, over its length.
    basis, _ = np.linalg.qr(np.column_stack([np.ones(members), np.eye(members)[:, 1:]]))
    rest = basis[:, 1:]
    turned: np.ndarray = np.full((members, members), 1 / members) + rest @ inner @ rest.T
    return turned

r"""Inflation: what makes up for the spread that an analysis with few members takes away too much.

Relaxation to the perturbations (Zhang et al. 2004) and to the spread (Whitaker & Hamill 2012) before the analysis, with
the deviations X of the members and the standard deviations s, b before and a after the analysis:

.. math:: X \leftarrow (1 - \alpha) X_a + \alpha X_b, \qquad
          X \leftarrow X_a \left(1 + \alpha \frac{s_b - s_a}{s_a}\right)

The finite-size filter (EnKF-N; Bocquet 2011; Bocquet, Raanes & Hannart 2015) takes the mean and the covariance of the
ensemble as draws, whose errors it integrates out. The analysis is then that of an ensemble whose deviations are
inflated before the analysis by :math:`\lambda`, found from the innovation d alone. In units of the errors, with the
singular values :math:`\sigma_i` of the predicted deviations Y, :math:`Y^T = \sum_i u_i \sigma_i v_i^T`, it is at the
minimum of the dual cost

.. math::
    J(\lambda) = \sum_i \frac{(u_i \cdot d)^2}{N - 1 + \lambda^2 \sigma_i^2} + \frac{|d_\perp|^2}{N - 1}
                 + \frac{\epsilon}{\lambda^2} + c \log \lambda^2, \qquad
    \epsilon = \frac{N + 1}{N}, \quad c = \frac{N}{N - 1}

where :math:`d_\perp` is what no member explains. Where observations say little, the mode of :math:`\lambda` should be
1: both constants are corrected by :math:`(\epsilon / c)^{\mp h / 2}` with the mean weight h of the prior in the
analysis (eq. 36 of the latter). A factor on both says how sure the hyperprior is: 1 for an ensemble of draws; more
where the ensemble of a deterministic model is better than random.

Adaptive inflation multiplies the variance of forecasts by a factor :math:`\Delta` that the innovations tell (Miyoshi
2011). Where m observations with the errors r have the innovations d and the forecast variances :math:`s^2`, weighted
with the taper :math:`\rho` of their distance from a point (1 without localisation),

.. math::
    \Delta^o = \frac{\sum_j \rho_j (d_j^2 / r_j - 1)}{\sum_j \rho_j s_j^2 / r_j}, \qquad
    v^o = 2 \frac{\sum_j \rho_j^2}{(\sum_j \rho_j)^2}
          \left(\Delta^b + \frac{\sum_j \rho_j}{\sum_j \rho_j s_j^2 / r_j}\right)^2

are an unbiased estimate and its variance, as if the innovations of one time were independent. The factor of the next
forecast is the mean of :math:`\Delta^o` and of the factor before, :math:`\Delta^b`, weighted by their variances
:math:`v^o` and :math:`v^b`, which is an option: how far the factor may move from one analysis to the next.

References
----------
.. [1] Zhang, F., Snyder, C. & Sun, J. (2004). Impacts of initial estimate and observation availability on
   convective-scale data assimilation with an EnKF. doi:10.1175/1520-0493(2004)132<1238:IOIEAO>2.0.CO;2
.. [2] Whitaker, J. S. & Hamill, T. M. (2012). Evaluating methods to account for system errors in ensemble data
   assimilation. doi:10.1175/MWR-D-11-00276.1
.. [3] Bocquet, M. (2011). Ensemble Kalman filtering without the intrinsic need for inflation.
   doi:10.5194/npg-18-735-2011
.. [4] Bocquet, M., Raanes, P. N. & Hannart, A. (2015). Expanding the validity of the ensemble Kalman filter without the
   intrinsic need for inflation. doi:10.5194/npg-22-645-2015
.. [5] Miyoshi, T. (2011). The Gaussian approach to adaptive covariance inflation and its implementation with the local
   ensemble transform Kalman filter. doi:10.1175/2010MWR3570.1
"""

from __future__ import annotations

import numpy as np

# Squares of the inflation factors among which the minimum of the dual cost is looked for, 0.25 to 100, and halvings of
# the interval between two of them.
_SQUARES, _HALVINGS = np.geomspace(0.25**2, 100.0**2, 121), 40

# Smallest factor on the variance. With one far below 1 an ensemble shrinks until innovations tell nothing about it.
_SMALLEST = 0.9


def relaxed_to_perturbations(before: np.ndarray, after: np.ndarray, alpha: float) -> np.ndarray:
    """The ensemble after an analysis with deviations relaxed to those before, (members, n) each."""
    mean = after.mean(0)
    relaxed: np.ndarray = mean + (1 - alpha) * (after - mean) + alpha * (before - before.mean(0))
    return relaxed


def relaxed_to_spread(before: np.ndarray, after: np.ndarray, alpha: float) -> np.ndarray:
    """The ensemble after an analysis with the spread of each element relaxed to that before, (members, n) each."""
    spread, wide = after.std(0), before.std(0)
    factor = 1 + alpha * np.divide(wide - spread, spread, out=np.zeros_like(spread), where=spread > 0)
    mean = after.mean(0)
    relaxed: np.ndarray = mean + factor * (after - mean)
    return relaxed


def finite_size_precision(values: np.ndarray, projected: np.ndarray, certainty: float) -> np.ndarray:
    r"""Precision of the prior weights, :math:`(N - 1) / \lambda^2` with the most likely inflation; shape (...).

    Parameters
    ----------
    values
        Eigenvalues :math:`\sigma_i^2` of Y Y^T, shape (..., members).
    projected
        Y d along the eigenvectors, shape (..., members).
    certainty
        Factor on both constants of the hyperprior.
    """
    members = values.shape[-1]
    unknown_mean, weight = (each[..., None] for each in hyperprior(values, certainty))
    squares = projected**2

    def slope(t: np.ndarray) -> np.ndarray:
        """t dJ/dt at t = lambda^2, (..., k)."""
        explained = squares[..., None, :] / (members - 1 + t[..., None] * values[..., None, :]) ** 2
        found: np.ndarray = weight - unknown_mean / t - t * explained.sum(-1)
        return found

    grid = np.broadcast_to(_SQUARES, (*values.shape[:-1], len(_SQUARES)))
    explained = squares[..., None, :] * grid[..., None] / (members - 1 + grid[..., None] * values[..., None, :])
    cost = unknown_mean / grid + weight * np.log(grid) - explained.sum(-1) / (members - 1)
    best = cost.argmin(-1)[..., None]
    low, high = (np.take_along_axis(grid, (best + by).clip(0, len(_SQUARES) - 1), -1) for by in (-1, 1))
    for _ in range(_HALVINGS):
        middle = np.sqrt(low * high)
        rising = slope(middle) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    precision: np.ndarray = (members - 1) / np.sqrt(low * high)[..., 0]
    return precision


def precision_at(weights: np.ndarray, values: np.ndarray, certainty: float) -> float:
    """Precision of the prior weights given the weights w, (members,), and the eigenvalues of Y Y^T, (members,)."""
    unknown_mean, weight = hyperprior(values, certainty)
    return float((len(weights) - 1) * weight / (unknown_mean + weights @ weights))


def hyperprior(values: np.ndarray, certainty: float) -> tuple[np.ndarray, np.ndarray]:
    """The constants epsilon and c, from the eigenvalues of Y Y^T, (..., members); shape (...) each."""
    members = values.shape[-1]
    unknown_mean, weight = (members + 1) / members, members / (members - 1)
    of_prior = ((members - 1) / (members - 1 + values)).mean(-1)
    correction = (unknown_mean / weight) ** (of_prior / 2)
    return certainty * unknown_mean / correction, certainty * weight * correction


def adapted_factor(
    factor: np.ndarray, deviation: float, squares: np.ndarray, variances: np.ndarray, tapers: np.ndarray
) -> np.ndarray:
    r"""The factor on the variance of the next forecast at each point, (points,); unchanged where nothing is observed.

    Parameters
    ----------
    factor
        :math:`\Delta^b`, the factor of this forecast, shape (points,).
    deviation
        :math:`\sqrt{v^b}`, how far the factor may move.
    squares, variances
        :math:`d^2 / r` and :math:`s^2 / r` without the factor, shape (m,).
    tapers
        :math:`\rho` of each observation at each point, shape (points, m).
    """
    weight, spread = tapers.sum(1), tapers @ variances
    near = (weight > 0) & (spread > 0)
    prior, weight, spread, tapers = factor[near], weight[near], spread[near], tapers[near]
    estimate = (tapers @ squares - weight) / spread
    error = 2 * (tapers**2).sum(1) / weight**2 * (prior + weight / spread) ** 2
    adapted = factor.copy()
    adapted[near] = (prior + deviation**2 / (deviation**2 + error) * (estimate - prior)).clip(min=_SMALLEST)
    return adapted

r"""Kalman filter, Rauch-Tung-Striebel smoother and draws of whole trajectories: exact for linear systems and operators.

For :math:`x_{t+1} = A x_t + b + N(0, Q)` and :math:`y_t = H_t x_t + h_t + N(0, R_t)` with a Gaussian first state, the
filter and smoother distributions are Gaussian. Forecast and analysis of the filter are

.. math::
    m_{t+1}^- = A m_t + b, \qquad P_{t+1}^- = A P_t A^T + Q

.. math::
    K = P_t^- H^T (H P_t^- H^T + R)^{-1}, \qquad m_t = m_t^- + K (y_t - H m_t^- - h), \qquad
    P_t = (I - K H) P_t^- (I - K H)^T + K R K^T

with the covariance in Joseph's form, which keeps it positive. The smoother is

.. math::
    G = P_t A^T (P_{t+1}^-)^{-1}, \qquad m_t^s = m_t + G (m_{t+1}^s - m_{t+1}^-), \qquad
    P_t^s = P_t + G (P_{t+1}^s - P_{t+1}^-) G^T

and a trajectory is drawn backwards in time (Frühwirth-Schnatter 1994) from

.. math:: x_t | x_{t+1} \sim N(m_t + G (x_{t+1} - m_{t+1}^-), P_t - G P_{t+1}^- G^T) .

References
----------
.. [1] Kalman, R. E. (1960). A new approach to linear filtering and prediction problems. doi:10.1115/1.3662552
.. [2] Rauch, H. E., Tung, F. & Striebel, C. T. (1965). Maximum likelihood estimates of linear dynamic systems.
   doi:10.2514/3.3166
.. [3] Frühwirth-Schnatter, S. (1994). Data augmentation and dynamic linear models.
   doi:10.1111/j.1467-9892.1994.tb00184.x
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.base import Drawn, ModelMethod
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import OptionError


@dataclass(frozen=True)
class Kalman(ModelMethod):
    r"""Kalman filter and backward draws (Kalman 1960, doi:10.1115/1.3662552; Rauch, Tung & Striebel 1965).

    .. math:: m_t = m_t^- + K (y_t - H m_t^- - h), \qquad K = P_t^- H^T (H P_t^- H^T + R)^{-1}

    Members are exact, independent draws of the posterior where system and operators are linear (plus a constant) and
    the first state and all errors are Gaussian. Other systems and observations are refused. There are no options.
    """

    name: ClassVar[str] = "kalman"
    gaussian: ClassVar[bool] = True

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error unless the first state and all errors are Gaussian, and system and operators linear."""
        super().check(model, members)
        probes = _probes(*_first_moments(model))
        linear_part(model.chain.transition_mean, probes, f"the system {model.chain.name}")
        for index, observation in enumerate(model.observations):
            if observation is not None:
                linear_part(observation.predict, probes, _operator_at(model, index))

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """Trajectories drawn backwards from the moments of the filter."""
        filtered = kalman_filter(model)
        return Drawn(draw_trajectories(filtered, members, seed), {"log_evidence": filtered.log_evidence})


@dataclass(frozen=True)
class KalmanFiltered:
    """Gaussian moments of the filter.

    Attributes
    ----------
    means, covariances
        m_t and P_t, moments of x_t given y_1..t; (time, n) and (time, n, n).
    predicted
        m_{t+1}^-, means of x_{t+1} given y_1..t, (time - 1, n).
    gains
        G, the regression of x_t on x_{t+1}, (time - 1, n, n).
    conditional
        Covariances of x_t given x_{t+1} and y_1..t, (time - 1, n, n).
    log_evidence
        log p(y), exact.
    """

    means: np.ndarray
    covariances: np.ndarray
    predicted: np.ndarray
    gains: np.ndarray
    conditional: np.ndarray
    log_evidence: float


def kalman_filter(model: StateSpaceModel) -> KalmanFiltered:
    """Run the filter over the window.

    Raises
    ------
    OptionError
        If the chain or an observation operator is not linear, or the first state is not Gaussian.
    """
    system = model.chain
    mean, covariance = _first_moments(model)
    probes = _probes(mean, covariance)
    transition, offset = linear_part(system.transition_mean, probes, f"the system {system.name}")
    noise = system.noise_covariance
    means, covariances, predicted, gains, conditional = [], [], [], [], []
    log_evidence = 0.0
    for index, observation in enumerate(model.observations):
        if index:
            forecast = transition @ mean + offset
            forecast_covariance = _symmetric(transition @ covariance @ transition.T + noise)
            gain = np.linalg.solve(forecast_covariance, transition @ covariance).T
            # P - G P^- G^T in Joseph's form, which stays positive.
            rest = np.eye(len(mean)) - gain @ transition
            conditional.append(_symmetric(rest @ covariance @ rest.T + gain @ noise @ gain.T))
            predicted.append(forecast)
            gains.append(gain)
            mean, covariance = forecast, forecast_covariance
        if observation is not None:
            operator, constant = linear_part(observation.predict, probes, _operator_at(model, index))
            error = observation.errors.covariance
            innovation = observation.values - operator @ mean - constant
            innovation_covariance = _symmetric(operator @ covariance @ operator.T + error)
            log_evidence += _log_gaussian(innovation, innovation_covariance)
            gain = np.linalg.solve(innovation_covariance, operator @ covariance).T
            rest = np.eye(len(mean)) - gain @ operator
            mean = mean + gain @ innovation
            covariance = _symmetric(rest @ covariance @ rest.T + gain @ error @ gain.T)
        means.append(mean)
        covariances.append(covariance)
    size = len(mean)
    return KalmanFiltered(
        np.array(means),
        np.array(covariances),
        np.reshape(predicted, (-1, size)),
        np.reshape(gains, (-1, size, size)),
        np.reshape(conditional, (-1, size, size)),
        log_evidence,
    )


def rts_smoother(filtered: KalmanFiltered) -> tuple[np.ndarray, np.ndarray]:
    """Means (time, n) and covariances (time, n, n) of the states given all observations."""
    means, covariances = filtered.means.copy(), filtered.covariances.copy()
    for time in reversed(range(len(means) - 1)):
        gain = filtered.gains[time]
        means[time] += gain @ (means[time + 1] - filtered.predicted[time])
        covariances[time] = filtered.conditional[time] + gain @ covariances[time + 1] @ gain.T
    return means, covariances


def draw_trajectories(filtered: KalmanFiltered, members: int, seed: int) -> np.ndarray:
    """Independent trajectories given all observations, shape (members, time, n)."""
    random = np.random.default_rng([seed, 3])
    length, size = filtered.means.shape
    noise = random.standard_normal((length, members, size))
    paths = np.empty((members, length, size))
    paths[:, -1] = filtered.means[-1] + noise[-1] @ _root(filtered.covariances[-1]).T
    for time in reversed(range(length - 1)):
        regression = (paths[:, time + 1] - filtered.predicted[time]) @ filtered.gains[time].T
        paths[:, time] = filtered.means[time] + regression + noise[time] @ _root(filtered.conditional[time]).T
    return paths


def linear_part(
    function: Callable[[np.ndarray], np.ndarray], probes: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (m, n) and offset (m,) of an affine function of states, (count, n) to (count, m).

    Raises
    ------
    OptionError
        If the function is not affine at the states ``probes``, shape (3, n).
    """
    first, second, third = probes
    corners = function(np.stack([first, second, third, first + second - third]))
    scale = np.abs(corners).max()
    if np.abs(corners[0] + corners[1] - corners[2] - corners[3]).max() > 1e-6 * scale:
        raise OptionError(f"method='kalman' needs linear functions, {what} is not linear; use method='ffbs' or '4dvar'")
    values = function(np.concatenate([third[None], third + np.eye(len(third))]))
    matrix = (values[1:] - values[0]).T
    return matrix, values[0] - matrix @ third


def _first_moments(model: StateSpaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n,) and covariance (n, n) of the first state."""
    moments = model.chain.initial_moments()
    if moments is None:
        raise OptionError(
            f"method='kalman' needs a Gaussian first state, the first state of {model.chain.name} is not; use "
            "method='ffbs'"
        )
    return moments


def _operator_at(model: StateSpaceModel, index: int) -> str:
    return f"the observation operator at {model.times.values[index]}"


def _probes(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Three states that are some standard deviations apart, shape (3, n)."""
    noise = np.random.default_rng(0).standard_normal((3, len(mean)))
    return mean + 3 * noise * np.sqrt(np.diag(covariance))


def _log_gaussian(deviation: np.ndarray, covariance: np.ndarray) -> float:
    _, logarithm = np.linalg.slogdet(2 * np.pi * covariance)
    return float(-(deviation @ np.linalg.solve(covariance, deviation) + logarithm) / 2)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    mean: np.ndarray = (matrix + matrix.T) / 2
    return mean


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = vectors * np.sqrt(values.clip(min=0))
    return root

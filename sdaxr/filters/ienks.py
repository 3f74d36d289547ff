r"""Iterative ensemble Kalman smoother: a nonlinear model is linearised about the analysis, and not about the forecast.

Observations y of one time change the ensemble at the start of a window, up to ``lag`` steps before. Its mean moves by a
combination w of the deviations X of the members at the start; G runs the model to y and observes it. With a Gaussian
ensemble, w is at the minimum of (Bocquet & Sakov 2014)

.. math:: J(w) = \tfrac{1}{2} |y - G(\bar x + w X)|^2_{R^{-1}} + \tfrac{1}{2} (N - 1) |w|^2 .

Gauss-Newton steps find it. The derivative Y of G along the members is the regression on an ensemble of the width of the
analysis, :math:`Y = T^{-1} (G(\bar x + (w + T) X) - \mathrm{mean})` (transform), or on an ensemble so narrow that it is
a finite difference (bundle, T replaced by :math:`\epsilon T`); T is that of the last step,

.. math:: P = ((N - 1) I + Y Y^T)^{-1}, \qquad T = \sqrt{N - 1}\, P^{1/2}, \qquad
          w \leftarrow w + P \left(Y (y - G) - (N - 1) w\right) .

Then the window moves on: the ensemble is forecast to the start of the next window. Each observation is used once. With
lag 0 the method is the maximum-likelihood ensemble filter; with the distance of two observations it is the iterative
ensemble Kalman filter (Sakov, Oliver & Bertino 2012).

With ``finite_size``, N - 1 in J and P is replaced in each step by :math:`(N - 1) c / (\epsilon + |w|^2)`, the precision
of the finite-size prior at w (`sdaxr.filters.inflation`; Bocquet & Sakov 2012).

References
----------
.. [1] Bocquet, M. & Sakov, P. (2014). An iterative ensemble Kalman smoother. doi:10.1002/qj.2236
.. [2] Sakov, P., Oliver, D. S. & Bertino, L. (2012). An iterative EnKF for strongly nonlinear systems.
   doi:10.1175/MWR-D-11-00176.1
.. [3] Bocquet, M. & Sakov, P. (2012). Combining inflation-free and iterative ensemble Kalman filters for strongly
   nonlinear systems. doi:10.5194/npg-19-383-2012
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sdaxr.filters.advancing import advanced
from sdaxr.filters.base import Drawn
from sdaxr.filters.ensemble import EnsembleMethod, FirstGuess, Forecast, first_of
from sdaxr.filters.etkf import rotation
from sdaxr.filters.inflation import precision_at
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.schema import DataError, OptionError
from sdaxr.states.validation import Factor, Natural, NotNegative, Positive, Steps

# Width of the ensemble of finite differences, as a fraction of that of the analysis.
_NARROW = 1e-4
_FORMS = ("transform", "bundle")
_MEMBERS = ("smoothing", "filtering")


@dataclass(frozen=True)
class IEnKS(EnsembleMethod):
    r"""Iterative ensemble Kalman smoother (Bocquet & Sakov 2014, doi:10.1002/qj.2236).

    .. math:: J(w) = \tfrac{1}{2} |y - G(\bar x + w X)|^2_{R^{-1}} + \tfrac{1}{2} (N - 1) |w|^2

    Deterministic systems, operators of any kind, Gaussian errors, which may be correlated.

    Parameters
    ----------
    lag
        Number of steps of the system from the start of the window to the observations.
    inflation
        Factor on the deviations from the mean at the start of the window, after each analysis.
    rotation
        Whether these deviations are rotated at random after each analysis.
    finite_size
        How sure the hyperprior of the finite-size prior is (`sdaxr.filters.inflation`). None: a Gaussian prior.
    form
        ``"transform"`` or ``"bundle"``: how the model is linearised.
    iterations
        Most Gauss-Newton steps.
    tolerance
        Steps end where the mean moves by fewer standard deviations of the ensemble.
    members_of
        Distribution that is returned: ``"smoothing"``, each state given observations until up to ``lag`` steps later,
        or ``"filtering"``, given those until its own time.
    """

    name: ClassVar[str] = "ienks"

    lag: Natural = 1
    inflation: Factor = 1.0
    rotation: bool = False
    finite_size: Positive | None = None
    form: str = "transform"
    iterations: Steps = 10
    tolerance: NotNegative = 1e-3
    members_of: str = "smoothing"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("form", self.form in _FORMS, f"one of {', '.join(_FORMS)}")
        self.expect("members_of", self.members_of in _MEMBERS, f"one of {', '.join(_MEMBERS)}")

    @property
    def distribution(self) -> str:
        """That of ``members_of``."""
        return self.members_of

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if the system is stochastic, or as the base class."""
        super().check(model, members)
        if model.system.stochastic:
            raise OptionError(
                f"method={self.name!r} is for deterministic systems, found {model.system.name} with noise; open it "
                "without noise, or use method='enks'"
            )

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """The ensemble at each time, (members, time, n)."""
        del members
        found = self.iterate(model, seed)
        return Drawn(found.smoothed if self.members_of == "smoothing" else found.filtered, found.about)

    def iterate(self, model: StateSpaceModel, seed: int) -> Iterated:
        """Run over the window; one run gives the members of both distributions."""
        random, ensemble = np.random.default_rng([seed, 4]), first_of(model)
        smoothed = np.empty((len(model), *ensemble.shape))
        filtered, statistics, steps = np.empty_like(smoothed), FirstGuess(), []
        start, last = 0, -1
        for index, observation in enumerate(model.observations):
            if observation is None:
                continue
            later = max(start, index - self.lag)
            smoothed[start : later + 1] = run(model, ensemble, start, later, random)
            ensemble, start = smoothed[later], later
            found = minimise(model, self, ensemble, (start, index), random)
            statistics.add(found.first_guess)
            steps.append(found.steps)
            # States since the last observation are forecast, from the start of this window or of the one before.
            filtered[last + 1 : start] = smoothed[last + 1 : start]
            since = max(last + 1, start)
            filtered[since : index + 1] = found.forecast[since - start :]
            filtered[index], last = found.analysis, index
            ensemble = self._widened(found.start, random)
        smoothed[start:] = run(model, ensemble, start, len(model) - 1, random)
        filtered[last + 1 :] = smoothed[last + 1 :]
        about = statistics.about | ({"mean_iterations": float(np.mean(steps))} if steps else {})
        return Iterated(filtered.swapaxes(0, 1), smoothed.swapaxes(0, 1), about)

    def _widened(self, ensemble: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The ensemble with inflation and rotation, (members, n)."""
        mean = ensemble.mean(0)
        away = self.inflation * (ensemble - mean)
        widened: np.ndarray = mean + (rotation(len(away), random) @ away if self.rotation else away)
        return widened


@dataclass(frozen=True)
class Iterated:
    """The ensemble at each time, and diagnostics.

    Attributes
    ----------
    filtered, smoothed
        Given the observations until each time, and until up to ``lag`` steps later; (members, time, n).
    about
        Diagnostics, for the attributes of the result.
    """

    filtered: np.ndarray
    smoothed: np.ndarray
    about: Mapping[str, float]


@dataclass(frozen=True)
class Minimised:
    """What the observations of one state have made of an ensemble.

    Attributes
    ----------
    start
        The ensemble at the start of the window, (members, n).
    forecast
        The ensemble before, at the states of the window, (time, members, n).
    analysis
        The ensemble at the observed state, (members, n).
    first_guess
        The ensemble before and the observations.
    steps
        Number of Gauss-Newton steps.
    """

    start: np.ndarray
    forecast: np.ndarray
    analysis: np.ndarray
    first_guess: Forecast
    steps: int


def minimise(
    model: StateSpaceModel, method: IEnKS, ensemble: np.ndarray, window: tuple[int, int], random: np.random.Generator
) -> Minimised:
    """Gauss-Newton steps to the minimum of J for the observations at the end of a window.

    Parameters
    ----------
    ensemble
        Members at the start of the window, (members, n).
    window
        Indices of its first state and of the observed state.
    """
    observation = model.observations[window[1]]
    if observation is None:
        raise DataError(f"found no observation at state {window[1]}, expected one at the end of the window")
    members, mean, width = len(ensemble), ensemble.mean(0), _NARROW if method.form == "bundle" else 1.0
    away, w, identity = ensemble - mean, np.zeros(len(ensemble)), np.eye(len(ensemble))
    turn = undo = identity
    first = states = _wide(run(model, mean + width * away, *window, random), 1 / width)
    steps = 0
    while True:
        # Y and d in units of the errors. The predictions are those of the narrow ensemble, where there is one.
        seen = Forecast(_wide(states[-1], width), observation, None, random)
        deviations, innovation = seen.whitened
        deviations = undo @ deviations / width
        values, vectors = np.linalg.eigh(deviations @ deviations.T)
        values = values.clip(min=0.0)
        prior = members - 1 if method.finite_size is None else precision_at(w, values, method.finite_size)
        change = (vectors / (values + prior)) @ vectors.T @ (deviations @ innovation - prior * w)
        before, w = turn, w + change
        turn = np.sqrt(members - 1) * (vectors / np.sqrt(values + prior)) @ vectors.T
        undo = (vectors * np.sqrt(values + prior)) @ vectors.T / np.sqrt(members - 1)
        steps += 1
        if steps == method.iterations or np.sqrt((members - 1) * change @ change) < method.tolerance:
            break
        states = _wide(run(model, mean + (w + width * turn) @ away, *window, random), 1 / width)
    # The last step is linear: the model is not run again.
    analysis = states[-1] + (change + turn - before) @ (first[-1] - first[-1].mean(0))
    guess = Forecast(first[-1], observation, None, random)
    return Minimised(mean + (w + turn) @ away, first, analysis, guess, steps)


def run(model: StateSpaceModel, ensemble: np.ndarray, first: int, last: int, random: np.random.Generator) -> np.ndarray:
    """States of the members from the state ``first``, (members, n), to ``last``; (last - first + 1, members, n)."""
    if last == first:
        return ensemble[None]
    return np.concatenate([ensemble[None], advanced(model, ensemble, last - first, random, first)])


def _wide(states: np.ndarray, factor: float) -> np.ndarray:
    """Ensembles (..., members, n) with deviations from the mean by a factor."""
    mean = states.mean(-2, keepdims=True)
    wide: np.ndarray = states if factor == 1 else mean + factor * (states - mean)
    return wide

r"""Ensemble Kalman smoother: each analysis of a filter changes the states before it, too.

An ensemble estimates the covariances of states at different times as well as those within a state. What an analysis
does to the members at its time (`sdaxr.filters.ensemble.Update`), it therefore does to the same members at earlier
times (Evensen & van Leeuwen 2000). With a lag, only states of the last steps change: what many analyses add to states
long ago is the noise of few members (Khare et al. 2008). The last state is that of the filter. Inflation widens the
state of the analysis only, and not those before it.

References
----------
.. [1] Evensen, G. & van Leeuwen, P. J. (2000). An ensemble Kalman smoother for nonlinear dynamics.
   doi:10.1175/1520-0493(2000)128<1852:AEKSFN>2.0.CO;2
.. [2] Khare, S. P., Anderson, J. L., Hoar, T. J. & Nychka, D. (2008). An investigation into the application of an
   ensemble Kalman smoother to high-dimensional geophysical systems. doi:10.1111/j.1600-0870.2007.00281.x
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from sdaxr.filters.base import Drawn
from sdaxr.filters.ensemble import EnsembleFilter, EnsembleMethod, forward
from sdaxr.filters.etkf import ETKF
from sdaxr.filters.state_space import StateSpaceModel
from sdaxr.posterior.methods import METHODS, Method
from sdaxr.schema import OptionError
from sdaxr.states.validation import Natural


@dataclass(frozen=True)
class EnKS(EnsembleMethod):
    r"""Ensemble Kalman smoother (Evensen & van Leeuwen 2000, doi:10.1175/1520-0493(2000)128<1852:AEKSFN>2.0.CO;2).

    .. math:: x_i(s) \leftarrow \bar x(s) + \sum_j (w_j + T_{ij}) X_j(s), \qquad s \le t

    Members are trajectories of the smoothing distribution where system and operators are linear and the ensemble is
    large. Any system, operators and errors that the filter takes.

    Parameters
    ----------
    filter
        The filter whose analyses are applied to earlier states, too: a name, an object or a mapping of options, such
        as ``{"name": "letkf", "localisation": 4}``. Default: `ETKF`.
    lag
        Number of steps of the system back to which an analysis acts. None: to the first state.
    """

    name: ClassVar[str] = "enks"

    filter: Any = field(default=ETKF(), metadata={"registry": METHODS})
    lag: Natural | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.filter, EnsembleFilter) or not self.filter.transfers:
            found = self.filter.name if isinstance(self.filter, Method) else self.filter
            raise OptionError(
                f"found filter={found!r} for EnKS, expected a filter whose analysis acts on states of any time: "
                "'etkf', 'enkf', 'ensrf' or 'letkf'"
            )

    def continued(self, about: Mapping[str, Any]) -> Self:
        """The smoother with the filter that goes on where a result with the attributes ``about`` ends."""
        return replace(self, filter=self.filter.continued(about))

    def check(self, model: StateSpaceModel, members: int) -> None:
        """Raise an error if the filter cannot use the observations or the system."""
        self.filter.check(model, members)

    def draw(self, model: StateSpaceModel, members: int, seed: int) -> Drawn:
        """The ensemble at each time, (members, time, n), given the observations until ``lag`` steps later."""
        del members
        return forward(model, self.filter, seed, len(model) if self.lag is None else self.lag)

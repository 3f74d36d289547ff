r"""Localisation: observations act on the states near them only.

Covariances that few members estimate are mostly noise between distant points. They are tapered by the fifth-order
function of Gaspari & Cohn (1999, eq. 4.10), which looks like a Gaussian function and vanishes beyond 2 c,

.. math::
    \rho(z) = \begin{cases}
    1 - \tfrac{5}{3} z^2 + \tfrac{5}{8} z^3 + \tfrac{1}{2} z^4 - \tfrac{1}{4} z^5 & 0 \le z \le 1 \\
    4 - 5 z + \tfrac{5}{3} z^2 + \tfrac{5}{8} z^3 - \tfrac{1}{2} z^4 + \tfrac{1}{12} z^5 - \tfrac{2}{3 z}
    & 1 \le z \le 2 \end{cases}

with z the distance over c. Distances are in the units of the coordinates, the shorter way round along periodic
dimensions; on the sphere they are great circles in km. As long as 2 c is at most half of each period, or half of the
circumference of the Earth, the taper of these distances is a correlation, too: a function on the line or in space that
vanishes so early keeps its positive Fourier coefficients on a circle, and on the sphere (Gneiting 2013).

References
----------
.. [1] Gaspari, G. & Cohn, S. E. (1999). Construction of correlation functions in two and three dimensions.
   doi:10.1002/qj.49712555417
.. [2] Gneiting, T. (2013). Strictly and non-strictly positive definite functions on spheres. doi:10.3150/12-BEJSP06
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdaxr.observations.observed import ObservedPoints
from sdaxr.schema import TIME, DataError, OptionError
from sdaxr.states.axes import is_latitude, is_longitude
from sdaxr.states.coordinates import EARTH_RADIUS, separation
from sdaxr.systems.base import System
from sdaxr.systems.layout import system_layout

# Networks whose tapers are kept: those that take turns, but not each place of a moving instrument.
_NETWORKS = 8


def gaspari_cohn(distance: np.ndarray, half: float) -> np.ndarray:
    """The taper of Gaspari & Cohn (1999, eq. 4.10) at distances of any shape; ``half`` is c, half of its support."""
    z = np.abs(distance) / half
    near = 1 - 5 / 3 * z**2 + 5 / 8 * z**3 + z**4 / 2 - z**5 / 4
    far = 4 - 5 * z + 5 / 3 * z**2 + 5 / 8 * z**3 - z**4 / 2 + z**5 / 12 - 2 / (3 * np.maximum(z, 1.0))
    taper: np.ndarray = np.where(z <= 1, near, np.where(z < 2, far, 0.0))
    return taper.clip(0.0, 1.0)


@dataclass(frozen=True)
class Points:
    """Where the points of a system's grid are.

    Attributes
    ----------
    places
        Coordinates of the points by dimension, shape (points,) each.
    turns
        For each dimension the length of its circle, None where it is bounded.
    channels
        Number of values at each point: a state vector holds the points of one channel after those of another.
    globe
        Dimensions of latitude and longitude, where the points have both.
    scalars
        Number of values without a place after the channels, such as parameters. They are near to everything.
    """

    places: Mapping[str, np.ndarray]
    turns: Mapping[str, float | None]
    channels: int
    globe: tuple[str, str] | None = None
    scalars: int = 0
    _tapers: dict[Any, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, system: System) -> Points:
        """The points of the grid of ``system``.

        Raises
        ------
        OptionError
            If a state has no space, a dimension has no numbers as coordinate, or variables have different dimensions.
        """
        layout, template = system_layout(system), system.template()
        if not layout.space:
            raise OptionError(
                f"localisation= needs places, a state of {system.name} has none (it is the scalars "
                f"{', '.join(map(str, template.data_vars))}); leave localisation= out, or take method='etkf'"
            )
        bare = [d for d in layout.space if d not in layout.coords or layout.coords[d].values.dtype.kind not in "fiu"]
        if bare:
            raise OptionError(f"localisation= needs numbers as coordinate of {bare} of {system.name}, found none")
        grid = np.meshgrid(*(np.asarray(layout.coords[d].values, float) for d in layout.space), indexing="ij")
        places = {d: values.ravel() for d, values in zip(layout.space, grid, strict=True)}
        turns = {d: layout.coords[d].turn if p else None for d, p in zip(layout.space, layout.periodic, strict=True)}
        # Values without a place come last in a state vector (`sdaxr.systems.augmented`).
        shapes = [v.sizes for v in template.data_vars.values()]
        scalars = next((i for i, sizes in enumerate(reversed(shapes)) if sizes), 0)
        fields = shapes[: len(shapes) - scalars]
        channels, rest = divmod(system.size - scalars, grid[0].size)
        if rest or any(sizes.get(d) != layout.sizes[d] for sizes in fields for d in layout.space):
            raise OptionError(f"localisation= needs variables of one grid, those of {system.name} have several")
        rules = (is_latitude, is_longitude)
        globe = [d for rule in rules for d in layout.space if rule(d, layout.coords[d].attrs)]
        return cls(places, turns, channels, (globe[0], globe[1]) if len(globe) == len(rules) else None, scalars)

    @property
    def count(self) -> int:
        """Number of points."""
        return len(next(iter(self.places.values())))

    def distances(self, observed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Distances of all points from observed places, and zeros for the scalars, (points + scalars, m).

        Parameters
        ----------
        observed
            Coordinates of the observations by name, (m,) each. An observation that has none along a dimension, such as
            a mean along it, is everywhere along this dimension.

        Raises
        ------
        DataError
            If an observation has no place at all, or one of latitude and longitude only.
        """
        apart = self._between(self.places, self.known(observed))
        return np.pad(apart, ((0, self.scalars), (0, 0)))

    def among(self, observed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Distances of observed places from each other, (m, m); parameters and errors of `distances`."""
        known = self.known(observed)
        return self._between(known, known)

    def tapers(self, observed: Mapping[str, np.ndarray], half: float) -> np.ndarray:
        """Tapers between all points and observed places, (points, m); parameters and errors of `distances`.

        Those of the last networks are kept: most networks observe the same places again and again.
        """
        return self._kept("points", observed, half, self.distances)

    def tapers_among(self, observed: Mapping[str, np.ndarray], half: float) -> np.ndarray:
        """Tapers between observed places, (m, m), kept like `tapers`; parameters and errors of `distances`."""
        return self._kept("among", observed, half, self.among)

    def spread(self, per_point: np.ndarray) -> np.ndarray:
        """Values at the elements of a state vector, (n, ...), from those at points and scalars, as of `distances`."""
        return np.concatenate([per_point[: self.count]] * self.channels + [per_point[self.count :]])

    def known(self, observed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Coordinates of observations along the dimensions of the grid, (m,) each; as `distances` checks them."""
        count = len(next(iter(observed.values()), ()))
        known = {d: np.asarray(observed.get(d, np.full(count, np.nan)), float) for d in self.places}
        there = np.stack([np.isfinite(values) for values in known.values()])
        lost = ~(there.all(0) if self.globe else there.any(0))
        if not observed or lost.any():
            raise DataError(
                f"localisation= needs the place of each observation along {' or '.join(self.places)}, found "
                f"{int(lost.sum()) or 'all'} without; give the output of the operator these coordinates, or leave "
                "localisation= out"
            )
        return known

    def _kept(
        self,
        kind: str,
        observed: Mapping[str, np.ndarray],
        half: float,
        distances: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    ) -> np.ndarray:
        key = (kind, half, *((name, np.asarray(places).tobytes()) for name, places in sorted(observed.items())))
        if key not in self._tapers:
            while len(self._tapers) >= _NETWORKS:
                del self._tapers[next(iter(self._tapers))]
            self._tapers[key] = gaspari_cohn(distances(observed), half)
        return self._tapers[key]

    def _between(self, here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> np.ndarray:
        if self.globe is not None:
            return _great_circles(*(here[name] for name in self.globe), *(there[name] for name in self.globe))
        apart = [separation(here[d][:, None], there[d], self.turns[d]) for d in self.places]
        squares: np.ndarray = np.sum([np.nan_to_num(each) ** 2 for each in apart], axis=0)
        distances: np.ndarray = np.sqrt(squares)
        return distances


def coordinates_of(points: ObservedPoints) -> dict[str, np.ndarray]:
    """Coordinates of observations, apart from time, by name; (m,) each, NaN where an observation has none."""
    template, ends = points.template, np.cumsum([0, *map(len, points.where.values())])
    found: dict[str, np.ndarray] = {}
    for (name, where), first in zip(points.where.items(), ends[:-1], strict=True):
        dims = template.variables[name].dims
        index = dict(zip(dims, np.unravel_index(where, template.shape(name)) if dims else (), strict=True))
        for key, coord in template.coords.items():
            along = (key,) if coord.dims is None else coord.dims
            if key == TIME or coord.values.dtype.kind not in "fiu" or not along or not set(along) <= set(dims):
                continue
            values = found.setdefault(key, np.full(ends[-1], np.nan))
            values[first : first + len(where)] = coord.values[tuple(index[d] for d in along)]
    return found


def _great_circles(lat: np.ndarray, lon: np.ndarray, other_lat: np.ndarray, other_lon: np.ndarray) -> np.ndarray:
    """Distances along the surface of the Earth in km, (points, m), of places in degrees."""
    here, there = (
        np.stack([np.cos(p) * np.cos(q), np.cos(p) * np.sin(q), np.sin(p)], axis=-1)
        for p, q in ((np.deg2rad(lat), np.deg2rad(lon)), (np.deg2rad(other_lat), np.deg2rad(other_lon)))
    )
    # The chord is exact for small distances, where the cosine has lost its digits.
    chord = np.sqrt(((here[:, None] - there) ** 2).sum(-1))
    angle: np.ndarray = 2 * np.arcsin((chord / 2).clip(max=1.0))
    return EARTH_RADIUS / 1000 * angle

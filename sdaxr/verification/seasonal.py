"""The climatology of trajectories by time of day and year, for baselines (`sdaxr.states.seasonal`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sdaxr.schema import MEMBER, TIME, DataError
from sdaxr.states.axes import ensemble_dimension
from sdaxr.states.climatology import Climatology
from sdaxr.states.harmonics import resolved_harmonics
from sdaxr.states.infer import climatology_of
from sdaxr.states.time import calendar_of, check_kind, time_stretches


@dataclass(frozen=True)
class Seasons:
    """Climatology of each variable of some trajectories.

    Attributes
    ----------
    trajectories
        The trajectories, ``([ensemble], time, ...)``.
    known
        The climatology of each variable that changes in time; its one channel has all other dimensions.
    """

    trajectories: xr.Dataset
    known: Mapping[str, Climatology]

    @classmethod
    def of(cls, trajectories: xr.Dataset) -> Seasons | None:
        """The climatology; None where times are no calendar, irregular, or cover neither days nor a year."""
        times = trajectories[TIME]
        if times.size < 2 or not calendar_of(times):
            return None
        try:
            axis, _ = time_stretches(trajectories)
        except DataError:
            return None
        harmonics = resolved_harmonics(times, axis)
        names = [str(n) for n, v in trajectories.data_vars.items() if TIME in v.dims and v.dtype.kind == "f"]
        if not harmonics.terms or not names:
            return None
        known = {n: climatology_of(trajectories[[n]], (), None, _rest(trajectories[n]), axis, harmonics) for n in names}
        return cls(trajectories, known)

    def at(self, times: xr.DataArray) -> tuple[xr.Dataset, xr.Dataset]:
        """Mean and standard deviation at ``times`` (n,), on (time dimension of ``times``, ...); NaN where no data are.

        Raises
        ------
        DataError
            If the times are of another calendar.
        """
        own = self.trajectories[TIME]
        check_kind(
            times,
            "cftime" if own.dtype.kind == "O" else "datetime",
            of="like",
            like="the trajectories",
            calendar=calendar_of(own),
        )
        parts: list[dict[str, xr.DataArray]] = [{}, {}]
        for name, climatology in self.known.items():
            values = self.trajectories[name]
            seen = values.notnull().any([d for d in values.dims if d not in _rest(values)]).compute()
            dims = (times.dims[0], *_rest(values))
            for part, array in zip(parts, climatology.at(times), strict=True):
                part[name] = xr.DataArray(array[:, 0], dims=dims).where(seen).transpose(*dims)
        return xr.Dataset(parts[0]), xr.Dataset(parts[1])

    def moved(self, drawn: xr.Dataset, origins: np.ndarray, times: xr.DataArray) -> xr.Dataset:
        """States (member, time, ...) of other times, as anomalies in units of the standard deviations, at ``times``.

        Parameters
        ----------
        drawn
            The states.
        origins
            Numbers of their own times in the trajectories, (member, time).
        times
            The times to which they are moved, (time,).
        """
        mean, std = self.at(times)
        found: dict[str, list[xr.Variable]] = {name: [] for name in self.known}
        for number, own in enumerate(origins):
            usual, spread = self.at(self.trajectories[TIME].isel({TIME: own}).rename({TIME: times.dims[0]}))
            for name, members in found.items():
                state = drawn[name].isel({MEMBER: number}).transpose(*mean[name].dims).variable
                anomaly = (state - usual[name].variable) / spread[name].variable
                members.append(mean[name].variable + std[name].variable * anomaly)
        together = {name: xr.Variable.concat(members, MEMBER) for name, members in found.items()}
        return drawn.assign({n: drawn[n].copy(data=v.transpose(*drawn[n].dims).values) for n, v in together.items()})


def _rest(values: xr.DataArray) -> tuple[str, ...]:
    """Dimensions except time and the ensemble."""
    return tuple(str(d) for d in values.dims if d not in (TIME, ensemble_dimension(values)))

"""Posterior members on their way into memory or into an archive."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.archive import Archive, open_archive
from sdaxr.schema import MEMBER, TIME


@dataclass
class Ensemble:
    """A posterior Dataset that is being filled, member after member.

    Attributes
    ----------
    template
        The labels of the result.
    archive
        Where the members go; None for memory.
    waiting
        Members that are not there yet.
    """

    template: xr.Dataset
    archive: Archive | None
    waiting: set[int]
    _members: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        template: xr.Dataset,
        attrs: dict[str, Any],
        *,
        store: str | Path | None,
        overwrite: bool,
        finite: bool,
    ) -> Ensemble:
        """An ensemble with the labels of ``template``; its archive is resumed if it is there with the same ``attrs``.

        ``finite`` says whether all of its values have to be.

        Raises
        ------
        ArchiveError
            If the store cannot be written, or holds something else.
        """
        template = template.assign_attrs(attrs)
        template[MEMBER].attrs.update(standard_name="realization", long_name="posterior sample", units="1")
        members, times = template.sizes[MEMBER], template[TIME]
        if store is None:
            return cls(template, None, set(range(members)))
        config = {k: v for k, v in attrs.items() if k != "sdaxr_version"} | {"members": members}
        config |= {"start": str(times.values[0]), "states": times.size}
        archive = Archive.create(store, template, MEMBER, config, attrs, overwrite=overwrite, finite=finite)
        return cls(template, archive, set(archive.pending()))

    @property
    def complete(self) -> bool:
        """Whether there is a finished archive already."""
        return self.archive is not None and self.archive.complete

    def write(self, member: int, fields: dict[str, np.ndarray]) -> None:
        """Take the fields of one member, {variable: (time, *space)}, unless they are there already."""
        if self.archive is None:
            self._members[member] = fields
        elif member in self.waiting:
            self.archive.write(member, fields)

    def dataset(self, attrs: dict[str, Any] | None = None) -> xr.Dataset:
        """The complete ensemble; ``attrs`` are what is known at the end only."""
        if self.archive is not None:
            return open_archive(self.archive.finalise(attrs))
        names = map(str, self.template.data_vars)
        stacked = {v: np.stack([self._members[m][v] for m in sorted(self.waiting)]) for v in names}
        filled = {v: (self.template[v].dims, a, self.template[v].attrs) for v, a in stacked.items()}
        return self.template.assign(filled).assign_attrs(attrs or {})

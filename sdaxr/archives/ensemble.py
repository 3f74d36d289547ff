"""Members of an ensemble on their way into memory or into an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from sdaxr.archives.creation import UnitArchive, create_archive
from sdaxr.archives.host import check_room, free_here
from sdaxr.archives.members import Part
from sdaxr.archives.paths import Location
from sdaxr.archives.reading import open_archive
from sdaxr.schema import MEMBER, TIME, VALID_TIME

# Copies of the members in memory, at the end: one by one, and in the result.
COPIES = 2


def member_attrs(long_name: str) -> dict[str, str]:
    """Attributes of the coordinate ``member``, by which other packages recognise an ensemble (CF standard name)."""
    return {"standard_name": "realization", "long_name": long_name, "units": "1"}


@dataclass
class Ensemble:
    """An ensemble that is being filled, member after member.

    Attributes
    ----------
    template
        The labels of the result.
    archive
        Where the members go; None for memory.
    waiting
        Members that are not there yet, and that this process draws.
    part
        Members that this process draws.
    """

    template: xr.Dataset
    archive: UnitArchive | None
    waiting: set[int]
    part: Part
    _members: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        template: xr.Dataset,
        attrs: dict[str, Any],
        *,
        store: str | Location | None,
        overwrite: bool,
        finite: bool,
        member: str = "posterior sample",
        part: Part | None = None,
    ) -> Ensemble:
        """An ensemble with the labels of ``template``; its archive is resumed if it is there with the same ``attrs``.

        Parameters
        ----------
        template
            All labels, on (member, time or lead time, ...); its values are not looked at.
        attrs
            Provenance: what determines the values, but for the labels.
        store
            Path or URL of the archive, None for memory.
        overwrite
            Make an archive that is there anew.
        finite
            Whether all values have to be finite.
        member
            What a member is, the ``long_name`` of the coordinate.
        part
            Members that this process draws. Default: all.

        Raises
        ------
        ArchiveError
            If the store cannot be written, or holds something else.
        OptionError
            If the members do not fit into memory, where there is no store.
        """
        labelled = template.assign_attrs(attrs)
        labelled = labelled.assign_coords({MEMBER: (MEMBER, template[MEMBER].values, member_attrs(member))})
        members, times = template.sizes[MEMBER], template[TIME if TIME in template.coords else VALID_TIME]
        own = part or Part(0, members, members)
        if store is None:
            needed = COPIES * template.nbytes * len(own.numbers) / members
            check_room(
                needed, free_here(), "the ensemble, in memory, takes",
                "give a store= for it, which keeps few members in memory, or take fewer members or steps",
            )  # fmt: skip
            return cls(labelled, None, set(own.numbers), own)
        config = {k: v for k, v in attrs.items() if k != "sdaxr_version"} | {"members": members}
        config |= {"start": str(times.values[0]), "states": times.size}
        archive = create_archive(store, labelled, MEMBER, config, attrs, overwrite=overwrite, finite=finite)
        waiting = set(archive.pending()).intersection(own.numbers)
        if waiting:
            archive.sign(own.numbers)
        return cls(labelled, archive, waiting, own)

    @property
    def complete(self) -> bool:
        """Whether there is a finished archive already."""
        return self.archive is not None and self.archive.complete

    @property
    def lacking(self) -> int:
        """Number of members, of all processes, that are not in the archive; 0 in memory."""
        return 0 if self.archive is None else len(self.archive.pending())

    @property
    def notes(self) -> dict[str, Any]:
        """Attributes of the unfinished archive, with those of `restart`; empty in memory."""
        return {} if self.archive is None else self.archive.notes()

    def note(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Add `notes` where they are not there, for runs that resume and for other processes; all of them."""
        return attrs if self.archive is None else self.archive.note(attrs)

    def restart(self, attrs: dict[str, Any]) -> None:
        """Forget all members, which are to be drawn in another way; ``attrs`` tell it to a run that resumes."""
        self._members.clear()
        self.waiting = set(range(self.template.sizes[MEMBER]))
        if self.archive is not None:
            self.archive = self.archive.restart(attrs)

    def members(self, numbers: Sequence[int]) -> xr.Dataset:
        """Members that are there, given by their numbers."""
        if self.archive is not None:
            return self.archive.units(numbers)
        return self._filled(sorted(numbers))

    def write(self, member: int, fields: dict[str, np.ndarray]) -> None:
        """Take the fields of one member, {variable: (time, *space)}, unless they are there already."""
        if self.archive is None:
            self._members[member] = fields
        elif member in self.waiting:
            self.archive.write(member, fields)

    def fail(self, member: int, error: Exception) -> None:
        """Note in the archive that one member diverged, so that the others go on; anything else is raised."""
        if self.archive is None or not isinstance(error, ArithmeticError):
            raise error
        self.archive.fail(member, f"{type(error).__name__}: {error}")

    def dataset(self, attrs: dict[str, Any] | None = None) -> xr.Dataset:
        """The complete ensemble, or the part of it; ``attrs`` are what is known at the end only.

        Raises
        ------
        ArchiveError
            If members are missing or have failed (they are listed).
        """
        if self.archive is not None:
            found = open_archive(self.archive.finalise(attrs))
            return found if self.part.whole else found.isel({MEMBER: slice(self.part.start, self.part.stop)})
        return self._filled(sorted(self._members)).assign_attrs(attrs or {})

    def _filled(self, numbers: list[int]) -> xr.Dataset:
        """The members in memory."""
        fields = self.template.data_vars
        # Of the labels alone: a list of numbers copies what is indexed with it.
        labels = self.template.drop_vars(list(fields)).isel({MEMBER: numbers})
        stacked = {str(v): np.stack([self._members[m][str(v)] for m in numbers]) for v in fields}
        return labels.assign({v: (fields[v].dims, a, fields[v].attrs) for v, a in stacked.items()})

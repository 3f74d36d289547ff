"""Members of a posterior ensemble: drawn in batches, and drawn again, together, where they disagree about the mode.

The first `sdaxr.posterior.modes.ENOUGH` members are drawn and tested before the others. Where the test fails, all
members are drawn by `sdaxr.samplers.Twisted`. Both draws take at most three times the evaluations of the sampler that
was asked for. In large states the weights of particles may leave a single one, whose members are worse than those that
were drawn independently. Then members are drawn independently after all, at the cost of one draw more.

However they are drawn, members are moved among their images under the symmetries of the prior
(`sdaxr.posterior.orbits`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from sdaxr.archives.creation import UnitArchive
from sdaxr.archives.ensemble import Ensemble
from sdaxr.archives.format import BATCH
from sdaxr.archives.members import Part
from sdaxr.archives.paths import Location
from sdaxr.archives.workers import active_client, free_on_workers, map_units, send, worker_count
from sdaxr.inference.problem import Problem
from sdaxr.inference.remaining import telling
from sdaxr.posterior.execution import batch_size, sample_batch
from sdaxr.posterior.linear import Likelihood
from sdaxr.posterior.modes import ENOUGH, Agreement, agreement, stray
from sdaxr.posterior.samplers.registry import describe_sampler
from sdaxr.schema import MEMBER, ArchiveError
from sdaxr.states.isolation import isolated
from sdaxr.states.parameters import warn_of_residuals

_log = logging.getLogger(__name__)

# Seed, archive, and the arguments chunk and most of `draw_batch`.
_How = tuple[int, UnitArchive | None, int, int | None]
# Cost of both draws, over that of the first one.
_MOST = 3.0
# Attributes of a result whose members have been drawn again, and of its unfinished archive: the sampler, and why its
# members were not kept.
_AGAIN, _FAILED = "mixing_sampler", "mixing_failed"
# Below this effective number all members descend from one particle, whose mode is a matter of chance.
_ONE = 2.0


def draw(
    problem: Problem,
    attrs: dict[str, Any],
    *,
    part: Part,
    seed: int,
    store: str | Location | None,
    batch: int | None,
    overwrite: bool,
    progress: bool,
) -> xr.Dataset:
    """Sample the members of a part of an ensemble, or all, into memory or into an archive.

    Batches run on the workers of the active client, or in this process where there is none.

    Raises
    ------
    ArchiveError
        If members are missing that this process was to draw; if the members of several processes disagree about the
        mode.
    """
    template = problem.layout.template(problem.times, {MEMBER: np.arange(part.of)})[problem.opened.states]
    finite, found = problem.layout.mask is None, dict[str, Any]()
    if problem.factors is not None:
        # No part of what an archive is identified by: on another machine the last digits may differ.
        found["variance_factors"] = " ".join(f"{factor:.4g}" for factor in problem.factors.tolist())
    ensemble = Ensemble.create(template, attrs, store=store, overwrite=overwrite, finite=finite, part=part)
    if ensemble.complete:
        return ensemble.dataset()
    drawing = _Drawing(problem, ensemble, part.of, seed, batch, progress)
    if part.whole:
        return ensemble.dataset(found | drawing.run())
    ensemble.note(found)
    last = drawing.run_part()
    if ensemble.lacking:
        _log.info("members %s of '%s' are complete; %d others are missing", part, store, ensemble.lacking)
        return ensemble.members(part.numbers)
    return ensemble.dataset(found | last)


@dataclass(frozen=True)
class _Drawing:
    """What all draws of an ensemble have in common."""

    problem: Problem
    ensemble: Ensemble
    members: int
    seed: int
    batch: int | None
    progress: bool

    def run(self) -> dict[str, Any]:
        """Draw all members that are not there yet; attributes of the result."""
        everyone = range(self.members)
        if not self.problem.mixes:
            return self._sample(self.problem, everyone)
        first, found = everyone[:ENOUGH], dict[str, Any]()
        if _AGAIN not in self.ensemble.notes:
            # Where many are far from the observations, all are drawn together instead.
            found = self._sample(self.problem, first, stray(len(first)))
            tested = self._tested(first)
            found["mode_test"] = str(tested)
            if tested.holds:
                return found | self._sample(self.problem, everyone[len(first) :])
        cost = self.problem.cost * len(first) / self.members
        together = self.problem.mixed(_MOST * self.problem.cost - cost)
        again = {f"mixing_{key}": value for key, value in describe_sampler(together.sampler).items()}
        if _AGAIN not in self.ensemble.notes:
            _log.info("members disagree about the mode (%s), so all are drawn again, together", tested)
            self.ensemble.restart(found | again)
        if _FAILED not in self.ensemble.notes:
            if not self.ensemble.waiting:
                # A run that was killed after its last member has not told how many of them are effective.
                self.ensemble.restart({})
            found |= self._sample(together, everyone) | again
            effective = float(found.get("effective_members", self.members))
            if effective >= _ONE or self.members < _ONE:
                return self._mixed(found, first, cost + together.cost)
            del found["effective_members"]
            found[_FAILED] = self._refused(effective)
            self.ensemble.restart(found)
        found |= self._sample(self.problem, everyone)
        return found | {"evaluations_per_member": round(cost + together.cost + self.problem.cost, 1)}

    def run_part(self) -> dict[str, Any]:
        """Draw the members of this process that are not there yet; attributes of the result.

        They are the members that `run` draws, before it tests them. The process that finds all members complete tests
        them; it does not draw them again, because other processes may not know that yet.
        """
        everyone, problem = range(self.members), self.problem
        self._check_alone()
        if not problem.mixes:
            return self._sample(problem, everyone)
        first = everyone[:ENOUGH]
        found = self._sample(problem, first, stray(len(first))) | self._sample(problem, everyone[len(first) :])
        if self.ensemble.lacking or self.ensemble.archive is None:
            return found
        tested = self._tested(first)
        found["mode_test"] = str(tested)
        if not tested.holds:
            self.ensemble.note(found)
            raise ArchiveError(
                f"'{self.ensemble.archive.path}' has all members, which disagree about the mode ({tested}); draw them "
                f"together in one process (members={self.members}), or keep them as they are (sdaxr finish)"
            )
        return found

    def _check_alone(self) -> None:
        """Raise `ArchiveError` if another process draws all members together."""
        if _AGAIN in self.ensemble.notes:
            raise ArchiveError(
                "the members of this archive disagreed about the mode and are drawn together; draw them in one process "
                f"(members={self.members})"
            )

    def _refused(self, effective: float) -> str:
        """Warn that members that were drawn together are not kept; the reason."""
        why = f"{effective:.1f} of {self.members} members effective"
        _log.warning(
            "members disagree about the mode, and drawing them together leaves one of them (%s), so they are drawn "
            "independently: the shares of modes are uncertain; take a sampler with more steps and corrections, or "
            "observe something more",
            why,
        )
        return why

    def _mixed(self, found: dict[str, Any], first: range, cost: float) -> dict[str, Any]:
        """Attributes of the result of members that were drawn together."""
        tested = self._tested(first)
        if not tested.agree_with_observations:
            _log.warning(
                "members disagree about the mode even where they are drawn together (%s); take more members or a "
                "sampler with more steps, or observe something more",
                tested,
            )
        return found | {"evaluations_per_member": round(cost, 1)}

    def _tested(self, numbers: Sequence[int]) -> Agreement:
        states = self.problem.normalised(self.ensemble.members(numbers))
        return agreement(Likelihood(self.problem.observations), states, self.problem.orbits)

    def _sample(self, problem: Problem, numbers: range, most: int | None = None) -> dict[str, Any]:
        """Sample those of some members that are not there yet; attributes of the result."""
        client, size = active_client(), self._size
        # A resumed run has the same batches as the first run, because rounding depends on the size of a batch.
        step = len(numbers) if problem.sampler.together else size
        batches = [numbers[i : i + step] for i in range(0, len(numbers), max(1, step))]
        part = self.ensemble.part
        batches = [range(max(b.start, part.start), min(b.stop, part.stop)) for b in batches]
        batches = [b for b in batches if self.ensemble.waiting.intersection(b)]
        found = dict[str, Any]()
        run = self._in_process if client is None else partial(self._on_workers, client)
        for drawn in run(problem, batches, (self.seed, self.ensemble.archive, size, most)):
            for member, fields in drawn.fields.items():
                self.ensemble.write(member, fields)
            found |= drawn.about
        self.ensemble.waiting.difference_update(numbers)
        return found

    @cached_property
    def _size(self) -> int:
        """Members of a batch, of every draw; a run that resumes, and another process, has those of the first one."""
        if self.batch is not None:
            return self._fitting(self.batch)
        return int(self.ensemble.notes.get(BATCH) or self.ensemble.note({BATCH: self._fitting()})[BATCH])

    def _fitting(self, asked: int | None = None) -> int:
        """Members of a batch that fit in memory, and leave none of the workers idle; or as many as were asked for."""
        problem, client, members = self.problem, active_client(), len(self.ensemble.part.numbers)
        free = None if client is None or problem.target.type == "cuda" else free_on_workers(client)
        one = problem.guided.select(torch.tensor([0]))
        size = batch_size(one, problem.shape, members, problem.target, asked=asked, free=free)
        return (
            size
            if client is None or asked is not None
            else min(size, max(1, math.ceil(members / worker_count(client))))
        )

    def _in_process(self, problem: Problem, batches: list[range], how: _How) -> Iterator[Drawn]:
        total = sum(map(len, batches)) * problem.algorithm.evaluations
        with tqdm(total=total, disable=not self.progress or not batches, desc="assimilating", unit="evaluation") as bar:
            tick = telling(bar.update, total, what="assimilation")
            for number in range(len(batches)):
                yield draw_batch(number, problem, batches, *how, tick)

    def _on_workers(self, client: Any, problem: Problem, batches: list[range], how: _How) -> Iterator[Drawn]:
        # The problem is sent once; as a plain argument, the observations would be sent with every batch.
        sent = send(client, problem.loaded())
        drawn = map_units(
            draw_batch, range(len(batches)), sent, batches, *how,
            progress=self.progress, description="assimilating", resource="GPU",
        )  # fmt: skip
        with closing(drawn):  # Pending batches are cancelled at once on an error, while the client still exists.
            for _, outcome in drawn:
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome


@dataclass(frozen=True)
class Drawn:
    """The members of one batch.

    Attributes
    ----------
    fields
        {member: {variable: (time, ...)}}; empty where the members are in an archive already.
    about
        Attributes of the result that the sampling found.
    """

    fields: dict[int, dict[str, np.ndarray]]
    about: dict[str, float]


@isolated()
def draw_batch(
    number: int,
    problem: Problem,
    batches: Sequence[Sequence[int]],
    seed: int,
    archive: UnitArchive | None,
    chunk: int,
    most: int | None = None,
    tick: Callable[[int], Any] = lambda _: None,
) -> Drawn:
    """Sample the members of one batch, and write each member into its region of the archive.

    Without an archive, the fields of the members are returned. Members that depend on each other are one batch, of
    which ``chunk`` are evaluated at once. ``most`` is as in `sample_batch`.
    """
    members, sampler = batches[number], problem.sampler
    states, about = sample_batch(
        problem.guided, problem.algorithm, members, problem.shape, seed=seed, device=problem.target,
        attempts=1 if sampler.together else sampler.attempts, most=most, chunk=chunk, tick=tick,
    )  # fmt: skip
    likelihood = problem.guided.select(torch.tensor(list(members))).likelihood
    drawn = states.to(problem.target)
    states = problem.orbits.moved(likelihood, drawn, members, seed, together=sampler.together).cpu()
    layout, augmentation = problem.layout, problem.opened.augmentation
    warn_of_residuals(layout, states.numpy())
    pairs = zip(members, states.numpy(), strict=True)
    fields = {m: augmentation.without(layout.to_physical(state, problem.times)) for m, state in pairs}
    if archive is None:
        return Drawn(fields, about)
    for member, values in fields.items():
        if not archive.is_complete(member):
            archive.write(member, values)
    return Drawn({}, about)

"""The cerebellum's part of a sleep, after the contexts': its training, the gate, publication.

It has its own lineage, per model that it grew from, and counts what is new by itself: a change of the base leaves it
alone, and it learns from all contexts at once. Resumable as the rest of the sleep: what is decided stands in the
database (a version of this consolidation), what is under way in `checkpoints/<consolidation>/cerebellum/`. That there
is no cerebellum is no error: the report says so. Asynchronous where the database is; the arithmetic runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from npllm.config import Config
from npllm.memory.cerebellum import CONTEXT as NAME  # its folder among the checkpoints, and what progress is told of
from npllm.memory.store import Store
from npllm.models.manifest import TEMPORARY
from npllm.sleep import another_base, cerebellum_pruning, leftover, project
from npllm.sleep.cerebellum_gathering import Job, Origin, beside_another, gather, origin_of, passages_for
from npllm.sleep.details import Curve
from npllm.sleep.ignoring import Ignoring
from npllm.sleep.interruption import look
from npllm.sleep.meter import Meter
from npllm.sleep.plan import Plan
from npllm.sleep.project import Passage
from npllm.sleep.protocol import Message, Phase
from npllm.sleep.report import CerebellumReport, SliceKind, SliceReport
from npllm.types import CerebellumVersion, Consolidation, Experience, ModelError, VersionState, new_id

if TYPE_CHECKING:
    from npllm.models.cerebellum import Calibration
    from npllm.sleep.checkpoint import Position
    from npllm.sleep.verdict import Verdict

log = logging.getLogger(__name__)

Decided = Callable[[CerebellumReport], Awaitable[object]]

MEASURE_SHARE = 0.1  # of the training's time, at most, to see what surprises it still
TRAIN_SHARE = 0.6  # of its time; the rest is for the plastic layer, judging and calibrating


class CerebellumStep:
    """One sleep's.

    Args:
        folder: of the checkpoints of this consolidation.
        stop: set when the person is back.
    """

    def __init__(
        self, store: Store, config: Config, tell: Callable[[Message], None], folder: Path, stop: threading.Event
    ) -> None:
        self._store, self._config, self._tell, self._stop = store, config, tell, stop
        self._folder = folder / NAME
        self._origin: Origin | None = None
        self._absent = ""
        self.share = 0.0  # of the sleep's time

    async def look(self) -> None:
        """See whether there is a cerebellum; then it gets its share of the time."""
        settings = self._config.cerebellum
        if not settings.enabled:
            return
        try:
            self._origin = await asyncio.to_thread(origin_of, self._config)
        except ModelError as error:
            self._absent = str(error)
        else:
            self.share = settings.time_share

    async def wanted(self, consolidation: UUID) -> bool:
        """After `look`: whether `run` would have something to do. Raises Interrupted, StoreError."""
        if self._origin is None:
            return False
        try:
            found = await gather(self._store, self._config, self._origin, consolidation, self._stop)
        except ModelError:  # `run` says so in its report
            return False
        return not (found is None or isinstance(found, CerebellumReport))

    async def run(self, current: Consolidation, decided: Decided) -> CerebellumReport | None:
        """After `look`: train, judge and publish; None where it is off, or has been decided in this consolidation.

        Args:
            decided: told of a version as soon as it has its row; there may be more to do then.

        Raises:
            Interrupted: the person is back; what was done is kept.
            StoreError: the database is away.
        """
        if self._origin is None:
            return CerebellumReport(reason=self._absent) if self._absent else None
        _sweep(self._config.cerebellum_dir)
        try:
            found = await gather(self._store, self._config, self._origin, current.id, self._stop)
            if found is None or isinstance(found, CerebellumReport):
                return found
            made = await (self._ask_anew if found.anew else self._learn)(current, found)
            await decided(made)
            if not (found.anew or made.published):
                made = await self._ask_former(current, found, made)
            every = await self._store.cerebellum.versions()
            unneeded = cerebellum_pruning.spare(every, self._config.sleep.keep_rejected)
            await asyncio.to_thread(cerebellum_pruning.prune, self._config.home, unneeded)
            return made
        except ModelError as error:  # the adapters' part of the sleep stands
            return CerebellumReport(reason=str(error))

    async def _ask_former(self, current: Consolidation, job: Job, made: CerebellumReport) -> CerebellumReport:
        """The report on what was rejected, after the version that stays in use was asked about another base."""
        try:
            beside = await beside_another(self._store, self._config, job.origin, job.parent, job.start)
            said = (await self._ask_anew(current, beside)).reason if beside else ""
        except ModelError as error:
            said = str(error)
        return replace(made, reason=f"{made.reason} {said}".rstrip())

    async def _ask_anew(self, current: Consolidation, job: Job) -> CerebellumReport:
        assert job.parent is not None
        meter = Meter(self._tell, NAME, 1.0 - self.share, self.share)
        meter.phase(Phase.PREPARING)
        off_limits = await self._store.forgetting.off_limits()
        passages = await asyncio.to_thread(passages_for, self._config, job, str(current.id), off_limits, self._stop)
        said = await another_base.ask_anew(
            *(self._store, self._config, job.parent, job.part, passages, current.id, self._stop, meter)
        )
        return CerebellumReport(reason=said)

    async def _learn(self, current: Consolidation, job: Job) -> CerebellumReport:
        began = time.monotonic()
        meter = Meter(self._tell, NAME, 1.0 - self.share, self.share, Curve(self._folder))
        meter.phase(Phase.PREPARING)
        plan, experiences, passages = await self._planned(job)
        off_limits = await self._store.forgetting.off_limits()
        final = self._config.cerebellum_dir / str(plan.version_id)

        from npllm.sleep.cerebellum_learner import CerebellumLearner

        learner = await asyncio.to_thread(
            CerebellumLearner,
            *(self._config, job.start, plan, experiences, passages, self._folder, self._stop, meter, off_limits),
            *(job.apart, job.lineage),
        )
        position = await asyncio.to_thread(learner.train)
        verdict = await asyncio.to_thread(learner.judge)
        await asyncio.to_thread(learner.tell)
        calibration = await asyncio.to_thread(learner.calibrate, verdict)
        known = await asyncio.to_thread(learner.known) if verdict.passed else []
        look(self._stop)
        meter.phase(Phase.PUBLISHING)
        made = _report(plan, learner.passages, position, verdict, calibration, len(known), time.monotonic() - began)
        waiting = leftover.words(len(learner.untrained), len(plan.learn))
        new, old = learner.counts
        made = replace(made, new=new, old=old, reason=" ".join(filter(None, (made.reason, waiting))))
        metrics = _metrics(made, verdict, plan) | {leftover.LEFT: float(len(learner.untrained))}
        version = CerebellumVersion(
            id=plan.version_id,
            origin=job.origin,
            parent=plan.parent,
            consolidation_id=current.id,
            folder=final.relative_to(self._config.home).as_posix(),
            sha256=await asyncio.to_thread(learner.write, final, current.id, metrics, calibration, verdict.lives),
            state=VersionState.PUBLISHED if verdict.passed else VersionState.REJECTED,
            reason=verdict.reason,
            metrics=metrics,
            created_at=datetime.now(UTC),
        )
        if verdict.passed:
            await self._store.cerebellum.publish(version, known, held_out=plan.held_out)
            surprise = await asyncio.to_thread(learner.surprise, within_s=plan.budget_s * MEASURE_SHARE)
            await self._store.replay.note_surprise(NAME, job.origin, surprise)
        else:
            await self._store.cerebellum.insert(version)
        return made

    async def _planned(self, job: Job) -> tuple[Plan, dict[UUID, Experience], tuple[Passage, ...]]:
        """The plan kept from an earlier part of this sleep, where it still holds; else a new one, kept now."""
        parent = job.parent.id if job.parent else None
        kept = Plan.read(self._folder)
        if kept is not None and (kept.context, kept.base_fingerprint, kept.parent) == (NAME, job.origin, parent):
            found = await self._experiences(kept, job)
            passages = project.kept(self._folder)
            if found is not None and passages is not None and self._may_be_read(passages):
                return kept, found, passages
        shutil.rmtree(self._folder, ignore_errors=True)
        budget = self._config.sleep.max_minutes * 60 * self.share * TRAIN_SHARE
        plan = Plan.new(
            *(NAME, job.origin, parent, job.part),
            slices=job.slices,
            until=job.until,
            budget_s=budget,
            version_id=new_id(),
        )
        off_limits = await self._store.forgetting.off_limits()
        passages = await asyncio.to_thread(
            passages_for, self._config, job, str(plan.version_id), off_limits, self._stop
        )
        project.keep(self._folder, passages)
        plan.write(self._folder)
        found = await self._experiences(plan, job)
        assert found is not None
        return plan, found, passages

    def _may_be_read(self, passages: Sequence[Passage]) -> bool:
        """Whether no passage that was kept is of a file that is to be left alone by now."""
        ignoring = Ignoring(self._config.memory.ignore)
        return not any(ignoring.leaves_alone_file(one.project, one.path) for one in passages)

    async def _experiences(self, plan: Plan, job: Job) -> dict[UUID, Experience] | None:
        """Those that a plan names; None if one is gone from the database, or its file is to be left alone by now."""
        ignoring = Ignoring(self._config.memory.ignore)
        known = {item.id: item for item in (*job.part.all, *job.judged_again)}
        found: dict[UUID, Experience] = {}
        for id in plan.ids:
            look(self._stop)
            item = known.get(id) or await self._store.experience(id)
            if item is None or (id not in known and ignoring.leaves_alone(item.place)):
                return None
            found[id] = item
        return found


def _report(
    plan: Plan,
    passages: Sequence[Passage],
    position: Position,
    verdict: Verdict,
    calibration: Calibration,
    patterns: int,
    seconds: float,
) -> CerebellumReport:
    alone, beside = verdict.alone, verdict.beside
    return CerebellumReport(
        version=str(plan.version_id),
        parent=str(plan.parent) if plan.parent else "",
        published=verdict.passed,
        reason=verdict.reason,
        new=len(plan.learn),
        old=len(plan.replay),
        passages=len(passages),
        held_out=len(plan.held_out),
        nll_before=alone.nll_before,
        nll_after=alone.nll_after,
        gain=alone.gain,
        gain_low=alone.gain_low,
        gain_high=alone.gain_high,
        nll_plain=verdict.nll["plain"],
        nll_plastic=verdict.nll.get("plastic"),
        nll_zeroed=verdict.nll.get("zeroed"),
        plastic=verdict.lives,
        threshold=calibration.threshold,
        judged_lines=calibration.lines,
        answered=calibration.answered,
        right=calibration.right,
        share=calibration.share,
        way=verdict.way,
        beside_before=beside.nll_before if beside else None,
        beside_after=beside.nll_after if beside else None,
        beside_low=beside.gain_low if beside else None,
        beside_high=beside.gain_high if beside else None,
        slices=_retained(verdict),
        patterns=patterns,
        steps=position.step,
        tokens=position.tokens,
        tokens_per_s=position.tokens / max(position.seconds, 1e-6),
        seconds=seconds,
    )


def _retained(verdict: Verdict) -> tuple[SliceReport, ...]:
    if verdict.beside is not None:
        return tuple(one for one in verdict.beside.slices if one.kind is not SliceKind.NEW)
    return tuple(one for one in verdict.alone.slices if one.kind is SliceKind.OLD)


def _metrics(made: CerebellumReport, verdict: Verdict, plan: Plan) -> dict[str, float]:
    names = ("nll_before", "nll_after", "gain", "gain_low", "gain_high", "way", "steps", "tokens_per_s", "seconds")
    counts = ("new", "old", "held_out", "judged_lines", "answered", "right", "patterns")
    values = {name: float(getattr(made, name)) for name in (*names, *counts)}
    say = ("beside_before", "beside_after", "beside_low", "beside_high")
    values |= {name: float(value) for name in say if (value := getattr(made, name)) is not None}
    values |= verdict.marks
    return values | {f"nll_{name}": value for name, value in verdict.nll.items()} | {"until": plan.until.timestamp()}


def _sweep(folder: Path) -> None:
    """Remove what a killed sleep left half-written."""
    for path in folder.glob(TEMPORARY + "*"):
        log.info("removing %s, left by a sleep that did not end", path)
        shutil.rmtree(path, ignore_errors=True)

"""A sleep from beginning to end: what is new, a training for each context, the gate, publication, the report.

Resumable everywhere: what is decided stands in the database (a version of this consolidation), what is under way in
`checkpoints/<consolidation>/<context>/` (the plan, the training's state). A version is first a whole folder, then, in
one transaction with its announcement, a row; a folder without a row is nobody's. Asynchronous where the database is;
the arithmetic (`learner`) runs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from npllm.config import Config
from npllm.memory.scrubbing import finish
from npllm.memory.store import Store
from npllm.models.manifest import TEMPORARY, WEIGHTS
from npllm.sleep import archive, attending, details, leftover, needs, policy_learning, project, rehearsal
from npllm.sleep.cerebellum import CerebellumStep
from npllm.sleep.details import Curve
from npllm.sleep.gate import GENERAL, best_key, bytes_key, tokens_key
from npllm.sleep.gathering import Job, gather
from npllm.sleep.ignoring import Ignoring
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.meter import Meter
from npllm.sleep.plan import Plan, folder_name
from npllm.sleep.project import Passage
from npllm.sleep.protocol import Ending, Finished, Message, Phase, Progress
from npllm.sleep.record import Record
from npllm.sleep.report import CerebellumReport, ContextReport, Report, SliceKind, Verdict
from npllm.types import (
    AdapterVersion,
    Consolidation,
    ConsolidationState,
    Experience,
    StoreError,
    VersionState,
    new_id,
)

if TYPE_CHECKING:
    from npllm.sleep.gate import Judgement
    from npllm.sleep.learner import Learner, Task
    from npllm.sleep.trainer import Outcome

log = logging.getLogger(__name__)

CHARACTERS = 3  # of a passage, for each token that an example may have: then its text fits whole
TRAIN_SHARE = 0.8  # of the time; the rest is for loading and judging
MEASURE_SHARE = 0.1  # of the training's time: then, how surprising each experience still is, for the next replay


class Sleep:
    """One run of the child, which holds the trainer lock.

    Args:
        tell: gets every message for the parent; called from any thread.
        stop: set when the person is back.
    """

    def __init__(self, store: Store, config: Config, tell: Callable[[Message], None], stop: threading.Event) -> None:
        self._store = store
        self._config = config
        self._tell = tell
        self._stop = stop
        self._began = time.monotonic()
        self._earlier_s = 0.0
        self._drawn_by: UUID | None = None  # the consolidation: with the same id and store, a sleep draws the same

    async def run(self, run_id: UUID) -> Finished:
        """Consolidate; `run_id` becomes the consolidation's id unless an unfinished one is gone on with.

        Raises:
            NpllmError: it failed. The consolidation is marked so, unless it is the database that is away.
        """
        self._tell(Progress(Phase.GATHERING))
        base = await asyncio.to_thread(self._fingerprint)
        look(self._stop)
        await finish(self._store, self._config)  # of a forgetting that was cut short
        unfinished = await self._store.interrupted_consolidation()
        current = unfinished or Consolidation(run_id, ConsolidationState.RUNNING, datetime.now(UTC))
        self._drawn_by = current.id
        report = self._opened(unfinished, base)
        checkpoints = self._config.checkpoints_dir / str(current.id)
        _sweep(self._config.adapters_dir, self._config.checkpoints_dir, keep=checkpoints)
        jobs, waiting = await gather(self._store, self._config, base, current.id, self._stop)
        cerebellum = CerebellumStep(self._store, self._config, self._tell, checkpoints, self._stop)
        await cerebellum.look()
        wanted = bool(jobs) or unfinished is not None
        if not (wanted or await needs.others(self._store, self._config, base, current.id, cerebellum, self._stop)):
            text = " ".join(part.text for part in waiting) or "There is nothing new to learn."
            return Finished(Ending.NOTHING, text)
        report = await self._mark(current, ConsolidationState.RUNNING, report)
        try:
            gains = await attending.consolidate(self._store, self._config, base, current.id, self._stop, self._tell)
            if gains:
                report = replace(report, contexts=(*report.contexts, *gains))
                report = await self._mark(current, ConsolidationState.RUNNING, report)
            total = sum(len(job.part.learn) for job in jobs)
            before = 0.0
            for job in jobs:
                share = len(job.part.learn) / total * (1.0 - cerebellum.share)
                folder = checkpoints / folder_name(job.context)
                meter = Meter(self._tell, job.context, before, share, Curve(folder))
                before += share
                budget = self._config.sleep.max_minutes * 60 * TRAIN_SHARE * share
                made = await self._context(current, job, report.base_fingerprint, folder, budget, meter)
                report = replace(report, contexts=(*report.contexts, made))
                report = await self._mark(current, ConsolidationState.RUNNING, report)

            async def decided(made: CerebellumReport) -> None:
                nonlocal report
                report = await self._mark(current, ConsolidationState.RUNNING, replace(report, cerebellum=made))

            if (of_cerebellum := await cerebellum.run(current, decided)) is not None:
                await decided(of_cerebellum)
            policy = await policy_learning.learn(self._store, self._config, base, current.id, self._stop)
            report = replace(report, policy=policy or report.policy)
        except Interrupted:
            report = await self._mark(current, ConsolidationState.INTERRUPTED, report)
            return Finished(Ending.INTERRUPTED, "A checkpoint waits for the next sleep.", report)
        except StoreError:
            raise  # the row stays as it is: the next sleep goes on
        except Exception as error:
            report = await self._mark(current, ConsolidationState.FAILED, replace(report, problem=str(error)))
            _archive(self._config.home, current, report, checkpoints, run_id)
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise
        report = replace(report, contexts=(*report.contexts, *waiting))
        report = await self._mark(current, ConsolidationState.DONE, report)
        _archive(self._config.home, current, report, checkpoints, run_id)
        shutil.rmtree(checkpoints, ignore_errors=True)
        with contextlib.suppress(Interrupted):  # then the next sleep goes on with it
            await self._store.retention.prune(self._config.memory, lambda: look(self._stop))
        return Finished(Ending.DONE, report.text, report)

    def _fingerprint(self) -> str:
        from npllm.models.base import fingerprint, resolve  # torch comes with it

        return fingerprint(resolve(self._config.base.model), self._config.home / "cache")

    def _opened(self, unfinished: Consolidation | None, base: str) -> Report:
        """A new report, or that of the sleep that is gone on with."""
        fresh = Report(base=self._config.base.model, base_fingerprint=base)
        if unfinished is None:
            return fresh
        try:
            kept = Report.from_json(unfinished.report)
        except (ValueError, TypeError, KeyError) as error:
            log.warning("the report of %s cannot be read: %s", unfinished.id, error)
            return replace(fresh, parts=2)
        if kept.base_fingerprint != base:
            return replace(fresh, parts=kept.parts + 1)
        self._earlier_s = kept.seconds
        return replace(kept, parts=kept.parts + 1)

    def _seconds(self) -> float:
        return self._earlier_s + time.monotonic() - self._began

    async def _mark(self, current: Consolidation, state: ConsolidationState, report: Report) -> Report:
        """Write down how far it is; returns the report as it stands there."""
        over = state in (ConsolidationState.DONE, ConsolidationState.FAILED)
        report = replace(report, seconds=self._seconds())
        ended = datetime.now(UTC) if over else None
        await self._store.upsert_consolidation(replace(current, state=state, ended_at=ended, report=report.to_json()))
        return report

    # -- one context ---------------------------------------------------------------------------------------

    async def _context(
        self, current: Consolidation, job: Job, base: str, folder: Path, budget_s: float, meter: Meter
    ) -> ContextReport:
        """Train, judge and publish one context's adapter.

        Args:
            base: the base's fingerprint.
            folder: for its plan and its training's state.
            budget_s: for the training.
        """
        began = time.monotonic()
        meter.phase(Phase.PREPARING)
        plan, experiences, chosen, general = await self._planned(job, base, folder, budget_s)
        final = self._config.adapters_dir / str(plan.version_id)

        from npllm.sleep.learner import Learner, Task

        parent = self._config.home / job.parent.folder if job.parent else None
        task = Task(plan, experiences, folder, parent, chosen, job.apart, general)
        learner = await asyncio.to_thread(Learner, self._config, task, self._stop, meter)
        outcome = await asyncio.to_thread(learner.train)
        judgement = await asyncio.to_thread(learner.judge)
        quotes = await asyncio.to_thread(learner.quotes)
        learned = task.of((*learner.taught((*plan.learn, *plan.replay)), *plan.inner))
        details.keep(folder, plan.context, quotes, details.sources(learned, (*learner.passages, *learner.rehearsed)))
        if judgement.passed:
            await asyncio.to_thread(learner.measure, outcome)
        look(self._stop)
        meter.phase(Phase.PUBLISHING)
        seconds = outcome.position.seconds + time.monotonic() - began - outcome.seconds_now
        made = replace(_report(task, learner, outcome, judgement, seconds), notes=learner.notes)
        metrics = _metrics(made, plan) | learner.marks | {leftover.LEFT: float(len(learner.untrained))}
        version = AdapterVersion(
            id=plan.version_id,
            context=plan.context,
            base_fingerprint=plan.base_fingerprint,
            parent=plan.parent,
            consolidation_id=current.id,
            folder=final.relative_to(self._config.home).as_posix(),
            sha256=await asyncio.to_thread(learner.write, final, current.id, metrics),
            state=VersionState.PUBLISHED if judgement.passed else VersionState.REJECTED,
            reason=judgement.reason,
            metrics=metrics,
            created_at=datetime.now(UTC),
        )
        if judgement.passed:
            await self._store.publish(version, held_out=plan.held_out)
            within_s = budget_s * MEASURE_SHARE
            learned_ids = learner.taught((*plan.replay, *plan.learn))
            surprise = await asyncio.to_thread(learner.surprise, learned_ids, within_s=within_s)
            await self._store.replay.note_surprise(plan.context, plan.base_fingerprint, surprise)
        else:
            await self._store.insert_adapter_version(version)
            await asyncio.to_thread(self._prune, await self._store.adapter_versions(state=VersionState.REJECTED))
        return made

    def _prune(self, rejected: Sequence[AdapterVersion]) -> None:
        """Remove the weights of all but the newest rejected versions of each context and base; the rows stay."""
        seen: Counter[tuple[str, str]] = Counter()
        for version in rejected:  # newest first
            family = (version.context, version.base_fingerprint)
            seen[family] += 1
            weights = self._config.home / version.folder / WEIGHTS
            if seen[family] > self._config.sleep.keep_rejected and weights.exists():
                log.info("removing the weights of %s, which was rejected: %s", version.id, version.reason)
                weights.unlink(missing_ok=True)

    async def _planned(
        self, job: Job, base: str, folder: Path, budget_s: float
    ) -> tuple[Plan, dict[UUID, Experience], tuple[Passage, ...], tuple[Passage, ...]]:
        """The plan kept from an earlier part of this sleep, where it still holds; else a new one, kept now; and the
        passages of the project and of general code."""
        parent = job.parent.id if job.parent else None
        kept = Plan.read(folder)
        if kept is not None and (kept.context, kept.base_fingerprint, kept.parent) == (job.context, base, parent):
            found = await self._experiences(kept.ids, job)
            passages = project.kept(folder) if self._config.sleep.project_share else ()
            general = project.kept(folder, rehearsal.KEPT) if self._config.sleep.general_share else ()
            ignoring = Ignoring(self._config.memory.ignore)
            readable = not any(ignoring.leaves_alone_file(one.project, one.path) for one in passages or ())
            if found is not None and passages is not None and general is not None and readable:
                return kept, found, passages, general
        shutil.rmtree(folder, ignore_errors=True)
        known = job.parent.metrics if job.parent else {}
        tokens = self._config.base.context_tokens
        alike = known.get(tokens_key(GENERAL), tokens) == tokens
        plan = Plan.new(
            *(job.context, base, parent, job.part),
            slices=job.slices,
            until=job.until,
            budget_s=budget_s,
            version_id=new_id(),
            general_best=known.get(best_key(GENERAL)) if alike else None,
            general_bytes=known.get(bytes_key(GENERAL), 0.0),
        )
        off_limits = await self._store.forgetting.off_limits()
        seed = f"{self._drawn_by}:{job.context}"
        passages = await asyncio.to_thread(self._passages, job, seed, off_limits)
        general = await asyncio.to_thread(self._general, job, len(passages), seed, off_limits)
        project.keep(folder, passages)
        project.keep(folder, general, rehearsal.KEPT)
        plan.write(folder)
        found = await self._experiences(plan.ids, job)
        assert found is not None
        return plan, found, passages, general

    def _passages(self, job: Job, seed: str, off_limits: Sequence[str]) -> tuple[Passage, ...]:
        """Of the project's files, so many that they make up their share of what is learned."""
        sleep = self._config.sleep
        learned = len(job.part.learn) + len(job.part.replay)
        return project.passages(
            job.language,
            job.part.all,
            learned=(*job.part.learn, *job.part.replay) if sleep.written_files else (),
            held_out=(*job.part.held_out, *job.part.inner),
            off_limits=off_limits,
            ignore=self._config.memory.ignore,
            apart=job.apart,
            count=rehearsal.beside(learned, sleep.project_share),
            characters=CHARACTERS * sleep.max_tokens,
            seed=seed,
            stop=self._stop,
        )

    def _general(self, job: Job, passages: int, seed: str, off_limits: Sequence[str]) -> tuple[Passage, ...]:
        """Of general code, its share beside the experiences and so many passages of the project."""
        sleep, part = self._config.sleep, job.part
        return rehearsal.passages(
            job.language,
            part.all,
            held_out=(*part.held_out, *part.inner, *job.apart),
            off_limits=off_limits,
            ignore=self._config.memory.ignore,
            count=rehearsal.beside(len(part.learn) + len(part.replay) + passages, sleep.general_share),
            characters=CHARACTERS * sleep.max_tokens,
            seed=seed,
            stop=self._stop,
        )

    async def _experiences(self, ids: Sequence[UUID], job: Job) -> dict[UUID, Experience] | None:
        """Those with these ids; None if one is gone from the database, or its file is to be left alone by now."""
        known = {item.id: item for item in (*job.part.all, *job.judged_again)}
        ignoring = Ignoring(self._config.memory.ignore)
        found: dict[UUID, Experience] = {}
        for id in ids:
            look(self._stop)
            item = known.get(id) or await self._store.experience(id)
            if item is None or (id not in known and ignoring.leaves_alone(item.place)):
                return None
            found[id] = item
        return found


def _report(task: Task, learner: Learner, outcome: Outcome, judgement: Judgement, seconds: float) -> ContextReport:
    plan, position = task.plan, outcome.position
    new, old = learner.taught(plan.learn), learner.taught(plan.replay)
    held_out, used = task.of(plan.held_out), task.of((*new, *old, *plan.inner))
    return ContextReport(
        context=plan.context,
        verdict=Verdict.PUBLISHED if judgement.passed else Verdict.REJECTED,
        reason=judgement.reason,
        version=str(plan.version_id),
        parent=str(plan.parent) if plan.parent else "",
        new=len(new) + len(plan.inner),
        old=len(old),
        files=len({(item.place.project, item.place.path) for item in used}),
        passages=len(learner.passages),
        project_files=len(project.files_of(learner.passages)),
        rehearsed=len(learner.rehearsed),
        held_out=len(held_out),
        held_out_files=len({(item.place.project, item.place.path) for item in held_out}),
        nll_before=judgement.nll_before,
        nll_after=judgement.nll_after,
        gain=judgement.gain,
        gain_low=judgement.gain_low,
        gain_high=judgement.gain_high,
        steps=position.step,
        epochs=outcome.epochs,
        tokens=position.tokens,
        tokens_per_s=position.tokens / max(position.seconds, 1e-6),
        seconds=seconds,
        slices=judgement.slices,
    )


def _archive(home: Path, current: Consolidation, report: Report, checkpoints: Path, run: UUID) -> None:
    """The sleep's page in `reports/`; where the disk refuses, the log says so, and the sleep counts."""
    found = details.collect(checkpoints)
    try:
        archive.save(home, Record(current.id, current.started_at, datetime.now(UTC), report, found, run))
    except OSError as error:
        log.warning("the report of sleep %s cannot be written: %s", current.id, error)


def _metrics(made: ContextReport, plan: Plan) -> dict[str, float]:
    names = ("nll_before", "nll_after", "gain", "gain_low", "gain_high", "steps", "epochs", "tokens_per_s", "seconds")
    counts = ("new", "old", "files", "held_out")
    gains = {f"slice.{part.name}.gain": part.gain for part in made.slices if part.kind is not SliceKind.NEW}
    found = {name: float(getattr(made, name)) for name in (*names, *counts)}
    return found | gains | {"until": plan.until.timestamp()}


def _sweep(adapters: Path, checkpoints: Path, *, keep: Path) -> None:
    """Remove what a killed sleep left half-written, and checkpoints that nobody will go on with."""
    leftovers = [*adapters.glob(TEMPORARY + "*"), *(path for path in checkpoints.glob("*") if path != keep)]
    for path in leftovers:
        log.info("removing %s, left by a sleep that did not end", path)
        shutil.rmtree(path, ignore_errors=True)

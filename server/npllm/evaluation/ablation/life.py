"""One day of one arm: a morning's work, the sleep of the real child process, and the exam.

The assistant, the journal, PostgreSQL and the sleeping child are those of the product; the settings that differ from an
editor's are in `settings`. The morning and the exam have an assistant of their own each, as two days in an editor have:
what is not on disk by the evening is gone.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from npllm import config as configuration
from npllm.config import Config
from npllm.evaluation import developer, sources
from npllm.evaluation.ablation import exam, placebo
from npllm.evaluation.ablation.arms import Arm, Shuffled, nested
from npllm.evaluation.ablation.days import Day
from npllm.evaluation.ablation.desk import Desk, awake, repeatable_ids
from npllm.evaluation.ablation.exam import Row
from npllm.evaluation.plan import Visit
from npllm.evaluation.sources import EvaluationError, Tree
from npllm.sleep.protocol import Ending
from npllm.sleep.supervisor import Sleeper

#: Beside the arm's switches. Every suggestion is shown, none held back, and ends with its line; retrieval is waited
#: for; outcomes are settled by what happens, not by the clock; a sleep ends when it has learned everything, not when
#: its time is up.
SETTINGS: Mapping[str, Any] = {
    "completion.multiline": False,
    "completion.min_mean_logprob": -100.0,
    "completion.timeout_ms": 120_000,
    "memory.record": True,
    "memory.wait_ms": 60_000,
    "feedback.min_visible_ms": 0,
    "feedback.settle_s": 86_400.0,
    "pacing.enabled": False,
    "journal.flush_ms": 60_000,
    "sleep.min_experiences": 1,
    "sleep.max_minutes": 240.0,
}
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a day is lived.

    Attributes:
        home: the data folder.
        workspace: the project's folder; the same for all arms, because what a sleep holds out depends on names.
        database: URL.
        common: settings for all arms, "section.key" -> value.
    """

    home: Path
    workspace: Path
    database: str
    common: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lived:
    """What a day came to: facts for people, and every line asked."""

    facts: Mapping[str, Any]
    rows: Sequence[Row]


def settings(place: Place, arm: Arm, seed: int) -> Config:
    """The settings of an arm.

    Raises:
        ConfigError: one of the common settings is wrong.
    """
    wanted = {**SETTINGS, "sleep.seed": seed, **place.common, **arm.settings, "database.url": place.database}
    return configuration.merge(Config(home=place.home), nested(wanted), source="the ablation's settings")


async def live(arm: Arm, days: Sequence[Day], general: Sequence[Visit], place: Place, seed: int, note: Note) -> Lived:
    """Live the last of `days`; those before it are what the data folder and the database have seen.

    Raises:
        NpllmError: something failed; the message says what.
    """
    day = days[-1]
    config = settings(place, arm, seed)
    lay_out(place.workspace, day.disk)
    marks = [time.monotonic()]
    moments: list[developer.Moment] = []
    with repeatable_ids(seed, day.number):
        async with awake(config) as assistant:
            desk = Desk(assistant, place.workspace)
            await assistant.resources.indexed(str(place.workspace))
            for number, visit in enumerate(day.morning, start=1):
                note(f"morning, file {number} of {len(day.morning)}")
                moments += await developer.morning(desk, [visit], seed=1000 * seed + day.number)
                await assistant.settle()
    marks.append(time.monotonic())
    slept = await _night(config, arm, place, seed, day.number, note) if arm.sleeps else None
    marks.append(time.monotonic())
    note("exam")
    nothing_written = replace(config, memory=replace(config.memory, record=False))
    async with awake(nothing_written) as assistant:
        desk = Desk(assistant, place.workspace)
        await _warm_up(desk)
        rows = await exam.slices(desk, days, general)
        met, again = await exam.made_again(desk, day, moments)
    marks.append(time.monotonic())
    facts = {
        "arm": arm.name,
        "day": day.number,
        "seed": seed,
        "moments": dict(Counter(moment.action for moment in moments)),
        "saved": sum(moment.saved for moment in moments),
        "characters": sum(len(moment.truth) for moment in moments),
        "met_again": met,
        "made_again": again,
        "sleep": slept,
        "seconds": dict(zip(("morning", "sleep", "exam"), (b - a for a, b in pairwise(marks)))),
        "ended_at": datetime.now(UTC).isoformat(),
    }
    return Lived(facts, rows)


async def other_base(
    arm: Arm, days: Sequence[Day], general: Sequence[Visit], place: Place, seed: int, base: str, note: Note
) -> Lived:
    """After the last day: another base, frozen; one sleep; and the same base with what it was told of those days.

    Raises:
        NpllmError: something failed; the message says what.
    """
    config = settings(replace(place, common={**place.common, "base.model": base}), arm, seed)
    frozen = replace(
        config,
        memory=replace(config.memory, record=False, enabled=False),
        adapters=replace(config.adapters, enabled=False),
    )
    lay_out(place.workspace, days[-1].disk)
    note("the other base, frozen")
    async with awake(frozen) as assistant:
        rows = await exam.slices(Desk(assistant, place.workspace), days, general, column="frozen")
    slept = await _night(config, arm, place, seed, len(days) + 1, note)
    note("the other base, after its sleep")
    async with awake(replace(config, memory=replace(config.memory, record=False))) as assistant:
        rows += await exam.slices(Desk(assistant, place.workspace), days, general)
    return Lived({"arm": arm.name, "day": len(days) + 1, "seed": seed, "base": base, "sleep": slept}, rows)


async def _night(config: Config, arm: Arm, place: Place, seed: int, day: int, note: Note) -> dict[str, Any]:
    id = run_id(place.workspace.name, seed, day)
    if arm.shuffled is Shuffled.FOR_GOOD:
        await placebo.exchange(config, seed, day)
    if arm.shuffled is not Shuffled.ASLEEP:
        return await sleep(config, id, note)
    async with placebo.exchanged(config, seed):
        return await sleep(config, id, note)


async def sleep(config: Config, id: UUID, note: Note) -> dict[str, Any]:
    """Let the real child consolidate; what it reports, as JSON values.

    Raises:
        EvaluationError: it failed.
    """
    sleeper = Sleeper(config, on_progress=lambda now: note(f"sleep: {now.phase.value} {now.step}/{now.total}"))
    began = time.monotonic()
    await sleeper.start(id, "an evaluation's night")
    try:
        ended = await sleeper.wait()
    finally:
        await sleeper.wake("the evaluation was ended")
    if ended is None or ended.ending not in (Ending.DONE, Ending.NOTHING):
        why = ended.text if ended else "it was not there"
        raise EvaluationError(f"The sleep went wrong: {why} (see {config.home / 'logs' / 'sleep.log'})")
    report = ended.report.to_json() if ended.report else {}
    return {"ending": ended.ending.value, "text": ended.text, "seconds": time.monotonic() - began, "report": report}


def run_id(project: str, seed: int, day: int) -> UUID:
    """The consolidation's id, by which it is decided what is held out: the same for all arms and reruns."""
    digest = hashlib.sha256(f"{project}:{seed}:{day}".encode()).digest()
    return UUID(bytes=digest[:16])


def lay_out(workspace: Path, files: Mapping[str, str]) -> None:
    """Make the folder hold these files and no others."""
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    sources.unpack(Tree("the morning's state", files), workspace)


async def _warm_up(desk: Desk) -> None:
    uri = desk.open("npllm_warm_up.py", "def warm_up(value):\n    ", "python")
    await desk.score(uri, len(desk.text(uri)), "return value")
    await desk.assistant.resources.indexed(str(desk.workspace))
    desk.close(uri)

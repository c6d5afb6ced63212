"""One whole day: a morning of real work, a sleep that the server begins by itself, and the next morning's exam.

Everything happens through LSP on one living server with a data folder of its own; only what the sleep reports
is read from the store. Used by `npllm eval replay` and `npllm demo`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from npllm import config as configuration
from npllm.evaluation import developer, lines, measure, plan, sources
from npllm.evaluation.client import Editor, ServerStatus
from npllm.evaluation.metrics import LineResult
from npllm.evaluation.show import Show
from npllm.evaluation.sources import EvaluationError, Pair

BEGIN_S = 90.0  # an idle server must have fallen asleep by then, after its idle threshold
SLEEPING = ("drowsy", "sleeping")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a day is made of.

    Attributes:
        home: the server's data folder; must not exist yet or be empty.
        settings: over those that an evaluation needs (see `server_settings`).
    """

    pair: Pair
    home: Path
    seed: int = 0
    morning: int = 100
    held_out: int = 60
    comments: bool = False
    idle_s: float = 3.0
    max_minutes: float = 3.0
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sleep:
    """What the sleep reported.

    Attributes:
        versions: (context, state, reason, metrics) of each adapter version it made.
    """

    seconds: float
    phases: tuple[str, ...]
    published: tuple[str, ...]
    versions: tuple[tuple[str, str, str, Mapping[str, float]], ...]
    state: str
    report: Mapping[str, Any]

    @property
    def cerebellum(self) -> tuple[bool, str] | None:
        """Whether a version of it was published, and why or why not; None: none was made."""
        made = self.report.get("cerebellum") or {}
        return (bool(made.get("published")), str(made.get("reason", ""))) if made.get("version") else None


@dataclass(frozen=True, slots=True)
class Day:
    """All that came of it."""

    seed: int
    project: str
    old: str
    new: str
    home: str
    base: str
    fingerprints: tuple[str, str]  # of the base, before and after
    weights: tuple[str, str]  # sha256 over the base's files on disk, before and after
    parameters: tuple[str, str]  # sha256 over the base's parameters in the server's memory, before and after
    moments: tuple[developer.Moment, ...]
    sleep: Sleep
    columns: Mapping[str, tuple[LineResult, ...]]
    counts: Mapping[str, int]
    seconds: Mapping[str, float]  # by part of the day
    settings: Mapping[str, Mapping[str, Any]]


def server_settings(setup: Setup) -> dict[str, dict[str, Any]]:
    """The settings of the evaluated server, with `setup.settings` over them.

    Different from an editor's: every suggestion is shown however unsure the base is, and ends with its line;
    retrieval always takes part, however long it takes; a suggestion counts as seen at once, because the
    simulated person is fast; nothing is held back, whatever was refused before; and it sleeps however busy the
    machine is.
    """
    wanted: dict[str, dict[str, Any]] = {
        "completion": {"multiline": False, "min_mean_logprob": -100.0, "timeout_ms": 60_000},
        "memory": {"enabled": True, "record": True, "wait_ms": 60_000},
        "adapters": {"enabled": True},
        "feedback": {"min_visible_ms": 0},
        "pacing": {"enabled": False},
        "sleep": {
            "idle_s": 120.0,
            "min_experiences": 20,
            "min_holdout": max(4, min(30, setup.morning // 3)),
            "max_minutes": setup.max_minutes,
            "min_battery": 0,
            "max_load": 0.0,
            "schedule": "",
        },
    }
    for section, values in setup.settings.items():
        wanted.setdefault(section, {}).update(values)
    return wanted


async def live(setup: Setup, show: Show) -> Day:
    """Live the day. On any way out nothing is left running.

    Raises:
        EvaluationError: something failed; the message says what.
    """
    changes = lines.changes(setup.pair, comments=setup.comments)
    parts = plan.make(changes, morning=setup.morning, held_out=setup.held_out, seed=setup.seed)
    settings = server_settings(setup)
    workspace = _prepare(setup, settings)
    weights = await asyncio.to_thread(weights_hash, settings)
    editor = Editor(workspace, setup.home, setup.home / "logs" / "server.stderr")
    clock = {"began": time.monotonic()}
    try:
        with show.bar("start the server", 1) as bar:
            await editor.start(settings)
            first = await editor.ready()
            bar.step(f"base {first.base}")
        memory = await editor.execute("npllm.evaluation.digest")
        clock["started"] = time.monotonic()
        moments = await _morning(editor, parts.morning, setup, show)
        clock["worked"] = time.monotonic()
        sleep = await _sleep(editor, setup, settings, show)
        clock["slept"] = time.monotonic()
        columns = await _next_morning(editor, parts, setup, settings, show)
        clock["measured"] = time.monotonic()
        last = await editor.ask_status()
        memory_after = await editor.execute("npllm.evaluation.digest")
    finally:
        await editor.stop()
    weights_after = await asyncio.to_thread(weights_hash, settings)
    marks = list(clock.values())
    return Day(
        seed=setup.seed,
        project=setup.pair.project,
        old=setup.pair.old.revision,
        new=setup.pair.new.revision,
        home=str(setup.home),
        base=first.base,
        fingerprints=(first.base_fingerprint, last.base_fingerprint),
        weights=(weights, weights_after),
        parameters=(str(memory), str(memory_after)),
        moments=tuple(moments),
        sleep=sleep,
        columns={name: tuple(results) for name, results in columns.items()},
        counts=dict(last.counts or {}),
        seconds=dict(
            zip(
                ("start", "morning", "sleep", "next morning"),
                (later - earlier for earlier, later in pairwise(marks)),
            )
        ),
        settings=settings,
    )


def weights_hash(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over the base's safetensors files, read from disk by this process."""
    import hashlib

    from npllm.models.base import resolve

    spec = str(settings.get("base", {}).get("model") or os.environ.get("NPLLM_BASE_MODEL") or "starter")
    digest = hashlib.sha256()
    for file in sorted(resolve(spec).glob("*.safetensors")):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _prepare(setup: Setup, settings: Mapping[str, Mapping[str, Any]]) -> Path:
    """The data folder with its settings, and the project's older state as the workspace."""
    if setup.home.exists() and any(setup.home.iterdir()):
        raise EvaluationError(
            f"{setup.home} is not empty. A day needs a data folder of its own, or what another run has "
            "learned would be measured, too."
        )
    setup.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    # So that `npllm status` and `npllm sleep` in this folder mean the same settings afterwards.
    (setup.home / "config.toml").write_text(_toml(settings), encoding="utf-8")
    configuration.load(setup.home)  # a wrong setting shows here, with its name
    workspace = setup.home / "workspace" / setup.pair.project
    sources.unpack(setup.pair.old, workspace)
    return workspace


def _toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for section, values in settings.items():
        parts.append(f"[{section}]")
        # JSON's strings, numbers and booleans are TOML's, too.
        parts += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(parts) + "\n"


async def _morning(editor: Editor, visits: Sequence[plan.Visit], setup: Setup, show: Show) -> list[developer.Moment]:
    total = sum(len(visit.asks) for visit in visits)
    with show.bar("the morning", total) as bar:
        moments = await developer.morning(
            editor,
            visits,
            seed=setup.seed,
            on_moment=lambda moment: bar.step(f"{moment.action:<9}{moment.emoji:<3}{moment.path}"),
        )
    return moments


async def _sleep(editor: Editor, setup: Setup, settings: Mapping[str, Mapping[str, Any]], show: Show) -> Sleep:
    """Stop typing, and wait for the server to fall asleep by itself and to wake up."""
    settled = plain_counts(await editor.execute("npllm.evaluation.settle"))
    needed = int(settings["sleep"]["min_experiences"])
    if settled.get("experiences", 0) < needed:
        problems = " ".join((await editor.ask_status()).problems)
        found = f"The morning left {settled.get('experiences', 0)} experiences in PostgreSQL"
        raise EvaluationError(f"{found}; a sleep needs {needed}. {problems or 'Ask for more morning lines.'}")
    began = time.monotonic()
    idle: dict[str, dict[str, Any]] = {name: dict(values) for name, values in settings.items()}
    idle["sleep"]["idle_s"] = setup.idle_s
    queue: asyncio.Queue[ServerStatus] = asyncio.Queue()
    unwatch = editor.watch(queue.put_nowait)
    phases: list[str] = []
    try:
        with show.bar("the sleep", 100) as bar:
            editor.configure(idle)
            await _fall_asleep(editor, queue, setup.idle_s + BEGIN_S)
            fell = time.monotonic()
            limit = setup.max_minutes * 60 + 120
            while True:
                status = await _next_status(editor, queue, limit - (time.monotonic() - fell))
                if status.state not in SLEEPING and status.state != "starting":
                    break
                if status.phase and status.phase not in phases:
                    phases.append(status.phase)
                bar.set(100 * (status.progress or 0.0), f"{status.phase} {status.message}".strip())
            bar.set(100)
    finally:
        unwatch()
    facts = await _what_it_made(setup.home)
    if facts.state != "done":
        why = " ".join(list(editor.warnings)[-1:]) or facts.report.get("problem") or dict(facts.report)
        raise EvaluationError(f"The sleep ended as {facts.state!r}: {why}")
    published = tuple(version[0] for version in facts.versions if version[1] == "published")
    await _swapped_in(editor, len(published))
    adapters = (await editor.ask_status()).adapters
    return replace(facts, seconds=time.monotonic() - began, phases=tuple(phases), published=adapters)


async def _fall_asleep(editor: Editor, queue: asyncio.Queue[ServerStatus], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        status = await _next_status(editor, queue, deadline - time.monotonic())
        if status.state == "sleeping":
            return


async def _next_status(editor: Editor, queue: asyncio.Queue[ServerStatus], timeout_s: float) -> ServerStatus:
    """The next status the server sends by itself; one that it was asked for if it is silent for a while.

    Raises:
        EvaluationError: the time is up.
    """
    if timeout_s <= 0:
        status = await editor.ask_status()
        why = " ".join([*status.problems, *list(editor.warnings)[-2:]]) or status.message
        raise EvaluationError(f"The sleep did not go as it should: the server is {status.state!r}. {why}")
    try:
        async with asyncio.timeout(min(timeout_s, 10.0)):
            return await queue.get()
    except TimeoutError:
        return await editor.ask_status()


async def _swapped_in(editor: Editor, wanted: int, timeout_s: float = 20.0) -> None:
    """Wait until the living server serves what the sleep published.

    Raises:
        EvaluationError: it does not.
    """
    deadline = time.monotonic() + timeout_s
    while len((status := await editor.ask_status()).adapters) < wanted:
        if time.monotonic() > deadline:
            why = " ".join(status.problems)
            raise EvaluationError(f"The new adapter was published, but the server does not use it. {why}")
        await asyncio.sleep(0.2)


async def _what_it_made(home: Path) -> Sleep:
    """The sleep's own report, from the store."""
    from npllm.memory.store import Store

    settings = replace(configuration.load(home), database=configuration.DatabaseConfig())
    store = await Store.connect(settings)
    try:
        last = await store.last_consolidation()
        versions = await store.adapter_versions()
    finally:
        await store.close()
    if last is None:
        raise EvaluationError("The server slept, but PostgreSQL knows of no consolidation.")
    made = [version for version in versions if version.consolidation_id == last.id]
    return Sleep(
        seconds=0.0,
        phases=(),
        published=(),
        versions=tuple((v.context, v.state.value, v.reason, dict(v.metrics)) for v in made),
        state=last.state.value,
        report=dict(last.report),
    )


async def _next_morning(
    editor: Editor,
    parts: plan.Plan,
    setup: Setup,
    settings: Mapping[str, Mapping[str, Any]],
    show: Show,
) -> dict[str, list[LineResult]]:
    total = sum(len(visit.asks) for visit in parts.held_out) * len(measure.COLUMNS)
    # All that the morning put on the screen, asked for or not, and all that lies on disk: the sleep may read both.
    known = {line.strip() for text in setup.pair.old.files.values() for line in lines.split_lines(text)}
    known |= {
        visit.change.new[number].strip()
        for visit in parts.morning
        for number in range(visit.asks[0].number, visit.asks[-1].number + 1)
    }
    with show.bar("the next morning", total) as bar:
        return await measure.measure(
            editor,
            parts.held_out,
            settings,
            seed=setup.seed,
            known_lines=known,
            on_line=lambda column, result: bar.step(f"{column.name}: {result.path}"),
        )


def plain_counts(answer: Any) -> Mapping[str, int]:
    """The `counts` in a status answer."""
    counts = answer.get("counts") if isinstance(answer, dict) else None
    return {str(key): int(value) for key, value in counts.items()} if isinstance(counts, dict) else {}

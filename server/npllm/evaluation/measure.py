"""The next morning's exam: the same held-out lines in three columns, on one living server.

Each column changes settings only: frozen base; with memory; with memory and what sleep made. While measuring,
`memory.record` is off, so no held-out line enters memory; a document is closed and opened anew for each column,
so no cache carries over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from npllm.evaluation.client import Editor, Settings
from npllm.evaluation.hands import walk
from npllm.evaluation.metrics import LineResult
from npllm.evaluation.plan import Visit
from npllm.evaluation.sources import EvaluationError

WARM_UP = "def warm_up(value):\n    "


@dataclass(frozen=True, slots=True)
class Column:
    """One way of serving."""

    name: str
    memory: bool
    sleep: bool  # what it made serves: adapters and the cerebellum


COLUMNS: tuple[Column, ...] = (
    Column("frozen base", memory=False, sleep=False),
    Column("+ memory", memory=True, sleep=False),
    Column("+ memory and sleep", memory=True, sleep=True),
)


def settings(base: Settings, column: Column) -> dict[str, dict[str, Any]]:
    """`base` with what the column switches, and with nothing written down and no sleep."""
    changed: dict[str, dict[str, Any]] = {name: dict(values) for name, values in base.items()}
    changed.setdefault("memory", {}).update(enabled=column.memory, record=False)
    changed.setdefault("feedback", {}).update(avoid_refused=column.memory)
    changed.setdefault("adapters", {}).update(enabled=column.sleep)
    if not column.sleep:
        changed.setdefault("cerebellum", {}).update(reflex=False, blend=False)
    changed.setdefault("sleep", {}).update(enabled=False)
    return changed


async def measure(
    editor: Editor,
    visits: Sequence[Visit],
    base: Settings,
    *,
    seed: int,
    known_lines: Collection[str] = (),
    columns: Sequence[Column] = COLUMNS,
    on_line: Callable[[Column, LineResult], None] = lambda *_: None,
) -> dict[str, list[LineResult]]:
    """Results by column name; every column has the same lines in the same order.

    Raises:
        EvaluationError: the server failed, or wrote something down, or memory was used where it was off.
    """
    before = await _written(editor)
    results: dict[str, list[LineResult]] = {}
    for column in columns:
        editor.configure(settings(base, column))
        await _warm_up(editor)
        lines = results[column.name] = []
        for visit in visits:
            async with aclosing(walk(editor, visit)) as stops:
                async for stop in stops:
                    began = time.perf_counter()
                    offered = await editor.complete(stop.uri, stop.offset)
                    latency_ms = (time.perf_counter() - began) * 1000
                    score = await editor.score(stop.uri, stop.offset, stop.truth)
                    result = LineResult(
                        cluster=f"{seed}:{visit.path}",
                        path=visit.path,
                        number=stop.ask.number,
                        column=stop.ask.column,
                        truth=stop.truth,
                        offered=offered.text.split("\n", 1)[0] if offered else None,
                        nats=score["nats"],
                        utf8_bytes=int(score["bytes"]),
                        memories=int(score["memory"]),
                        latency_ms=latency_ms,
                        seen=visit.change.new[stop.ask.number].strip() in known_lines,
                    )
                    _check(column, result)
                    lines.append(result)
                    on_line(column, result)
    after = await _written(editor)
    if after != before:
        raise EvaluationError(f"Measuring must write nothing down, but {before} became {after}.")
    return results


async def _warm_up(editor: Editor) -> None:
    """Load what the column needs (embedder, adapter), so that the first line is not slower than the others."""
    uri = editor.open("npllm_warm_up.py", WARM_UP, "python")
    await editor.score(uri, len(WARM_UP), "return value")
    await editor.execute("npllm.evaluation.settle")  # the index of the project's code, too
    editor.close(uri)


async def _written(editor: Editor) -> Mapping[str, int]:
    """How much is written down, in PostgreSQL, after everything on its way has arrived there."""
    answer = await editor.execute("npllm.evaluation.settle")
    counts = answer.get("counts") or {}
    return {name: int(counts.get(name, 0)) for name in ("suggestions", "outcomes", "feedback", "experiences")}


def _check(column: Column, result: LineResult) -> None:
    if result.memories and not column.memory:
        raise EvaluationError(f"The column {column.name!r} must not use memory, but {result.path} did.")
    if not math.isfinite(result.nats) or result.nats < 0 or result.utf8_bytes != len(result.truth.encode()):
        found = f"{result.nats} nats, {result.utf8_bytes} bytes"
        raise EvaluationError(f"The server's score of {result.truth!r} makes no sense: {found}.")

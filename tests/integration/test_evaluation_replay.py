"""The simulated developer against the real `npllm serve`, with a real PostgreSQL and a tiny base."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from npllm.evaluation import day, developer, lines, measure, plan
from npllm.evaluation.client import Editor
from npllm.evaluation.sources import EvaluationError, Pair, Tree


def _project() -> Pair:
    """Ten small files that each gain a function and a changed line; with characters beyond the BMP."""
    old, new = {}, {}
    for i in range(10):
        head = f'import base\n\nNAME = "é😀{i}"\n'
        old[f"pkg/part{i}.py"] = head + f"limit = {i}\n\n\ndef old_{i}():\n    return limit\n"
        new[f"pkg/part{i}.py"] = head + (
            f"limit = base.read({i})\n\n\ndef load_{i}(path, key):\n    with open(path) as file:\n"
            f'        text = file.read() + "😀"\n    return base.parse(text, key)\n\n\n'
            f"def old_{i}():\n    return limit\n"
        )
    return Pair("pkg", Tree("1", old), Tree("2", new))


def _setup(home: Path, practised_model: Path, **changed: object) -> day.Setup:
    settings = {
        "base": {"model": str(practised_model), "threads": 1, "device": "cpu"},
        "completion": {"max_new_tokens": 4},  # an untrained base repeats itself, and longer loops are not shown
    }
    return day.Setup(pair=_project(), home=home, morning=12, held_out=6, settings=settings, **changed)  # type: ignore[arg-type]


@asynccontextmanager
async def _working(setup: day.Setup) -> AsyncIterator[Editor]:
    settings = day.server_settings(setup)
    editor = Editor(day._prepare(setup, settings), setup.home, setup.home / "logs" / "stderr")
    try:
        await editor.start(settings)
        await editor.ready()
        yield editor
    finally:
        await editor.stop()


async def test_a_morning_and_three_columns(home: Path, practised_model: Path) -> None:
    setup = _setup(home, practised_model)
    parts = plan.make(lines.changes(setup.pair), morning=setup.morning, held_out=setup.held_out, seed=0)
    settings = day.server_settings(setup)
    async with _working(setup) as editor:
        before = await editor.ask_status()
        assert before.counts is not None and before.counts["experiences"] == 0
        moments = await developer.morning(editor, parts.morning, seed=0)
        assert len(moments) == setup.morning
        offered = [moment for moment in moments if moment.offered is not None]
        assert offered, "a base that repeats a text says it here, too"
        counts = day.plain_counts(await editor.execute("npllm.evaluation.settle"))
        assert counts["suggestions"] >= len(offered)
        assert 0 < counts["experiences"] <= counts["suggestions"]

        results = await measure.measure(editor, parts.held_out, settings, seed=0)
        keys = [[(one.path, one.number, one.truth) for one in column] for column in results.values()]
        assert len(keys[0]) == setup.held_out
        assert keys[0] == keys[1] == keys[2]
        frozen, memory, both = results.values()
        assert not any(one.memories for one in frozen)
        assert any(one.memories for one in memory)
        # Nothing has been trained: with what sleep makes, or without, is the same, but for the order of sums: which
        # keys and values are still there from the line before depends on what was asked in between.
        assert [one.nats for one in both] == pytest.approx([one.nats for one in memory], rel=1e-6)
        after = await editor.ask_status()
        assert after.base_fingerprint == before.base_fingerprint != ""
        # Measuring wrote nothing; and what was on is on again when asked for.
        assert day.plain_counts({"counts": after.counts}) == counts


async def test_nothing_is_left_running_when_the_developer_is_interrupted(home: Path, practised_model: Path) -> None:
    setup = _setup(home, practised_model)
    parts = plan.make(lines.changes(setup.pair), morning=setup.morning, held_out=setup.held_out, seed=0)
    begun = asyncio.Event()
    servers: list[int] = []

    async def work() -> None:
        async with _working(setup) as editor:
            server = editor._client._server
            assert server is not None
            servers.append(server.pid)
            await developer.morning(editor, parts.morning, seed=0, on_moment=lambda _: begun.set())

    task = asyncio.create_task(work())
    await asyncio.wait_for(begun.wait(), 120)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert servers
    assert not any(psutil.pid_exists(pid) for pid in servers)


async def test_a_server_that_dies_is_reported(home: Path, practised_model: Path) -> None:
    async with _working(_setup(home, practised_model)) as editor:
        uri = editor.open("a.py", "x = 1\n", "python")
        server = editor._client._server
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(EvaluationError, match=r"gone|within"):
            await editor.complete(uri, 6)


async def test_a_used_data_folder_is_refused(home: Path, practised_model: Path) -> None:
    (home / "config.toml").write_text("")
    with pytest.raises(EvaluationError, match="not empty"):
        async with _working(_setup(home, practised_model)):
            pass


async def test_a_folder_without_a_model_gives_the_servers_reason(home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "no-model"
    empty.mkdir()
    setup = _setup(home, empty)
    settings = day.server_settings(setup)
    editor = Editor(day._prepare(setup, settings), setup.home, setup.home / "logs" / "stderr")
    try:
        await editor.start(settings)
        with pytest.raises(EvaluationError, match="no-model"):
            await editor.ready(timeout_s=12)
    finally:
        await editor.stop()

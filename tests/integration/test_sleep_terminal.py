# ruff: noqa: F811
"""`npllm sleep now` with a real PostgreSQL, a real child and real windows: it ends when an editor is used."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from lsprotocol import types as lsp

from npllm.config import Config, DatabaseConfig
from npllm.memory.lineage import quiet
from npllm.memory.store import Store
from npllm.sleep.protocol import Ending
from npllm.sleep.terminal import run_in_terminal
from npllm.types import ConsolidationState, new_id
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import config_for, from_source, write_settings
from tests.integration.test_lsp_progress import Window


@pytest.fixture
async def config(home: Path, tiny_model: Path, database_url: str) -> Config:
    """A sleep that nobody would see the end of."""
    made = replace(config_for(home, tiny_model, epochs=500), database=DatabaseConfig(url=database_url))
    store = await Store.connect(made)
    await store.write(from_source(40))
    await store.close()
    return made


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(120.0):
        while not true():  # noqa: ASYNC110  what is awaited has no event
            await asyncio.sleep(0.02)


def children() -> list[psutil.Process]:
    """The sleeping processes of this one."""
    return [one for one in psutil.Process().children() if "npllm.sleep.child" in one.cmdline()]


async def test_it_begins_whoever_works_and_ends_with_its_checkpoint_when_an_editor_is_used(config: Config) -> None:
    window = new_id()
    store = await Store.connect(config)
    await store.heartbeat(window, datetime.now(UTC), True)
    lines: list[str] = []
    terminal = asyncio.create_task(run_in_terminal(config, lines.append))
    await until(lambda: any("learning" in line for line in lines))
    (child,) = children()
    seen = len(lines)
    await until(lambda: len(lines) > seen + 3)
    assert not terminal.done(), "what the window did before does not count"

    await store.heartbeat(window, datetime.now(UTC), True)
    assert await asyncio.wait_for(terminal, 60.0) == Ending.INTERRUPTED.exit_code
    assert not child.is_running()
    assert "You are back, in an editor or with another npllm command; this sleep ends." in lines
    assert "next" in lines[-1], "it says what becomes of the sleep"
    interrupted = await store.interrupted_consolidation()
    assert interrupted is not None
    assert list((config.checkpoints_dir / str(interrupted.id)).rglob("*.safetensors"))

    short = replace(config, sleep=replace(config.sleep, max_minutes=0.01))
    assert await run_in_terminal(short, lines.append) == Ending.DONE.exit_code, "nobody has come back since"
    last = await store.last_consolidation()
    assert last is not None and (last.id, last.state) == (interrupted.id, ConsolidationState.DONE)
    await store.close()


async def test_a_command_that_changes_what_was_learned_ends_it_and_it_does_not_speak_of_an_editor_alone(
    store: Store, config: Config
) -> None:
    lines: list[str] = []
    terminal = asyncio.create_task(run_in_terminal(config, lines.append))
    await until(lambda: any("learning" in line for line in lines))
    async with quiet(store):
        assert await asyncio.wait_for(terminal, 60.0) == Ending.INTERRUPTED.exit_code
        assert "You are back, in an editor or with another npllm command; this sleep ends." in lines
        assert await run_in_terminal(config, lines.append) == Ending.HELD.exit_code
    assert lines[-1].startswith("Another sleep, or a command")


def _hear_ctrl_c() -> None:
    """As in a terminal: what runs in the background of a script inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def sleeping_in_a_terminal(config: Config) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process of its own, with its child at work."""
    write_settings(config)
    environment = {**os.environ, "NPLLM_HOME": str(config.home), "NPLLM_DATABASE_URL": config.database.url}
    command = (sys.executable, "-P", "-m", "npllm", "sleep", "now")
    terminal = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, preexec_fn=_hear_ctrl_c
    )
    try:
        assert terminal.stdout is not None
        async with asyncio.timeout(120.0):
            while b"preparing" not in (line := await terminal.stdout.readline()):
                assert line, "it ended by itself"
        yield terminal
    finally:
        if terminal.returncode is None:
            terminal.kill()
            await terminal.wait()


async def test_a_cursor_that_moves_in_a_window_ends_the_command_in_a_terminal(config: Config) -> None:
    window = Window(progress=False)
    await window.start(config)
    async with sleeping_in_a_terminal(config) as terminal:
        window.client.protocol.notify("npllm/didInteract", {})
        said, _ = await asyncio.wait_for(terminal.communicate(), 60.0)
    assert terminal.returncode == Ending.INTERRUPTED.exit_code
    assert b"You are back, in an editor or with another npllm command; this sleep ends." in said
    await window.stop()


async def test_ctrl_c_ends_the_command_in_a_terminal(config: Config) -> None:
    async with sleeping_in_a_terminal(config) as terminal:
        terminal.send_signal(signal.SIGINT)
        said, _ = await asyncio.wait_for(terminal.communicate(), 60.0)
    assert terminal.returncode == Ending.INTERRUPTED.exit_code
    assert said.endswith(b"Interrupted. The next sleep goes on from the checkpoint.\n")


async def test_a_sign_of_the_person_ends_the_sleep_of_their_own_window(config: Config) -> None:
    window = Window(progress=False)
    await window.start(config)
    await window.client.workspace_execute_command_async(lsp.ExecuteCommandParams("npllm.sleep", []))
    await window.until(lambda: window.state == "sleeping")
    window.client.protocol.notify("npllm/didInteract")  # from a client that sends no parameters
    await window.until(lambda: window.state == "awake")
    assert "waking" in [status["state"] for status in window.states]
    await window.stop()

# ruff: noqa: F811
"""A sleep in the protocol's own progress: created, begun, reported, ended; and a cancel that wakes. Real server."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types as lsp
from pygls.lsp.client import LanguageClient

from npllm.config import Config, DatabaseConfig
from npllm.memory.store import Store
from npllm.sleep import archive
from npllm.sleep.record import Record
from npllm.sleep.report import Report
from npllm.sleep.supervisor import settings_of
from npllm.types import new_id
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import config_for, from_source


@pytest.fixture
async def config(home: Path, tiny_model: Path, database_url: str) -> Config:
    made = replace(config_for(home, tiny_model, epochs=500), database=DatabaseConfig(url=database_url))
    store = await Store.connect(made)
    await store.write(from_source(40))
    await store.close()
    return made


class Window:
    """A client that shows progress, or does not."""

    def __init__(self, *, progress: bool) -> None:
        self.client = LanguageClient("test", "1")
        self.created: list[str | int] = []
        self.said: list[tuple[str | int, Any]] = []
        self.states: list[dict[str, Any]] = []
        self._progress = progress

        @self.client.feature("window/workDoneProgress/create")
        def create(params: lsp.WorkDoneProgressCreateParams) -> None:
            self.created.append(params.token)

        @self.client.feature("$/progress")
        def report(params: lsp.ProgressParams) -> None:
            self.said.append((params.token, params.value))

        @self.client.feature("npllm/status")
        def status(params: Any) -> None:
            self.states.append(dict(params._asdict()))

        @self.client.feature("window/logMessage")
        def log(_params: Any) -> None:
            pass

    async def start(self, config: Config) -> None:
        environment = {**os.environ, "NPLLM_HOME": str(config.home)}
        command = (sys.executable, "-P", "-m", "npllm", "serve")
        await self.client.start_io(*command, env=environment)
        await self.client.initialize_async(
            lsp.InitializeParams(
                initialization_options={"settings": settings_of(config)},
                capabilities=lsp.ClientCapabilities(
                    window=lsp.WindowClientCapabilities(work_done_progress=self._progress)
                ),
            )
        )
        self.client.initialized(lsp.InitializedParams())
        await self.until(lambda: self.state not in ("", "starting"))

    @property
    def state(self) -> str:
        return str(self.states[-1]["state"]) if self.states else ""

    def kinds(self) -> list[str]:
        return [_of(value, "kind") for _, value in self.said]

    async def until(self, true: Any) -> None:
        try:
            async with asyncio.timeout(120.0):
                while not true():  # noqa: ASYNC110  what is awaited comes as messages
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.states[-3:]} {self.kinds()[-3:]}") from None

    async def stop(self) -> None:
        await self.client.shutdown_async(None)
        self.client.exit(None)
        await self.client.stop()


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


async def test_a_sleep_is_the_protocols_own_progress_and_a_cancel_wakes(config: Config) -> None:
    window = Window(progress=True)
    await window.start(config)
    params = lsp.ExecuteCommandParams("npllm.sleep", [])
    await window.client.workspace_execute_command_async(params)
    await window.until(lambda: window.state == "sleeping" and "secondsLeft" in window.states[-1])
    await window.until(lambda: window.kinds().count("report") >= 3)
    assert len(window.created) == 1
    assert {token for token, _ in window.said} == set(window.created)
    assert window.kinds()[0] == "begin" and _of(window.said[0][1], "cancellable") is True
    told = [_of(value, "message") for _, value in window.said if _of(value, "message")]
    assert any("learning language:python" in text for text in told)
    asleep = [status for status in window.states if status["state"] == "sleeping"]
    assert {"phase", "progress", "secondsLeft", "message"} <= set(asleep[-1])

    window.client.window_work_done_progress_cancel(lsp.WorkDoneProgressCancelParams(window.created[0]))
    await window.until(lambda: window.state == "awake")
    assert window.kinds()[-1] == "end" and window.kinds().count("end") == 1

    await window.client.workspace_execute_command_async(params)
    await window.until(lambda: window.kinds().count("begin") == 2)
    assert len(set(window.created)) == 2, "a token of its own for each sleep"
    await window.stop()


async def test_a_client_without_progress_is_not_asked_for_any_and_may_read_the_report(config: Config) -> None:
    window = Window(progress=False)
    await window.start(config)
    report = lsp.ExecuteCommandParams("npllm.report", [])
    answer = await window.client.workspace_execute_command_async(report)
    assert "no report yet" in _of(answer, "reason")
    now = datetime.now(UTC)
    page = archive.save(config.home, Record(new_id(), now, now, Report("a base <b>", "f")))
    answer = await window.client.workspace_execute_command_async(report)
    assert _of(answer, "html") == page.read_text(encoding="utf-8") and "a base &lt;b&gt;" in _of(answer, "html")
    assert _of(answer, "path") == str(page) and "a base <b>" in _of(answer, "text")
    await window.client.workspace_execute_command_async(lsp.ExecuteCommandParams("npllm.sleep", []))
    await window.until(lambda: window.state == "sleeping" and "progress" in window.states[-1])
    await window.stop()
    assert window.created == window.said == []

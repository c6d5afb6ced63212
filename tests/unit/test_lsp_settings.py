"""The editor's settings over the file's."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from pathlib import Path

import pytest
from lsprotocol import types as lsp

from npllm.config import Config, MemoryConfig
from npllm.lsp import settings
from npllm.lsp.server import NpllmServer

FILE = Config(home=Path("/nowhere"), memory=MemoryConfig(record=False))


def test_a_wrong_setting_costs_only_itself() -> None:
    sent = {"settings": {"memory": {"snippets": 5, "recrod": True}, "sleep.idle_s": "soon", "sleep": {"rank": 8}}}
    merged, wrong = settings.from_initialize(FILE, sent)
    assert (merged.memory.snippets, merged.memory.record, merged.sleep.rank) == (5, False, 8)
    assert [text for text in wrong if "memory.recrod" in text] and [text for text in wrong if "sleep.idle_s" in text]


def test_a_recording_wish_that_is_not_understood_counts_as_no() -> None:
    merged, wrong = settings.from_initialize(Config(home=Path("/nowhere")), {"settings": {"memory.record": "never"}})
    assert not merged.memory.record and len(wrong) == 1


@pytest.mark.parametrize("sent", [None, {}, {"python": {"analysis": 1}}])
def test_a_change_that_is_not_about_npllm_changes_nothing(sent: object) -> None:
    assert settings.from_change(FILE, sent) is None


@pytest.mark.parametrize("sent", [{"npllm": "x"}, {"npllm": {"settings": [1]}}, {"settings": 3}, ["x"]])
def test_settings_of_a_wrong_shape_leave_the_file_s(sent: object) -> None:
    merged = settings.from_change(FILE, sent)
    assert merged is not None and merged[0] == FILE and len(merged[1]) == 1


def test_a_key_taken_back_in_the_editor_is_as_in_the_file_again(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    file = dataclasses.replace(FILE, home=home)
    server = NpllmServer(file)
    taken: list[Config] = []
    told: list[str] = []

    async def take(config: Config) -> None:
        taken.append(config)

    monkeypatch.setattr(server.assistant, "configure", take)
    monkeypatch.setattr(server.scheduler, "configure", lambda config: None)
    monkeypatch.setattr(server.board, "changed", lambda: None)
    monkeypatch.setattr(server, "show_error", told.append)

    async def change(sent: object) -> Config:
        await server.configure(sent)
        return taken[-1]

    async def all_changes() -> None:
        assert (await change({"npllm": {"settings": {"memory": {"record": True, "snippets": 7}}}})).memory.record
        mended = await change({"npllm": {"settings": {"memory": {"snippets": 7}, "sleep": {"idle_s": "soon"}}}})
        assert (mended.memory.record, mended.memory.snippets) == (False, 7)
        assert len(told) == 1 and "sleep.idle_s" in told[0]
        assert await change({"npllm": {"settings": {}}}) == file

    asyncio.run(all_changes())


def test_what_is_wrong_at_the_start_is_one_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    server = NpllmServer(dataclasses.replace(FILE, home=home), problem="The file is odd.")
    options = {"settings": {"memory": {"snippets": "many", "record": False}, "nonsense": {}}}
    server.initialize(
        lsp.InitializeParams(capabilities=lsp.ClientCapabilities(), process_id=None, initialization_options=options)
    )
    assert server.problem.startswith("The file is odd. ")
    assert "memory.snippets" in server.problem and "nonsense" in server.problem

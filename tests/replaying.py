"""Replays a recorded conversation of an editor with the server (tests/streams) into a real server, by its own clock.

What was answered to a request is answered again; everything else is the server's own work. What it writes into its
journal is what it made of the conversation.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import cattrs
from pygls.protocol import default_converter

from npllm import config
from npllm.assist import context
from npllm.assist.offering import Offer
from npllm.lsp.server import build
from npllm.memory import codec
from npllm.types import JournalRecord, Place, Suggestion
from tests.fixtures_memory import make_suggestion

STANDARD = ("initialize", "textDocument/did", "textDocument/inlineCompletion", "$/")
OWN = ("textDocument/didShowCompletion", "textDocument/didPartiallyAcceptCompletion")
LATER_S = (16, 31, 121, 301, 601)  # after the last message; see `feedback.looks`


def standard(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without npllm's own notifications and the command: what any editor says."""
    kept = []
    for line in lines:
        method = line.get("message", {}).get("method", "")
        if method == "initialize":
            params = {**line["message"]["params"], "initializationOptions": None}
            line = {**line, "message": {**line["message"], "params": params}}
        if not method or (method.startswith(STANDARD) and method not in OWN):
            kept.append(line)
    return kept


@dataclass(slots=True)
class Replay:
    """One server and one recording.

    Args:
        home: the server's data folder.
        project: stands for ${project}; git's log of HEAD is written there as it was.
    """

    home: Path
    project: Path
    now: float = 0.0  # seconds since the beginning of the recording
    _answers: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _asked: deque[int] = field(default_factory=deque)
    _known: dict[UUID, Suggestion] = field(default_factory=dict)

    async def __call__(self, lines: Sequence[dict[str, Any]]) -> list[JournalRecord]:
        """All that the server has written down in the end, in order."""
        server = build(config.load(self.home))
        server.protocol._converter = _converter()
        server.protocol.set_writer(_Nobody())
        assistant = server.assistant
        assistant.resources.start = lambda: None  # type: ignore[method-assign]
        assistant.complete = self._complete  # type: ignore[method-assign]
        assistant.listener.clock = lambda: self.now
        assistant.pacing.configure(config.load(self.home))
        assistant._recorder.start()
        began = time.monotonic()
        self._log("commit (initial): Begin")
        for line in lines:
            while self.now + 1 <= line["at"]:
                self.now += 1
                await assistant.listener.look()
            self.now = line["at"]
            if "git" in line:
                self._log(line["git"])
            elif line.get("by") == "editor":
                message = line["message"]
                if message["method"] == "textDocument/inlineCompletion":
                    self._answers[message["id"]] = asyncio.get_running_loop().create_future()
                    self._asked.append(message["id"])
                server.protocol.handle_message(server.protocol.structure_message({"jsonrpc": "2.0", **message}))
            elif line.get("by") == "server":
                answer = self._answers[line["message"]["id"]]
                if not answer.done():  # else it was cancelled meanwhile
                    answer.set_result(line["message"])
            for _ in range(6):
                await asyncio.sleep(0)
        end = self.now
        for later in LATER_S:
            self.now = end + later
            await assistant.listener.look()
        await assistant.write_down()
        assert time.monotonic() - began < 10, "git's log of HEAD is looked at by the wall clock"
        files = sorted(assistant.resources.journal.folder.glob("*.jsonl"))
        return [codec.decode(line) for file in files for line in file.read_bytes().splitlines(keepends=True)]

    async def _complete(self, place: Place, text: str, kind: str = "inline", *, asked: bool = False) -> Offer | None:
        answer = await self._answers[self._asked.popleft()]
        items = (answer.get("result") or {}).get("items")
        if not items:
            return None
        rest, id = items[0]["insertText"], UUID(items[0]["command"]["arguments"][0])
        if id not in self._known:
            prefix, suffix = context.window(text, place.offset)
            self._known[id] = make_suggestion(id=id, place=place, text=rest, prefix=prefix, suffix=suffix, kind=kind)
        return Offer(self._known[id], rest)

    def _log(self, action: str) -> None:
        log = self.project / ".git" / "logs" / "HEAD"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"{'0' * 40} {'1' * 40} Person <person@example.org> 1700000000 +0000\t{action}\n")
        os.utime(log)


@functools.cache
def _converter() -> cattrs.Converter:
    """One for all replays: it takes a while to learn a message's shape."""
    return default_converter()


class _Nobody:
    def write(self, _data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def read(file: Path, project: Path) -> list[dict[str, Any]]:
    """The lines of a recording, without the header."""
    text = file.read_text(encoding="utf-8").replace("${project}", str(project))
    return [json.loads(line) for line in text.splitlines()[1:]]

"""`workspace/executeCommand`: acceptance, feedback, sleep and status; and what `npllm eval` measures with."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any
from uuid import UUID

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcInvalidParams

from npllm import stats
from npllm.lsp import opinions
from npllm.lsp.features import as_id
from npllm.lsp.server import NpllmServer
from npllm.lsp.settings import plain
from npllm.sleep import archive
from npllm.sleep.page import page
from npllm.types import Counts, NpllmError, StoreError

log = logging.getLogger(__name__)
SNOOZE_MINUTES = 60
LONGEST_SNOOZE = 10080  # a week


def register(server: NpllmServer) -> None:
    """Register the commands; with `server.evaluation` those that measure, too."""

    @server.command("npllm.accepted")
    async def accepted(*arguments: Any) -> None:
        suggestion_id = as_id(arguments[0]) if arguments else None
        if suggestion_id is None:
            raise JsonRpcInvalidParams("npllm.accepted wants the suggestion's id.")
        server.active()
        await server.assistant.accepted(suggestion_id)

    @server.command("npllm.feedback")
    async def feedback(*arguments: Any) -> dict[str, Any]:
        given = _object(arguments, "npllm.feedback")
        emoji, comment = str(given.get("emoji") or ""), str(given.get("comment") or "")
        if not emoji and not comment:
            raise JsonRpcInvalidParams("npllm.feedback wants an emoji or a comment.")
        server.active()
        about = as_id(given.get("suggestionId")) or _at_line(server, given.get("uri"), given.get("line"))
        made = await server.assistant.feedback(emoji, comment, about)
        if made is None:
            return {"recorded": False, "reason": "There is no suggestion yet that this could be about."}
        opinions.look_again(server)
        return {"recorded": True, "suggestionId": str(made.suggestion_id), "reward": made.reward}

    @server.command("npllm.sleep")
    async def sleep(*_arguments: Any) -> dict[str, Any]:
        try:
            started = await server.scheduler.sleep_now()
        except NpllmError as error:
            return {"started": False, "reason": str(error)}
        return {"started": started}

    @server.command("npllm.wake")
    async def wake(*_arguments: Any) -> None:
        await server.scheduler.wake()

    @server.command("npllm.report")
    async def report(*_arguments: Any) -> dict[str, Any]:
        home = server.assistant.config.home
        record = await asyncio.to_thread(archive.newest, home)
        if record is None:
            return {"reason": "There is no report yet; a sleep that comes to its end writes one."}
        return {"path": str(archive.page_of(home, record)), "html": page(record), "text": record.text}

    @server.command("npllm.snooze")
    async def snooze(*arguments: Any) -> dict[str, Any]:
        minutes = (_object(arguments, "npllm.snooze") if arguments else {}).get("minutes", SNOOZE_MINUTES)
        if not isinstance(minutes, int | float) or not 0 <= minutes <= LONGEST_SNOOZE:
            raise JsonRpcInvalidParams(f"npllm.snooze wants minutes from 0 (no longer) to {LONGEST_SNOOZE}.")
        server.assistant.pacing.snooze(minutes)
        server.board.changed()
        return {"message": server.assistant.pacing.message}

    @server.command("npllm.stats")
    async def statistics(*arguments: Any) -> dict[str, Any]:
        days = (_object(arguments, "npllm.stats") if arguments else {}).get("days", stats.DAYS)
        if not isinstance(days, int):
            raise JsonRpcInvalidParams("npllm.stats wants a whole number of days.")
        store = server.assistant.resources.store
        if store is None:
            return {"reason": "The database is not connected yet."}
        try:
            made = await stats.ask(store, days)
        except NpllmError as error:
            return {"reason": str(error)}
        return {**stats.as_json(made), "text": stats.as_text(made)}

    @server.command("npllm.status")
    async def status(*_arguments: Any) -> dict[str, Any]:
        return await _status(server)

    if server.evaluation:
        _evaluation(server)


def _at_line(server: NpllmServer, uri: Any, line: Any) -> UUID | None:
    """The suggestion that stands in a line, or is offered there; None where there is none, or no line is given."""
    document = server.documents.get(uri) if isinstance(uri, str) else None
    if document is None or not isinstance(line, int) or not 0 <= line < document.line_count:
        return None
    start = document.offset(lsp.Position(line, 0))
    end = start + len(document.line(line).rstrip("\r\n"))
    return server.assistant.listener.at(document.uri, start, end)


def _evaluation(server: NpllmServer) -> None:
    @server.command("npllm.evaluation.score")
    async def score(*arguments: Any) -> dict[str, Any]:
        given = _object(arguments, "npllm.evaluation.score")
        document = server.documents.get(given.get("uri", ""))
        if document is None:
            raise JsonRpcInvalidParams(f"{given.get('uri')} is not open.")
        position = lsp.Position(int(given["position"]["line"]), int(given["position"]["character"]))
        place = server.place(document, document.offset(position))
        made = await server.assistant.score(place, document.text, str(given["text"]))
        return {"nats": made.nats, "tokens": made.tokens, "bytes": made.utf8_bytes, "memory": made.memories}

    @server.command("npllm.evaluation.digest")
    async def digest(*_arguments: Any) -> str:
        """sha256 over the base's parameters as they are in memory now."""
        return await server.assistant.resources.worker.run(lambda desk: desk.base.digest())

    @server.command("npllm.evaluation.settle")
    async def settle(*_arguments: Any) -> dict[str, Any]:
        await server.assistant.settle()
        return await _status(server)


async def _status(server: NpllmServer) -> dict[str, Any]:
    assistant = server.assistant
    counts = Counts()
    if assistant.resources.store is not None:
        try:
            counts = await assistant.resources.store.counts()
        except StoreError as error:
            log.warning("the store could not be counted: %s", error)
    info = assistant.resources.worker.info
    return {
        **server.status().as_params(),
        "base_fingerprint": info.fingerprint if info else "",
        "counts": dataclasses.asdict(counts),
        "problems": list(assistant.resources.problems.values()),
        "home": str(assistant.config.home),
    }


def _object(arguments: tuple[Any, ...], command: str) -> dict[str, Any]:
    given = plain(arguments[0]) if arguments else None
    if not isinstance(given, dict):
        raise JsonRpcInvalidParams(f"{command} wants one object as its argument.")
    return given

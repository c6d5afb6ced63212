"""A sleep as the protocol's own progress: `window/workDoneProgress/create`, then `$/progress`, where the client can.

One token a sleep, from the moment it sleeps until it no longer does; a cancel from the client wakes.
Beside it stands `npllm/status`, which says more and is ours alone.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException

from npllm.lsp.status import Status
from npllm.types import ServerState, new_id

if TYPE_CHECKING:
    from npllm.lsp.server import NpllmServer

log = logging.getLogger(__name__)

TOKEN = "npllm-sleep-"  # how all our tokens begin, so that a client may tell them


class SleepProgress:
    """One server's.

    Attributes:
        supported: whether the client said `window.workDoneProgress`; else nothing is sent.
    """

    def __init__(self, server: NpllmServer) -> None:
        self.supported = False
        self._server = server
        self._token = ""  # of the sleep that is shown, from its request on
        self._begun = False
        self._said: tuple[str, int | None] = ("", None)
        self._last: Status | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None

    def show(self, state: ServerState, status: Status) -> None:
        """The present state of the scheduler, and the status that was sent. Callable on the event loop only."""
        if not self.supported:
            return
        asleep = state is ServerState.SLEEPING
        if asleep and status.state is ServerState.SLEEPING:
            self._last = status
        if asleep and not self._token:
            self._token = f"{TOKEN}{new_id()}"
            self._beginning = asyncio.create_task(self._begin(self._token), name="sleep-progress")
        elif not asleep and self._token:
            token, self._token = self._token, ""
            if self._begun:
                self._begun = False
                end = lsp.WorkDoneProgressEnd(message=status.message or state.value)
                self._server.work_done_progress.end(token, end)
                self._server.work_done_progress.tokens.pop(token, None)
        elif self._begun:
            self._report()

    async def _begin(self, token: str) -> None:
        try:
            await self._server.work_done_progress.create_async(token)
        except JsonRpcException as error:
            log.info("the client wants no progress: %s", error)
            return
        if token != self._token:  # over already
            self._server.work_done_progress.tokens.pop(token, None)
            return
        self._server.work_done_progress.tokens[token].add_done_callback(self._cancelled)
        begin = lsp.WorkDoneProgressBegin(title="npllm sleeps", cancellable=True, percentage=0)
        self._server.work_done_progress.begin(token, begin)
        self._begun = True
        self._said = ("", None)
        self._report()

    def _cancelled(self, told: Future[None]) -> None:
        if told.cancelled():
            self._waking = asyncio.create_task(self._server.scheduler.wake(), name="cancelled")

    def _report(self) -> None:
        if self._last is None:
            return
        percent = None if self._last.progress is None else int(100 * self._last.progress)
        said = (self._last.message, percent)
        if said != self._said:
            self._said = said
            report = lsp.WorkDoneProgressReport(message=said[0] or None, percentage=percent, cancellable=True)
            self._server.work_done_progress.report(self._token, report)

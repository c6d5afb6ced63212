"""`npllm serve`: the language server's life, its documents and its status.

Translates and hands over; what to suggest is `npllm.assist`'s business, when to sleep `npllm.sleep`'s.
`initialize` is answered before anything heavy is imported or started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer

from npllm import __version__
from npllm.assist import context
from npllm.assist.assistant import Assistant
from npllm.config import Config
from npllm.lsp import opinions, settings
from npllm.lsp.documents import Document
from npllm.lsp.opinions import Abilities
from npllm.lsp.progress import SleepProgress
from npllm.lsp.protocol import DocumentProtocol
from npllm.lsp.status import Status, StatusBoard
from npllm.sleep.scheduler import Scheduler
from npllm.types import Place, ServerState, StoreError
from npllm.uris import file_path

log = logging.getLogger(__name__)


class NpllmServer(LanguageServer):
    """One process per editor window.

    Args:
        config: settings from the file and the environment; the editor's come over them at `initialize`.
        evaluation: also offer the commands by which `npllm eval` measures.
        problem: what was wrong with the config file; shown when the editor is there.
    """

    def __init__(self, config: Config, *, evaluation: bool = False, problem: str = "") -> None:
        super().__init__("npllm", __version__, protocol_cls=DocumentProtocol)
        self.file_config = self.start_config = config
        self.problem = problem
        self.evaluation = evaluation
        self._told_to_go = False
        self.documents: dict[str, Document] = {}
        self.folders: tuple[str, ...] = ()
        self.abilities = Abilities()
        self.sleep_progress = SleepProgress(self)
        self.board = StatusBoard(self.status, self._send_status)
        self.assistant = Assistant(config, self.board.changed, self.warn)
        self.scheduler = Scheduler(
            config,
            lambda: self.assistant.resources.store,
            base=self._fingerprint,
            on_change=self.board.changed,
            on_problem=self.warn,
        )

    # -- life -----------------------------------------------------------------------------------------

    def initialize(self, params: lsp.InitializeParams) -> None:
        """Take the client's folders and settings; a wrong setting is reported and left out."""
        signal.signal(signal.SIGTERM, self._leave)
        window = params.capabilities.window
        self.sleep_progress.supported = window is not None and bool(window.work_done_progress)
        roots = [folder.uri for folder in params.workspace_folders or []]
        if not roots and params.root_uri:
            roots = [params.root_uri]
        self.folders = tuple(file_path(uri).rstrip("/") for uri in roots)
        self.abilities = Abilities.of(params.initialization_options)
        config, wrong = settings.from_initialize(self.file_config, params.initialization_options)
        self.problem = " ".join(filter(None, [self.problem, *wrong]))
        self.start_config = config
        self.scheduler.configure(config)
        self.assistant.listener.reported(settings.reports_acceptance(params.initialization_options))

    async def initialized(self) -> None:
        """Begin to work, in the background."""
        if self.problem:
            self.show_error(self.problem)
        await self.assistant.configure(self.start_config)
        self.assistant.start()
        self.scheduler.start()
        self.board.changed()

    async def configure(self, changed: Any) -> None:
        """New settings from the editor, all of them: what is no longer among them is as in the file again."""
        merged = settings.from_change(self.file_config, changed)
        if merged is None:
            return
        config, wrong = merged
        if wrong:
            self.show_error(" ".join(wrong))
        lens = self.assistant.config.feedback.code_lens
        await self.assistant.configure(config)
        if self.assistant.config.feedback.code_lens != lens:
            opinions.look_again(self)
        self.scheduler.configure(self.assistant.config)
        self.board.changed()

    async def close(self) -> None:
        """Let nothing be lost: what is pending is written first; then the child is sent away, and the rest let go."""
        await self.assistant.write_down()
        await asyncio.gather(self.scheduler.close(), self.assistant.close())

    def shutdown(self) -> None:
        """The connection is gone, with or without a word: write down what still is only in memory."""
        try:
            self.assistant.write_now()
        except (OSError, StoreError) as error:
            log.error("what was pending could not be written down: %s", error)
        if self._told_to_go:
            os._exit(128 + signal.SIGTERM)  # a thread waits for input that never comes
        super().shutdown()  # type: ignore[no-untyped-call]

    def _leave(self, _number: int, _frame: object) -> None:
        self._told_to_go = True
        raise SystemExit(128 + signal.SIGTERM)

    def _fingerprint(self) -> str:
        info = self.assistant.resources.worker.info
        return info.fingerprint if info else ""

    # -- places ---------------------------------------------------------------------------------------

    def place(self, document: Document, offset: int) -> Place:
        return context.place(document.uri, document.language, offset, self.folders)

    def active(self) -> None:
        """The person does something: nobody sleeps now."""
        self.scheduler.activity()

    # -- telling ----------------------------------------------------------------------------------------

    def status(self) -> Status:
        assistant, scheduler = self.assistant, self.scheduler
        info = assistant.resources.worker.info
        problem = " ".join(assistant.resources.problems.values())
        phase, progress, seconds_left, message = "", None, None, problem
        if "base" in assistant.resources.problems:
            state = ServerState.ERROR
        elif info is None:
            state = ServerState.STARTING
        elif assistant.thinking:
            state = ServerState.THINKING
        else:
            state = scheduler.state
            message = message or scheduler.message or assistant.pacing.message
            if state is ServerState.SLEEPING:
                phase, progress, seconds_left = scheduler.phase, scheduler.progress, scheduler.seconds_left
        return Status(
            state=state,
            phase=phase,
            progress=progress,
            seconds_left=seconds_left,
            message=message,
            base=info.name if info else "",
            adapters=tuple(str(version) for version in assistant.resources.adapters),
            backlog=assistant.resources.backlog,
        )

    def _send_status(self, status: Status) -> None:
        self.protocol.notify("npllm/status", status.as_params())
        self.sleep_progress.show(self.scheduler.state, status)

    def warn(self, text: str) -> None:
        """One sentence for the log window."""
        log.warning("%s", text)
        self.window_log_message(lsp.LogMessageParams(lsp.MessageType.Warning, text))

    def show_error(self, text: str) -> None:
        """One sentence that the person must see."""
        log.error("%s", text)
        self.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, f"npllm: {text}"))


def build(config: Config, *, evaluation: bool = False, problem: str = "") -> NpllmServer:
    """A server with all its features registered."""
    from npllm.lsp import commands, features

    server = NpllmServer(config, evaluation=evaluation, problem=problem)
    features.register(server)
    opinions.register(server)
    commands.register(server)
    return server


async def closed_in_time(server: NpllmServer, seconds: float) -> None:
    """`server.close()`, but never longer than `seconds`: an editor that quits does not wait."""
    try:
        await asyncio.wait_for(server.close(), seconds)
    except TimeoutError:
        log.warning("closing took longer than %s s; what is in the journal is kept for the next start", seconds)

"""An editor, as far as the protocol goes: a real LSP client that talks to a real `npllm serve` over stdio.

Documents are changed incrementally; positions are translated as the server agreed to count them. Knows nothing
of what is typed or measured.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsprotocol import types as lsp
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from npllm import __version__
from npllm.evaluation.sources import EvaluationError
from npllm.lsp.documents import Document
from npllm.lsp.settings import plain

log = logging.getLogger(__name__)
Settings = Mapping[str, Mapping[str, Any]]
REQUEST_S = 150.0  # the longest that one request may take


@dataclass(frozen=True, slots=True)
class Offered:
    """One inline completion as the editor got it."""

    text: str
    start: int  # offsets in the document of the range it replaces
    end: int
    item: Any  # the editor's own handle on it


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The last `npllm/status`, or the answer to the command `npllm.status`."""

    state: str
    phase: str = ""
    progress: float | None = None
    message: str = ""
    base: str = ""
    base_fingerprint: str = ""
    adapters: tuple[str, ...] = ()
    backlog: int = 0
    counts: Mapping[str, int] | None = None
    problems: tuple[str, ...] = ()
    home: str = ""


class Editor:
    """One editor window with one server of its own.

    Args:
        workspace: the folder that is opened.
        home: the server's data folder.
        log_file: where the server's stderr goes.
        inline: whether it knows inline completion.
        options: of its plugin, beside the settings (`initializationOptions`).
        code_lens: what it says of its CodeLenses.
    """

    def __init__(
        self,
        workspace: Path,
        home: Path,
        log_file: Path,
        *,
        inline: bool = True,
        options: Mapping[str, Any] | None = None,
        code_lens: lsp.CodeLensWorkspaceClientCapabilities | None = None,
    ) -> None:
        self._inline = inline
        self._options = dict(options or {})
        self._code_lens = code_lens
        self.workspace = workspace
        self.home = home
        self.log_file = log_file
        self.status = ServerStatus("starting")
        self.shown_errors: list[str] = []  # by window/showMessage
        self.warnings: deque[str] = deque(maxlen=20)  # errors and warnings that the server told the editor
        self._last_words: deque[str] = deque(maxlen=20)
        self._watchers: list[Callable[[ServerStatus], None]] = []
        self._client = LanguageClient("npllm-eval", __version__)
        self._documents: dict[str, Document] = {}
        self._encoding = lsp.PositionEncodingKind.Utf16
        self._stderr: asyncio.Task[None] | None = None
        self._register()

    # -- life -------------------------------------------------------------------------------------

    async def start(self, settings: Settings) -> None:
        """Start the server and shake hands.

        Raises:
            EvaluationError: the server does not come up.
        """
        # Its own data folder and the PostgreSQL in it: nobody's real memory may meet an evaluation.
        environment = {key: value for key, value in os.environ.items() if key != "NPLLM_DATABASE_URL"}
        environment |= {"NPLLM_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        # A session of its own: Ctrl-C in the terminal is ours to hear, and the server is told in LSP.
        await self._client.start_io(
            sys.executable,
            # -P and our own folder: nothing of what is replayed is ever imported.
            *("-P", "-m", "npllm", "serve", "--evaluation"),
            env=environment,
            cwd=str(self.home),
            start_new_session=True,
        )
        self._stderr = asyncio.create_task(self._keep_stderr())
        uri = self.workspace.as_uri()
        params = lsp.InitializeParams(
            process_id=os.getpid(),
            root_uri=uri,
            workspace_folders=[lsp.WorkspaceFolder(uri, self.workspace.name)],
            initialization_options={**self._options, "settings": settings},
            client_info=lsp.ClientInfo("npllm-eval", __version__),
            capabilities=lsp.ClientCapabilities(
                workspace=lsp.WorkspaceClientCapabilities(code_lens=self._code_lens),
                general=lsp.GeneralClientCapabilities(position_encodings=[lsp.PositionEncodingKind.Utf16]),
                text_document=lsp.TextDocumentClientCapabilities(
                    synchronization=lsp.TextDocumentSyncClientCapabilities(did_save=True),
                    inline_completion=lsp.InlineCompletionClientCapabilities() if self._inline else None,
                ),
            ),
        )
        result = await self._answer(self._client.initialize_async(params), "initialize")
        if self._inline and not result.capabilities.inline_completion_provider:
            raise EvaluationError("The server does not offer inline completion.")
        encoding = result.capabilities.position_encoding
        self._encoding = lsp.PositionEncodingKind(encoding or lsp.PositionEncodingKind.Utf16)
        self._client.initialized(lsp.InitializedParams())

    async def ready(self, timeout_s: float = 180.0) -> ServerStatus:
        """Return when the base is loaded and the database answers.

        Raises:
            EvaluationError: that does not happen within `timeout_s`; the message has the server's reason.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            status = await self.ask_status()
            if status.base_fingerprint and not status.problems and status.state not in ("starting", "error"):
                return status
            if time.monotonic() > deadline:
                why = " ".join(status.problems) or status.message or f"it says {status.state!r}"
                raise EvaluationError(f"The server was not ready after {timeout_s:.0f} s: {why}")
            await asyncio.sleep(0.3)

    async def stop(self) -> None:
        """Shut the server down; after 10 seconds without an answer, kill it."""
        server = self._client._server
        if server is None:
            return
        if server.returncode is None:
            try:
                async with asyncio.timeout(10):
                    await self._client.shutdown_async(None)
                    self._client.exit(None)
                    await server.wait()
            except (TimeoutError, RuntimeError, OSError, JsonRpcException) as error:
                log.warning("the server did not shut down by itself: %s", error)
            except asyncio.CancelledError:
                _kill(server)
                raise
            finally:
                _kill(server)
        await server.wait()
        try:
            async with asyncio.timeout(5):
                await self._client.stop()  # type: ignore[no-untyped-call]
        except TimeoutError:
            log.warning("the connection to the server did not close in time")
        if self._stderr is not None:
            await self._stderr

    # -- documents ----------------------------------------------------------------------------------

    def open(self, path: str, text: str, language: str) -> str:
        """Open a document below the workspace; its URI."""
        uri = (self.workspace / path).as_uri()
        self._documents[uri] = Document(uri, language, text, 1, self._encoding)
        item = lsp.TextDocumentItem(uri, language, 1, text)
        self._client.text_document_did_open(lsp.DidOpenTextDocumentParams(item))
        return uri

    def text(self, uri: str) -> str:
        """The document as it stands."""
        return self._documents[uri].text

    def change(self, uri: str, start: int, end: int, new_text: str) -> None:
        """Replace `text[start:end]` (offsets in code points), as one incremental change."""
        document = self._documents[uri]
        partial = lsp.TextDocumentContentChangePartial(range=document.range(start, end), text=new_text)
        document.apply(partial)
        document.version = (document.version or 0) + 1
        identifier = lsp.VersionedTextDocumentIdentifier(document.version, uri)
        self._client.text_document_did_change(lsp.DidChangeTextDocumentParams(identifier, [partial]))

    def close(self, uri: str) -> None:
        """Close a document."""
        del self._documents[uri]
        if self._client.stopped:
            return
        self._client.text_document_did_close(lsp.DidCloseTextDocumentParams(lsp.TextDocumentIdentifier(uri)))

    # -- requests -----------------------------------------------------------------------------------

    async def complete(self, uri: str, offset: int) -> Offered | None:
        """Ask for an inline completion; None when nothing is offered.

        Raises:
            EvaluationError: the server failed or died.
        """
        document = self._documents[uri]
        params = lsp.InlineCompletionParams(
            context=lsp.InlineCompletionContext(lsp.InlineCompletionTriggerKind.Automatic),
            text_document=lsp.TextDocumentIdentifier(uri),
            position=document.position(offset),
        )
        answer = await self._answer(self._client.text_document_inline_completion_async(params), "inlineCompletion")
        items: Sequence[lsp.InlineCompletionItem] = getattr(answer, "items", answer) or []
        if not items:
            return None
        item = items[0]
        text = item.insert_text if isinstance(item.insert_text, str) else item.insert_text.value
        start = document.offset(item.range.start) if item.range else offset
        end = document.offset(item.range.end) if item.range else offset
        return Offered(text, start, end, item)

    def shown(self, offered: Offered) -> None:
        """Tell the server that the completion is on screen."""
        converter = self._client.protocol._converter
        item = converter.unstructure(offered.item, lsp.InlineCompletionItem)
        self._client.protocol.notify("textDocument/didShowCompletion", {"item": item})

    async def accept(self, uri: str, offered: Offered) -> None:
        """Insert the completion, then run its command, as an editor does on Tab."""
        self.change(uri, offered.start, offered.end, offered.text)
        if offered.item.command is not None:
            await self.execute(offered.item.command.command, *(offered.item.command.arguments or []))

    async def feedback(self, offered: Offered, emoji: str, comment: str) -> None:
        """Say what the person feels about the completion."""
        if offered.item.command is not None:
            suggestion_id = (offered.item.command.arguments or [""])[0]
            given = {"emoji": emoji, "comment": comment, "suggestionId": suggestion_id}
            await self.execute("npllm.feedback", given)

    async def execute(self, command: str, *arguments: Any) -> Any:
        """`workspace/executeCommand`; the answer as plain dicts and lists.

        Raises:
            EvaluationError: the server answered with an error or died.
        """
        params = lsp.ExecuteCommandParams(command, arguments=list(arguments))
        return plain(await self._answer(self._client.workspace_execute_command_async(params), command))

    async def score(self, uri: str, offset: int, text: str) -> Mapping[str, float]:
        """How well serving predicts `text` at `offset`: `nats`, `tokens`, `bytes`, `memory` (snippets used)."""
        position = self._documents[uri].position(offset)
        where = {"line": position.line, "character": position.character}
        answer = await self.execute("npllm.evaluation.score", {"uri": uri, "position": where, "text": text})
        return {key: float(answer[key]) for key in ("nats", "tokens", "bytes", "memory")}

    async def ask_status(self) -> ServerStatus:
        """The answer to the command `npllm.status`."""
        return _status(await self.execute("npllm.status"))

    def configure(self, settings: Settings) -> None:
        """Change settings of the living server."""
        params = lsp.DidChangeConfigurationParams({"npllm": {"settings": settings}})
        self._client.workspace_did_change_configuration(params)

    def watch(self, watcher: Callable[[ServerStatus], None]) -> Callable[[], None]:
        """Call `watcher` at every `npllm/status`; returns what stops it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    # -- inside -------------------------------------------------------------------------------------

    async def _answer(self, request: Any, name: str) -> Any:
        try:
            async with asyncio.timeout(REQUEST_S):
                return await request
        except TimeoutError as error:
            raise EvaluationError(
                f"The server did not answer {name} within {REQUEST_S:.0f} s. {self._hint()}"
            ) from error
        except JsonRpcException as error:
            raise EvaluationError(f"The server answered {name} with an error: {error}. {self._hint()}") from error
        except RuntimeError as error:  # pygls says by this that the server has exited
            raise EvaluationError(f"The server is gone: {error}. {self._hint()}") from error

    def _hint(self) -> str:
        last = self._last_words[-1] if self._last_words else "It said nothing on stderr."
        return f"Last words: {last} (see {self.log_file} and {self.home / 'logs' / 'server.log'})"

    async def _keep_stderr(self) -> None:
        server = self._client._server
        assert server is not None and server.stderr is not None
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab", buffering=0) as file:
            while chunk := await server.stderr.read(65536):
                file.write(chunk)
                self._last_words.extend(line for line in chunk.decode(errors="replace").splitlines() if line.strip())

    def _register(self) -> None:
        def status(params: Any) -> None:
            self.status = _status(plain(params))
            for watcher in list(self._watchers):
                watcher(self.status)

        def message(params: lsp.ShowMessageParams) -> None:
            if params.type in (lsp.MessageType.Error, lsp.MessageType.Warning):
                self.shown_errors.append(params.message)
                self.warnings.append(params.message)

        def logged(params: lsp.LogMessageParams) -> None:
            log.info("server: %s", params.message)
            if params.type in (lsp.MessageType.Error, lsp.MessageType.Warning):
                self.warnings.append(params.message)

        def progress(_params: Any) -> None:
            return None

        for method, handler in (
            ("npllm/status", status),
            (lsp.WINDOW_SHOW_MESSAGE, message),
            (lsp.WINDOW_LOG_MESSAGE, logged),
            (lsp.WINDOW_WORK_DONE_PROGRESS_CREATE, progress),
        ):
            self._client.feature(method)(handler)


def _status(values: Any) -> ServerStatus:
    given = values if isinstance(values, dict) else {}
    progress = given.get("progress")
    counts = given.get("counts")
    return ServerStatus(
        state=str(given.get("state", "")),
        phase=str(given.get("phase") or ""),
        progress=float(progress) if progress is not None else None,
        message=str(given.get("message") or ""),
        base=str(given.get("base") or ""),
        base_fingerprint=str(given.get("base_fingerprint") or ""),
        adapters=tuple(str(item) for item in given.get("adapters") or ()),
        backlog=int(given.get("backlog") or 0),
        counts={str(key): int(value) for key, value in counts.items()} if isinstance(counts, dict) else None,
        problems=tuple(str(item) for item in given.get("problems") or ()),
        home=str(given.get("home") or ""),
    )


def _kill(server: asyncio.subprocess.Process) -> None:
    if server.returncode is None:
        try:
            server.send_signal(signal.SIGKILL)
        except ProcessLookupError:
            pass

"""Document synchronisation, inline completion, its fallback, and the rewrite code action."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from lsprotocol import types as lsp

from npllm.assist.offering import Offer
from npllm.lsp import opinions
from npllm.lsp.documents import Document, units_to_points
from npllm.lsp.server import NpllmServer, closed_in_time
from npllm.types import NpllmError

log = logging.getLogger(__name__)
CLOSING_S = 3.5  # an editor waits about four seconds
REWRITE_LIMIT = 8000  # characters of a selection that is offered to be rewritten


def register(server: NpllmServer) -> None:
    """Register every LSP feature of the server."""
    _life(server)
    _documents(server)
    _completion(server)
    _rewrite(server)
    _signals(server)


def _life(server: NpllmServer) -> None:
    @server.feature(lsp.INITIALIZE)
    def initialize(params: lsp.InitializeParams) -> None:
        server.initialize(params)
        text_document = params.capabilities.text_document
        if text_document is None or text_document.inline_completion is None:
            _completion_list(server)

    @server.feature(lsp.INITIALIZED)
    async def initialized(_params: lsp.InitializedParams) -> None:
        await server.initialized()

    @server.feature(lsp.SHUTDOWN)
    async def shutdown(_params: Any = None) -> None:
        await closed_in_time(server, CLOSING_S)

    @server.feature(lsp.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def configured(params: lsp.DidChangeConfigurationParams) -> None:
        await server.configure(params.settings)


def _documents(server: NpllmServer) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        item = params.text_document
        encoding = server.server_capabilities.position_encoding or lsp.PositionEncodingKind.Utf16
        document = Document(item.uri, item.language_id, item.text, item.version, encoding)
        server.documents[item.uri] = document
        server.assistant.opened(server.place(document, 0), item.text)
        server.active()

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        document = server.documents.get(params.text_document.uri)
        if document is None:
            log.warning("a change for %s, which is not open, is left out", params.text_document.uri)
            return
        server.active()
        several = len(params.content_changes) > 1
        for change in params.content_changes:
            edit = document.apply(change)
            place = server.place(document, edit.start + len(edit.new_text))
            server.assistant.changed(place, edit.before, edit.start, edit.end, edit.new_text, several=several)
            server.assistant.desk_moved(place, document.text)
        server.assistant.listener.reloaded(params.text_document.uri)
        document.version = params.text_document.version

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        server.active()
        server.assistant.listener.saved(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        server.active()
        if server.documents.pop(params.text_document.uri, None) is not None:
            server.assistant.closed(params.text_document.uri)


async def _offer(
    server: NpllmServer, params: lsp.InlineCompletionParams | lsp.CompletionParams, kind: str, *, asked: bool = False
) -> tuple[Document, int, Offer] | None:
    document = server.documents.get(params.text_document.uri)
    if document is None:
        return None
    server.active()
    offset, version = document.offset(params.position), document.version
    found = await server.assistant.complete(server.place(document, offset), document.text, kind, asked=asked)
    if found is None or document.version != version:
        return None
    server.assistant.offered(found)
    return document, offset, found


def _completion(server: NpllmServer) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_INLINE_COMPLETION, lsp.InlineCompletionOptions())
    async def inline_completion(params: lsp.InlineCompletionParams) -> lsp.InlineCompletionList:
        by_key = params.context.trigger_kind is lsp.InlineCompletionTriggerKind.Invoked
        found = await _offer(server, params, "inline", asked=by_key)
        if found is None:
            return lsp.InlineCompletionList([])
        document, offset, made = found
        return lsp.InlineCompletionList(
            [
                lsp.InlineCompletionItem(
                    insert_text=made.text,
                    range=document.range(offset, offset),
                    command=_accepted(made.suggestion.id),
                )
            ]
        )


def _completion_list(server: NpllmServer) -> None:
    """For editors without inline completion."""

    @server.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions())
    async def completion(params: lsp.CompletionParams) -> lsp.CompletionList:
        found = await _offer(server, params, "completion")
        if found is None:
            return lsp.CompletionList(True, [])
        document, offset, made = found
        # Editors filter by the word before the cursor, so the entry begins with it.
        word = document.text[document.word_start(offset) : offset]
        label = (word + made.text).strip().splitlines()[0]
        item = lsp.CompletionItem(
            label=label if len(label) <= 80 else label[:79] + "…",
            detail="npllm",
            kind=lsp.CompletionItemKind.Snippet,
            documentation=made.text,
            sort_text="\uffff",
            filter_text=word + made.text,
            text_edit=lsp.TextEdit(document.range(offset - len(word), offset), word + made.text),
            command=_accepted(made.suggestion.id),
        )
        return lsp.CompletionList(True, [item])


def _accepted(suggestion_id: UUID) -> lsp.Command:
    return lsp.Command(title="npllm: accepted", command="npllm.accepted", arguments=[str(suggestion_id)])


def _rewrite(server: NpllmServer) -> None:
    @server.feature(
        lsp.TEXT_DOCUMENT_CODE_ACTION,
        lsp.CodeActionOptions(
            code_action_kinds=[lsp.CodeActionKind.RefactorRewrite, opinions.KIND], resolve_provider=True
        ),
    )
    def code_actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        document = server.documents.get(params.text_document.uri)
        if document is None:
            return []
        return [*rewriting(document, params), *opinions.actions(server, document, params)]

    def rewriting(document: Document, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        start, end = document.offset(params.range.start), document.offset(params.range.end)
        if not 0 < end - start <= REWRITE_LIMIT or not document.text[start:end].strip():
            return []
        if not opinions.wanted(params.context, lsp.CodeActionKind.RefactorRewrite.value):
            return []
        return [
            lsp.CodeAction(
                title="npllm: rewrite the selection",
                kind=lsp.CodeActionKind.RefactorRewrite,
                data={"uri": document.uri, "start": start, "end": end, "version": document.version},
            )
        ]

    @server.feature(lsp.CODE_ACTION_RESOLVE)
    async def resolve(action: lsp.CodeAction) -> lsp.CodeAction:
        data: Any = action.data
        if data is None:
            return action  # whole already
        document = server.documents.get(_field(data, "uri"))
        version = _field(data, "version")
        if document is None or document.version != version:
            action.disabled = lsp.CodeActionDisabled("The document has changed; ask again.")
            return action
        server.active()
        start, end = int(_field(data, "start")), int(_field(data, "end"))
        try:
            made = await server.assistant.rewrite(server.place(document, start), document.text, end)
        except NpllmError as error:
            action.disabled = lsp.CodeActionDisabled(str(error))
            return action
        if made is None or document.version != version:
            action.disabled = lsp.CodeActionDisabled("Nothing better came to mind for this selection.")
            return action
        edit = lsp.TextEdit(document.range(start, end), made.text)
        identifier = lsp.OptionalVersionedTextDocumentIdentifier(document.uri, document.version)
        action.edit = lsp.WorkspaceEdit(document_changes=[lsp.TextDocumentEdit(identifier, [edit])])
        action.command = _accepted(made.id)
        return action


def _signals(server: NpllmServer) -> None:
    @server.feature("textDocument/didShowCompletion")
    def shown(params: Any) -> None:
        if (suggestion_id := _suggestion_of(params)) is not None:
            server.assistant.listener.visible(suggestion_id)

    @server.feature("textDocument/didPartiallyAcceptCompletion")
    def partially(params: Any) -> None:
        server.active()
        suggestion_id, length = _suggestion_of(params), _field(params, "acceptedLength")
        text = _field(_field(params, "item"), "insertText")
        text = _field(text, "value") if not isinstance(text, str) else text
        if suggestion_id is not None and isinstance(length, int) and length > 0 and isinstance(text, str):
            encoding = server.server_capabilities.position_encoding or lsp.PositionEncodingKind.Utf16
            taken = text[: units_to_points(text, length, lsp.PositionEncodingKind(encoding))]
            server.assistant.listener.partially_accepted(suggestion_id, taken)

    @server.feature("npllm/willReload")
    def reloading(params: Any) -> None:
        if isinstance(uri := _field(params, "uri"), str):
            server.assistant.listener.reloading(uri)

    @server.feature("npllm/didDismiss")
    def dismissed(params: Any) -> None:
        server.active()
        if isinstance(uri := _field(params, "uri"), str):
            server.assistant.listener.dismissed(uri)

    @server.feature("npllm/didHide")
    def hidden(params: Any) -> None:
        if isinstance(uri := _field(params, "uri"), str):
            server.assistant.listener.hidden(uri)

    @server.feature("npllm/didInteract")
    def interacted(_params: Any = None) -> None:
        server.active()


def _suggestion_of(params: Any) -> UUID | None:
    """The suggestion's id in `params.item.command.arguments[0]`; None when the client sends something else."""
    arguments = _field(_field(_field(params, "item"), "command"), "arguments")
    return as_id(arguments[0]) if arguments else None


def as_id(value: Any) -> UUID | None:
    """A UUID from what a client sent, or None."""
    try:
        return UUID(str(value))
    except ValueError:
        return None


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)

"""Saying how a suggestion was right where it stands: as code actions, in a hover, as a CodeLens.

All of them run the command `npllm.feedback`, so they work in any editor. What an editor's plugin can do beyond that it
says in its `initializationOptions`: `commandLinks` (links in a hover run commands) and `feedbackCommand` (a command of
its own that asks for a comment, too; it gets `{suggestionId}`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from lsprotocol import types as lsp

from npllm.lsp.documents import Document
from npllm.lsp.settings import plain
from npllm.types import Suggestion

if TYPE_CHECKING:
    from npllm.lsp.server import NpllmServer

KIND = "npllm.feedback"  # of the code actions
QUOTED = 30  # characters of a suggestion
FACES = (("👍", "good"), ("👎", "wrong"), ("😡", "never again"))
NOTE = re.compile(r"\s*(?:#|//|--|;|%|/\*|<!--|\(\*)\W*npllm:", re.IGNORECASE)
CLOSING = ("*/", "-->", "*)")  # marks that end a comment


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the editor's plugin can do beyond LSP."""

    command_links: bool = False
    feedback_command: str = ""

    @classmethod
    def of(cls, options: Any) -> Abilities:
        """From `initializationOptions`; what is not meant so is left out."""
        given = plain(options)
        given = given if isinstance(given, dict) else {}
        command = given.get("feedbackCommand")
        return cls(given.get("commandLinks") is True, command if isinstance(command, str) else "")


def register(server: NpllmServer) -> None:
    """Register hover and CodeLens; the code actions are asked for by `actions`."""

    @server.feature(lsp.TEXT_DOCUMENT_CODE_LENS, lsp.CodeLensOptions())
    def code_lens(params: lsp.CodeLensParams) -> list[lsp.CodeLens]:
        document = server.documents.get(params.text_document.uri)
        taken = server.assistant.listener.taken(params.text_document.uri)
        if document is None or not taken or not server.assistant.config.feedback.code_lens:
            return []
        suggestion, span = taken[0]
        if server.assistant.judged(suggestion.id):
            return []
        where = document.range(span.start, span.start)
        commands = _commands(server, suggestion.id)
        commands[0].title = f"npllm: {commands[0].title}"
        return [lsp.CodeLens(where, command) for command in commands]

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        document = server.documents.get(params.text_document.uri)
        if document is None or not server.abilities.command_links or not server.assistant.config.feedback.hover:
            return None
        at = document.offset(params.position)
        for suggestion, span in server.assistant.listener.taken(document.uri):
            if span.start <= at < span.end and not server.assistant.judged(suggestion.id):
                links = " · ".join(_link(command) for command in _commands(server, suggestion.id))
                content = lsp.MarkupContent(lsp.MarkupKind.Markdown, f"npllm wrote this. How is it? {links}")
                return lsp.Hover(content, document.range(span.start, span.end))
        return None


def actions(server: NpllmServer, document: Document, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
    """What may be said about the suggestion that stands in these lines or is offered there; [] where there is none.

    Only where the person asks for actions: an editor that looks for them by itself shows a lamp, and this is no reason
    for one.
    """
    by_itself = params.context.trigger_kind is lsp.CodeActionTriggerKind.Automatic
    if by_itself or not server.assistant.config.feedback.code_actions or not wanted(params.context, KIND):
        return []
    first, last = params.range.start.line, params.range.end.line
    if (noted := _note(server, document, first)) is not None:
        return [noted]
    start = document.offset(lsp.Position(first, 0))
    end = document.offset(lsp.Position(last, 0)) + len(document.line(last).rstrip("\r\n"))
    about = _about(server, document, start, end)
    if about is None or server.assistant.judged(about.id):
        return []
    found = [_action(command) for command in _commands(server, about.id)]
    for action in found:
        action.title = f"npllm: {action.title}: {quoted(about.text)}"
    return found


def wanted(context: lsp.CodeActionContext, kind: str) -> bool:
    """Whether the editor asks for code actions of a kind, too."""
    only = [str(getattr(one, "value", one)) for one in context.only or ()]
    return not only or any(not one or kind == one or kind.startswith(f"{one}.") for one in only)


def look_again(server: NpllmServer) -> None:
    """Something was said, or the person wants CodeLenses (no more): the editor is to ask for them anew."""
    workspace = server.client_capabilities.workspace
    if workspace is not None and workspace.code_lens is not None and workspace.code_lens.refresh_support:
        server.workspace_code_lens_refresh(None)


def quoted(text: str) -> str:
    """A suggestion in few words: its first line that says something."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"“{line}”" if len(line) <= QUOTED else f"“{line[: QUOTED - 1]}…”"


def _about(server: NpllmServer, document: Document, start: int, end: int) -> Suggestion | None:
    """The suggestion that is meant by these offsets: the newest that was taken there; else the one on screen there."""
    for suggestion, span in server.assistant.listener.taken(document.uri):
        if span.start <= end and span.end >= start and not server.assistant.judged(suggestion.id):
            return suggestion
    offered = server.assistant.listener.at(document.uri, start, end)
    return None if offered is None else server.assistant.known(offered)


def _note(server: NpllmServer, document: Document, line: int) -> lsp.CodeAction | None:
    """A comment "npllm: ..." in this line is for us: said about the suggestion there or right above, and taken away."""
    comment = noted(document.line(line))
    if not comment:
        return None
    start, end = document.offset(lsp.Position(line, 0)), document.offset(lsp.Position(line + 1, 0))
    above = document.offset(lsp.Position(max(0, line - 1), 0))
    about = _about(server, document, above, end)
    given = {"comment": comment, **({} if about is None else {"suggestionId": str(about.id)})}
    title = f"npllm: say “{comment}” about {'the last suggestion' if about is None else quoted(about.text)}"
    made = _action(lsp.Command(title, "npllm.feedback", arguments=[given]))
    identifier = lsp.OptionalVersionedTextDocumentIdentifier(document.uri, document.version)
    edit = lsp.TextEdit(document.range(start, end), "")
    made.edit = lsp.WorkspaceEdit(document_changes=[lsp.TextDocumentEdit(identifier, [edit])])
    return made


def noted(line: str) -> str:
    """What a comment "npllm: ..." says; "" where a line is none. In time that grows like the line."""
    found = NOTE.match(line)
    if found is None:
        return ""
    said = line[found.end() :].strip()
    return next((said.removesuffix(mark).rstrip() for mark in CLOSING if said.endswith(mark)), said)


def _commands(server: NpllmServer, about: UUID) -> list[lsp.Command]:
    given = {"suggestionId": str(about)}
    found = [
        lsp.Command(f"{face} {word}", "npllm.feedback", arguments=[{"emoji": face, **given}]) for face, word in FACES
    ]
    if server.abilities.feedback_command:
        found.append(lsp.Command("say more", server.abilities.feedback_command, arguments=[given]))
    return found


def _action(command: lsp.Command) -> lsp.CodeAction:
    return lsp.CodeAction(title=command.title, kind=KIND, command=command)


def _link(command: lsp.Command) -> str:
    return f"[{command.title}](command:{command.command}?{quote(json.dumps(command.arguments))})"

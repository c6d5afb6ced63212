# ruff: noqa: F811
"""Saying how a suggestion was, right where it stands, through a real LSP client: code actions, hover, CodeLens."""

from __future__ import annotations

import functools
import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from lsprotocol import types as lsp

from npllm.evaluation.client import Editor
from npllm.lsp import opinions
from npllm.memory.store import Store
from tests.fixtures_memory import database_url, postgres, store, store_config  # noqa: F401
from tests.lsp_session import session, settings

CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "
LINE = CODE.count("\n")
INVOKED, AUTOMATIC = lsp.CodeActionTriggerKind.Invoked, lsp.CodeActionTriggerKind.Automatic


@pytest.fixture
def given(practised_model, database_url):
    return settings(practised_model, database={"url": database_url})


async def taken(editor: Editor) -> tuple[str, str, str]:
    """A document in which a suggestion was accepted: (URI, its id, its text)."""
    uri = editor.open("shapes.py", CODE, "python")
    offered = await editor.complete(uri, len(CODE))
    await editor.accept(uri, offered)
    return uri, offered.item.command.arguments[0], offered.text


async def actions(editor: Editor, uri: str, line: int, *, trigger=INVOKED, only=None) -> list[lsp.CodeAction]:
    here = lsp.Position(line, 4)
    context = lsp.CodeActionContext([], only=only, trigger_kind=trigger)
    params = lsp.CodeActionParams(lsp.TextDocumentIdentifier(uri), lsp.Range(here, here), context)
    converter = editor._client.protocol._converter
    converter.register_structure_hook(lsp.CodeActionResponse, functools.partial(_whole, converter))
    return list(await editor._client.text_document_code_action_async(params) or [])


def _whole(converter: Any, answer: dict[str, Any], _: type) -> lsp.CodeActionResponse:
    """As any editor reads it; lsprotocol takes an action that has a command for a command."""
    found = [converter.structure(one, lsp.CodeAction) for one in answer["result"]]
    return lsp.CodeActionResponse(answer["id"], found)


async def lenses(editor: Editor, uri: str) -> list[lsp.CodeLens]:
    params = lsp.CodeLensParams(lsp.TextDocumentIdentifier(uri))
    return list(await editor._client.text_document_code_lens_async(params) or [])


async def hover(editor: Editor, uri: str, line: int, character: int) -> lsp.Hover | None:
    params = lsp.HoverParams(lsp.TextDocumentIdentifier(uri), lsp.Position(line, character))
    return await editor._client.text_document_hover_async(params)


async def run(editor: Editor, command: lsp.Command):
    return await editor.execute(command.command, *command.arguments)


async def said(editor: Editor, store: Store, id: str):
    await editor.execute("npllm.evaluation.settle")
    return (await store.looking.case(id)).feedback


async def test_thumbs_are_among_the_code_actions_that_are_asked_for(home, tmp_path, given, store):
    async with session(home, tmp_path / "w", given) as editor:
        other = editor.open("other.py", CODE, "python")
        offered = await editor.complete(other, len(CODE))
        found = await actions(editor, other, LINE)  # what is on screen can be judged before it is taken
        assert found[0].command.arguments[0]["suggestionId"] == offered.item.command.arguments[0]
        assert await lenses(editor, other) == []
        uri, id, text = await taken(editor)
        found = await actions(editor, uri, LINE)
        words = opinions.quoted(text)
        faces = ("👍 good", "👎 wrong", "😡 never again")
        assert [one.title for one in found] == [f"npllm: {face}: {words}" for face in faces]
        assert text.strip()[:20] in words
        await editor.complete(uri, len(editor.text(uri)))  # another is on screen by now: what was taken is meant
        assert [one.title for one in await actions(editor, uri, LINE)] == [one.title for one in found]
        assert await actions(editor, uri, LINE, trigger=AUTOMATIC) == [], "no lamp for that"
        assert await actions(editor, uri, LINE, only=[lsp.CodeActionKind.QuickFix]) == []
        assert len(await actions(editor, uri, LINE, only=["npllm.feedback"])) == 3
        assert len(await actions(editor, uri, LINE, trigger=None)) == 3, "an older client does not say"
        assert await actions(editor, uri, 0) == [], "nothing was suggested there"
        resolved = await editor._client.code_action_resolve_async(found[1])
        assert resolved == found[1] and resolved.disabled is None
        answer = await run(editor, found[1].command)
        assert (answer["recorded"], answer["suggestionId"]) == (True, id)
        again = [one.title for one in await actions(editor, uri, LINE)]
        assert not any(words in title for title in again), "it was said"
        (feedback,) = await said(editor, store, id)
        assert feedback.emoji == "👎" and feedback.frustration > 0


async def test_a_comment_in_the_code_is_a_comment_on_the_suggestion_in_any_editor(home, tmp_path, given, store):
    async with session(home, tmp_path / "w", given) as editor:
        uri, id, text = await taken(editor)
        before = editor.text(uri)
        for char in "\n    # npllm: wrong again":
            editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), char)
        line = editor.text(uri).count("\n")
        (noted,) = await actions(editor, uri, line)
        assert noted.title == f"npllm: say “wrong again” about {opinions.quoted(text)}"
        (change,) = noted.edit.document_changes
        (edit,) = change.edits
        assert (edit.range.start.line, edit.range.start.character, edit.new_text) == (line, 0, "")
        document = editor._documents[uri]
        editor.change(uri, document.offset(edit.range.start), document.offset(edit.range.end), "")
        assert editor.text(uri).rstrip("\n") == before.rstrip("\n")
        assert (await run(editor, noted.command))["suggestionId"] == id
        (feedback,) = await said(editor, store, id)
        assert feedback.comment == "wrong again" and feedback.frustration > 0.6


async def test_a_lens_stands_above_what_was_taken_last_where_the_person_wants_it(home, tmp_path, given, store):
    refreshed = []
    workspace = lsp.CodeLensWorkspaceClientCapabilities(refresh_support=True)
    async with session(home, tmp_path / "w", given, code_lens=workspace) as editor:
        editor._client.feature(lsp.WORKSPACE_CODE_LENS_REFRESH)(lambda _: refreshed.append(True))
        uri, id, _ = await taken(editor)
        assert await lenses(editor, uri) == [], "off: it would move the lines"
        assert await hover(editor, uri, LINE, 12) is None, "links that do nothing are no help"
        editor.configure({**given, "feedback": {**given["feedback"], "code_lens": True}})
        found = await lenses(editor, uri)
        assert refreshed == [True], "an editor asks by itself only when the text changes"
        assert [lens.command.title for lens in found] == ["npllm: 👍 good", "👎 wrong", "😡 never again"]
        assert {lens.range.start.line for lens in found} == {LINE}
        editor.change(uri, 0, 0, "import math\n")
        assert {lens.range.start.line for lens in await lenses(editor, uri)} == {LINE + 1}, "it moves with its text"
        assert (await run(editor, found[0].command))["suggestionId"] == id
        assert await lenses(editor, uri) == [], "it was said"
        assert refreshed == [True, True]
        (feedback,) = await said(editor, store, id)
        assert feedback.satisfaction > 0.5


async def test_a_hover_on_what_was_taken_has_links_where_the_editor_can_run_them(home, tmp_path, given, store):
    options = {"commandLinks": True, "feedbackCommand": "editor.say"}
    async with session(home, tmp_path / "w", given, options=options) as editor:
        uri, id, text = await taken(editor)
        shown = await hover(editor, uri, LINE, 12)
        assert shown.contents.kind is lsp.MarkupKind.Markdown
        assert (shown.range.start.line, shown.range.start.character) == (LINE, 11)
        links = re.findall(r"\[([^]]+)\]\(command:([\w.]+)\?([^)]+)\)", shown.contents.value)
        assert [(title, command) for title, command, _ in links] == [
            ("👍 good", "npllm.feedback"),
            ("👎 wrong", "npllm.feedback"),
            ("😡 never again", "npllm.feedback"),
            ("say more", "editor.say"),
        ]
        assert all(json.loads(unquote(arguments))[0]["suggestionId"] == id for _, _, arguments in links)
        assert await hover(editor, uri, 0, 3) is None
        assert await hover(editor, uri, LINE, 5) is None, "the person wrote this"
        titles = [one.title for one in await actions(editor, uri, LINE)]
        assert titles[-1] == f"npllm: say more: {opinions.quoted(text)}"
        editor.configure({**given, "feedback": {**given["feedback"], "code_actions": False, "hover": False}})
        assert await actions(editor, uri, LINE) == []
        assert await hover(editor, uri, LINE, 12) is None
        editor.configure(given)
        assert await hover(editor, uri, LINE, 12) is not None
        await editor.execute("npllm.feedback", *json.loads(unquote(links[0][2])))
        assert await hover(editor, uri, LINE, 12) is None, "it was said"
        (feedback,) = await said(editor, store, id)
        assert feedback.emoji == "👍"

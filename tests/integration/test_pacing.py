# ruff: noqa: F811
"""Pacing in a real server, with a history in a real database."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from lsprotocol import types as lsp

from npllm import cli, stats
from npllm.evaluation.day import Setup, server_settings
from npllm.evaluation.sources import EvaluationError, Pair, Tree
from npllm.memory import codec
from npllm.memory.store import Store
from npllm.types import HeldBack, OutcomeKind
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    store,
    store_config,
)
from tests.lsp_session import session, settings

CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "
K = OutcomeKind


def held(**changes: object) -> HeldBack:
    made = make_suggestion()
    given = HeldBack(made.id, make_place(), 0.1, 0.25, 11, -0.5, "model", datetime.now(UTC))
    return dataclasses.replace(given, **changes)


async def live(store: Store, end: OutcomeKind, count: int, **changes: object) -> None:
    """So many suggestions, all of which ended like that."""
    begin = datetime.now(UTC) - timedelta(days=1)
    for number in range(count):
        made = make_suggestion(created_at=begin + timedelta(seconds=number), **changes)
        await store.write([made, make_outcome(made, kind=end)])


def asked_by_key(editor, uri: str, offset: int):
    document = editor._documents[uri]
    params = lsp.InlineCompletionParams(
        context=lsp.InlineCompletionContext(lsp.InlineCompletionTriggerKind.Invoked),
        text_document=lsp.TextDocumentIdentifier(uri),
        position=document.position(offset),
    )
    return editor._client.text_document_inline_completion_async(params)


async def test_the_history_is_what_was_seen_oldest_first(store):
    await live(store, K.ACCEPTED, 2)
    await live(store, K.UNSEEN, 1)
    await live(store, K.REJECTED, 1, kind="rewrite")
    refused = make_suggestion(prefix="y" * 1000 + "z", created_at=datetime.now(UTC))
    await store.write([refused, make_outcome(refused), make_outcome(refused, kind=K.REJECTED, revision=1)])
    history = await store.statistics.history(10)
    assert [past.taken for past in history] == [True, True, False]
    assert history[-1].prefix == "y" * 199 + "z"
    assert [past.taken for past in await store.statistics.history(1)] == [False]


async def test_what_is_held_back_is_written_once(store):
    one, other = held(), held()
    assert codec.decode(codec.encode(one)) == one
    await store.write([one, other, one])
    assert (await store.statistics.ask(None)).pacing.held_back == 2


async def test_expected_and_taken_are_told_side_by_side(store):
    for chance, audited, kind in ((0.8, False, K.ACCEPTED), (0.6, False, K.REJECTED), (0.1, True, K.EDITED)):
        made = make_suggestion(chance=chance, audited=audited)
        await store.write([made, make_outcome(made, kind=kind)])
    made = await store.statistics.ask(None)
    pacing = made.pacing
    assert (pacing.estimated, pacing.estimated_taken, pacing.audited, pacing.audited_taken) == (3, 2, 1, 1)
    assert pacing.expected_taken == pytest.approx(1.5)
    assert "held back 0" in stats.as_text(made)


async def test_the_chance_is_kept_with_the_suggestion(store):
    made = make_suggestion(chance=0.2, audited=True)
    await store.write([made])
    found = await store.suggestion(made.id)
    assert found is not None and (found.chance, found.audited) == (0.2, True)


async def test_what_this_person_never_takes_is_held_back_unless_they_ask(
    home, tmp_path, practised_model, database_url, store
):
    await live(store, K.REJECTED, 60)
    given = settings(
        practised_model, database={"url": database_url}, pacing={"enabled": True, "audit_share": 0.0, "debounce_ms": 0}
    )
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        assert await editor.complete(uri, len(CODE)) is None
        assert await editor.complete(uri, len(CODE)) is None  # nor from the cache
        answer = await asked_by_key(editor, uri, len(CODE))
        assert len(answer.items) == 1
        await editor.execute("npllm.evaluation.settle")
        told = await editor.execute("npllm.stats", {"days": 0})
        assert told["pacing"]["held_back"] == 1
        assert (told["stages"]["asked"], told["stages"]["requested"]) == (1, 63)
    assert (await store.counts()).suggestions == 61
    made = await store.latest_suggestion()
    assert made is not None and made.asked and made.requests == 3, "two requests before it gave nothing"


async def test_after_a_few_outcomes_everything_is_shown(home, tmp_path, practised_model, database_url, store):
    await live(store, K.REJECTED, 40)
    given = settings(practised_model, database={"url": database_url}, pacing={"enabled": True, "audit_share": 0.0})
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        assert await editor.complete(uri, len(CODE)) is not None


async def test_refusals_in_a_row_make_it_quiet_and_an_accept_brings_it_back(
    home, tmp_path, practised_model, database_url
):
    given = settings(
        practised_model, database={"url": database_url},
        pacing={"enabled": True, "audit_share": 0.0, "quiet_after": 2, "quiet_s": 600.0, "debounce_ms": 0},
    )  # fmt: skip
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        for word in ("qq", "zebra"):  # what was written once may be suggested
            assert await editor.complete(uri, len(editor.text(uri))) is not None
            for char in f"{word}\n    return ":
                editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), char)
        end = len(editor.text(uri))
        assert await editor.complete(uri, end) is None
        (item,) = (await asked_by_key(editor, uri, end)).items
        await editor.accept(uri, SimpleNamespace(text=item.insert_text, start=end, end=end, item=item))
        editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), "\n    return ")
        assert await editor.complete(uri, len(editor.text(uri))) is not None


async def test_the_person_may_wish_for_silence(home, tmp_path, practised_model, database_url):
    given = settings(practised_model, database={"url": database_url}, pacing={"languages_off": "go", "comments": False})
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        assert await editor.complete(uri, len(CODE)) is not None
        assert "until" in (await editor.execute("npllm.snooze"))["message"]
        assert await editor.complete(uri, len(CODE)) is None
        assert "until" in (await editor.ask_status()).message
        assert (await editor.execute("npllm.snooze", {"minutes": 0}))["message"] == ""
        assert await editor.complete(uri, len(CODE)) is not None
        go = editor.open("shapes.go", CODE, "go")
        assert await editor.complete(go, len(CODE)) is None
        assert len((await asked_by_key(editor, go, len(CODE))).items) == 1
        noted = editor.open("noted.py", CODE + "1  # ", "python")
        assert await editor.complete(noted, len(CODE) + 5) is None


async def test_forgetting_a_project_forgets_what_was_held_back_there(home, store, database_url, monkeypatch, tmp_path):
    inside = tmp_path / "project"
    place = make_place(project=str(inside), uri=(inside / "app.py").as_uri())
    await store.write([held(place=place), held()])
    monkeypatch.setenv("NPLLM_DATABASE_URL", database_url)
    arguments = ["memory", "forget", "--project", str(inside), "--yes"]
    assert await asyncio.to_thread(cli.main, arguments) == 0
    left = (await store.statistics.ask(None)).pacing
    assert left.held_back == 1
    await store.write([held(place=place)])  # off limits now
    assert (await store.statistics.ask(None)).pacing.held_back == 1


def test_an_evaluation_holds_nothing_back_unless_asked():
    setup = Setup(Pair("p", Tree("1", {}), Tree("2", {})), Path("/x"))
    assert server_settings(setup)["pacing"] == {"enabled": False}
    asked = dataclasses.replace(setup, settings={"pacing": {"enabled": True}})
    assert server_settings(asked)["pacing"]["enabled"] is True


async def test_a_wrong_snooze_is_told(home, tmp_path, practised_model, database_url):
    given = settings(practised_model, database={"url": database_url})
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        for minutes in (-1, "long", 10**6):
            with pytest.raises(EvaluationError, match="wants minutes"):
                await editor.execute("npllm.snooze", {"minutes": minutes})

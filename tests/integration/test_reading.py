# ruff: noqa: F811
"""What is read from an editor's events, end to end: saves, commits, checkouts, signs, one suggestion's story."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from lsprotocol import types as lsp

from npllm import cli
from npllm.config import FeedbackConfig
from npllm.feedback import reward
from npllm.feedback.detail import TYPED_OUT
from npllm.feedback.emotional import interpret
from npllm.feedback.experience import experience
from npllm.forgetting.looking import as_text
from npllm.memory import codec
from npllm.memory.store import Store
from npllm.types import Feedback, OutcomeKind, Sign, SignKind, new_id
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
from tests.unit.test_assist_repository import commit, git

CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "
K = OutcomeKind


def save(editor, uri: str) -> None:
    editor._client.text_document_did_save(lsp.DidSaveTextDocumentParams(lsp.TextDocumentIdentifier(uri)))


async def until_told(store: Store, id, occasion: str):
    """The outcome that was told on an occasion, once it has reached the database."""
    for _ in range(150):
        for outcome in (await store.looking.case(str(id))).outcomes:
            if outcome.occasion == occasion:
                return outcome
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing was told at {occasion}")


async def test_a_save_a_commit_and_a_checkout_are_told_apart(home, tmp_path, practised_model, database_url, store):
    workspace = tmp_path / "w"
    workspace.mkdir()
    git(workspace, "init", "-q", "-b", "main")
    commit(workspace, "x = 1\n")
    async with session(home, workspace, settings(practised_model, database={"url": database_url})) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        await editor.accept(uri, offered)
        made = await wait_for_latest(store)
        save(editor, uri)
        saved = await until_told(store, made.id, "save")
        assert (saved.kind, saved.survival, saved.final) == (K.ACCEPTED, 1.0, False)
        commit(workspace, "x = 2\n")
        committed = await until_told(store, made.id, "commit")
        assert (committed.kind, committed.survival) == (K.ACCEPTED, 1.0)
        git(workspace, "checkout", "-q", "-b", "other")
        editor.change(uri, 0, len(editor.text(uri)), "# another branch\n")
        replaced = await until_told(store, made.id, "replaced")
        assert (replaced.kind, replaced.final) == (K.ACCEPTED, True)
        await editor.execute("npllm.evaluation.settle")
    story = await store.looking.case(str(made.id))
    assert [outcome.kind for outcome in story.outcomes] == [K.ACCEPTED] * 4
    told = story.outcomes[-1]
    assert story.experience.reward == told.implicit == reward.weight(1.0, reward.size(offered.text)) == told.weight
    assert told.seen_s is not None and told.seen_s >= 0
    assert (story.suggestion.asked, story.suggestion.requests) == (False, 1)


async def test_a_formatter_in_a_long_file_is_understood_and_what_comes_behind_it(
    home, tmp_path, practised_model, database_url, store
):
    async with session(home, tmp_path / "w", settings(practised_model, database={"url": database_url})) as editor:
        above = "".join(f"value_{number}=compute({number})\n" for number in range(2000)) + "\n\n"
        uri = editor.open("shapes.py", above + CODE, "python")
        offered = await editor.complete(uri, len(editor.text(uri)))
        await editor.accept(uri, offered)
        text = editor.text(uri)
        formatted = above.replace("=", " = ") + text[len(above) :].replace("*", "  *  ")
        editor.change(uri, 0, len(text), formatted)
        end = len(formatted)
        for number, char in enumerate("\n\n\nx"):
            editor.change(uri, end + number, end + number, char)
        save(editor, uri)
        made = await wait_for_latest(store)
        saved = await until_told(store, made.id, "save")
        assert (saved.kind, saved.survival) == (K.ACCEPTED, 1.0)
        assert saved.final_text == offered.text.rstrip("\n").replace("*", "  *  ")


async def wait_for_latest(store: Store):
    for _ in range(150):
        if (found := await store.latest_suggestion()) is not None:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("no suggestion has reached the database")


async def test_five_refusals_in_a_row_are_kept_as_a_sign_and_not_as_feedback(
    home, tmp_path, practised_model, database_url, store
):
    async with session(home, tmp_path / "w", settings(practised_model, database={"url": database_url})) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        for word in ("qq", "zebra", "j9", "kiwi", "u_u"):  # what was written once may be suggested
            assert await editor.complete(uri, len(editor.text(uri))) is not None
            for char in f"{word}\n    return ":
                editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), char)
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["feedback"] == 0
    signs = await store._all("signs_of", id=(await wait_for_latest(store)).id)
    assert [row["kind"] for row in signs] == ["refusals"]
    experience = await store.experience((await wait_for_latest(store)).id)
    assert experience is not None and experience.emotional is None


async def test_what_is_said_about_a_line_is_about_the_suggestion_there(home, tmp_path, practised_model, database_url):
    async with session(home, tmp_path / "w", settings(practised_model, database={"url": database_url})) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        first = offered.item.command.arguments[0]
        await editor.accept(uri, offered)
        editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), "\n\n\ndef other(a):\n    return ")
        later = await editor.complete(uri, len(editor.text(uri)))
        said = {"emoji": "👎", "uri": uri}
        answer = await editor.execute("npllm.feedback", {**said, "line": CODE.count("\n")})
        assert answer["suggestionId"] == first
        for line in (0, 10_000, "x"):  # nothing stands there: the last one is meant
            answer = await editor.execute("npllm.feedback", {**said, "line": line})
            assert answer["suggestionId"] == later.item.command.arguments[0]


async def test_what_is_said_without_naming_one_is_about_the_last_that_was_seen(
    home, tmp_path, practised_model, database_url
):
    given = settings(practised_model, database={"url": database_url}, feedback={"min_visible_ms": 60_000})
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        taken = offered.item.command.arguments[0]
        assert (await editor.execute("npllm.feedback", {"emoji": "👍"}))["suggestionId"] == taken, "there is no other"
        await editor.accept(uri, offered)
        editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), "\n\n\ndef other(a):\n    return ")
        later = await editor.complete(uri, len(editor.text(uri)))
        assert (await editor.execute("npllm.feedback", {"emoji": "👎"}))["suggestionId"] == taken, "too short on screen"
        await editor.accept(uri, later)
        answer = await editor.execute("npllm.feedback", {"emoji": "👎"})
        assert answer["suggestionId"] == later.item.command.arguments[0]


async def test_an_editor_that_lost_the_focus_has_refused_nothing(home, tmp_path, practised_model, database_url, store):
    async with session(home, tmp_path / "w", settings(practised_model, database={"url": database_url})) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        assert not offered.text.startswith("z")
        editor._client.protocol.notify("npllm/didHide", {"uri": uri})
        for char in "zebra":
            editor.change(uri, len(editor.text(uri)), len(editor.text(uri)), char)
        await editor.execute("npllm.evaluation.settle")
    story = await store.looking.case(offered.item.command.arguments[0])
    assert (story.outcomes[-1].kind, story.outcomes[-1].detail) == (K.IGNORED, "moved away")
    assert story.experience.final_text == "zebra", "what was written is learned all the same"


async def test_a_sign_is_written_once_and_forgotten_with_its_place(store, database_url, monkeypatch, tmp_path, home):
    place = make_place(project=str(tmp_path), uri=(tmp_path / "app.py").as_uri())
    alone = new_id()
    sign = Sign(alone, alone, SignKind.UNDO_STORM, 0.5, place, datetime.now(UTC))
    assert codec.decode(codec.encode(sign)) == sign
    await store.write([sign, sign])
    assert len(await store._all("signs_of", id=alone)) == 1
    monkeypatch.setenv("NPLLM_DATABASE_URL", database_url)
    assert await asyncio.to_thread(cli.main, ["memory", "forget", "--project", str(tmp_path), "--yes"]) == 0
    await store.write([sign])
    assert await store._all("signs_of", id=alone) == []


async def live(store: Store, *, emoji: str = "", **outcome: object):
    """A suggestion with two looks and what was said, and the experience that this makes."""
    config = FeedbackConfig()
    made = make_suggestion(chance=0.31)
    first = make_outcome(made)
    last = make_outcome(made, revision=1, occasion="30 s", **outcome)
    records = [made, first, last]
    said = None
    if emoji:
        felt = interpret(emoji, "")
        feelings = (felt.satisfaction, felt.confidence, felt.frustration)
        said = Feedback(new_id(), made.id, emoji, "", *feelings, felt.reward, datetime.now(UTC))
        records.append(said)
    learned = experience(made, last, said, config)
    assert learned is not None
    await store.write([*records, learned])
    return made, as_text(await store.looking.case("last"), config)


async def test_the_story_explains_the_reward_step_by_step(store):
    made, text = await live(store, emoji="👍", kind=K.EDITED, survival=0.5, implicit=0.55, final_text="return sum(v)")
    assert str(made.id) in text and "its chance of being taken was 0.31" in text
    assert "0.3 + 0.5 x 0.50 = +0.55 (accepted, 50% survives)" in text
    assert "looked at: 30 s" in text and "return sum(v)" in text
    learned = await store.experience(made.id)
    assert f"r = 0.7 x +0.55 + 0.3 x {learned.emotional:+.2f} = {learned.reward:+.2f}" in text
    assert f"relevance = (r + 1) / 2 = {learned.relevance:.2f}" in text
    assert f"decision: {learned.decision.value}" in text


@pytest.mark.parametrize(
    ("kind", "implicit", "says"),
    [
        (K.ACCEPTED, 1.0, "+1.00 (taken by a key, and all of it stands)"),
        (K.ACCEPTED, 0.5, "+0.50 (right, but written out by hand"),
        (K.DELETED, -0.5, "-0.50 (accepted, then removed"),
        (K.REJECTED, -0.25, "-0.25 (something else was written there)"),
    ],
)
async def test_each_outcome_has_its_reason(store, kind, implicit, says):
    _, text = await live(store, kind=kind, implicit=implicit, detail=TYPED_OUT if implicit == 0.5 else "")
    assert says in text
    assert "the implicit reward alone: nothing was said" in text


async def test_the_story_says_how_much_the_surviving_characters_weigh(store):
    weight = reward.weight(1.0, 6)
    _, text = await live(store, kind=K.ACCEPTED, implicit=weight, weight=weight, seen_s=2.5, typed=3)
    n = reward.size("return total")
    said = f"+1.00 x {weight:.2f} = {weight:+.2f} (taken by a key, and all of it stands; w = {weight:.2f} for {n} char"
    assert said in text
    assert "2.5 s on screen, 3 characters typed along" in text
    _, text = await live(store, kind=K.EDITED, survival=0.5, implicit=0.55 * weight, weight=weight)
    assert f"(0.3 + 0.5 x 0.50) x {weight:.2f} = {0.55 * weight:+.2f} (accepted, 50% survives; w" in text
    assert " requested as the person typed; " in text and " offered" in text


async def test_anger_says_why_it_is_avoided(store):
    _, text = await live(store, emoji="😡", kind=K.REJECTED, implicit=-0.25)
    assert "decision: avoid, since frustration" in text

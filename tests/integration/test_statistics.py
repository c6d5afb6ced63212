# ruff: noqa: F811
"""What became of the suggestions, counted by a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from npllm import cli, stats
from npllm.feedback.detail import TYPED_OUT
from npllm.memory.store import Store
from npllm.types import AdapterVersion, Feedback, NpllmError, OutcomeKind, Sign, SignKind, VersionState, new_id
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

K = OutcomeKind
NOW = datetime.now(UTC).replace(microsecond=0)


def _how(kind: OutcomeKind, implicit: float) -> str:
    return TYPED_OUT if (kind, implicit) == (K.ACCEPTED, 0.5) else ""


async def offer(store: Store, *outcomes: tuple[OutcomeKind, float, float], **changes: object):
    """A suggestion of ten characters, and what was told of it: (kind, survival, implicit reward), in order."""
    made = make_suggestion(**{"text": "abcde fghij", "created_at": NOW, **changes})
    told = [
        make_outcome(
            made, kind=kind, survival=survival, implicit=implicit, revision=number, detail=_how(kind, implicit)
        )
        for number, (kind, survival, implicit) in enumerate(outcomes)
    ]
    await store.write([made, *told])
    return made


async def test_the_last_word_about_each_suggestion_counts(store):
    await offer(store, (K.ACCEPTED, 1.0, 1.0))
    await offer(store, (K.ACCEPTED, 1.0, 1.0), (K.EDITED, 0.5, 0.55))
    await offer(store, (K.ACCEPTED, 1.0, 1.0), (K.DELETED, 0.0, -0.5))
    await offer(store, (K.PARTIALLY_ACCEPTED, 0.3, 0.3))
    await offer(store, (K.ACCEPTED, 1.0, 0.5))  # typed out by hand
    await offer(store, (K.REJECTED, 0.0, -0.25))
    await offer(store, (K.UNSEEN, 0.0, 0.0))
    await offer(store, (K.SUPERSEDED, 0.0, 0.0))
    await offer(store)  # nothing is known yet
    total = (await stats.ask(store)).total
    assert (total.offered, total.seen, total.taken, total.typed, total.deleted) == (9, 6, 4, 1, 1)
    assert total.acceptance == pytest.approx(4 / 6)
    assert (total.characters_seen, total.characters_taken, total.characters_kept) == (60, 40, 18)
    assert total.retention == pytest.approx(0.45)


async def test_every_state_is_told(store):
    for kind, detail, typed in (
        (K.ACCEPTED, "", 0),
        (K.ACCEPTED, TYPED_OUT, 10),
        (K.PARTIALLY_ACCEPTED, "words", 0),
        (K.EDITED, "", 2),
        (K.DELETED, "undone", 0),
        (K.DELETED, "", 0),
        (K.REJECTED, "typed through 3 characters", 3),
        (K.REJECTED, "typed through 4 characters", 4),
        (K.DISMISSED, "", 0),
        (K.IGNORED, "moved away", 0),
        (K.UNSEEN, "too late", 0),
        (K.SUPERSEDED, "", 0),
    ):
        made = make_suggestion(requests=2, asked=kind is K.EDITED)
        await store.write([made, make_outcome(made, kind=kind, detail=detail, typed=typed)])
    await store.write([make_suggestion()])
    made = await stats.ask(store)
    stages = made.stages
    assert (stages.requested, stages.asked, stages.offered, stages.seen, stages.typed_along) == (25, 1, 13, 10, 4)
    text = stats.as_text(made)
    assert "requested 25 (1 by a key of your own), offered 13, seen 10, typed along 4." in text
    assert (
        "accepted 2 (typed out 1), partly accepted 1 (words 1), accepted and edited 1, "
        "accepted and deleted 2 (undone 1), rejected by typing on 2, dismissed 1, left alone 1 (moved away 1), "
        "never seen 1 (too late 1), superseded 1,"
        " nothing known yet 1."
    ) in text
    told = {(one["kind"], one["detail"]): one["count"] for one in stats.as_json(made)["stages"]["ends"]}
    assert told["deleted", "undone"] == 1 and told["rejected", ""] == 2 and told["", ""] == 1
    assert sum(told.values()) == 13


async def test_what_was_said_and_signs_of_frustration_are_told_apart(store):
    made = await offer(store, (K.ACCEPTED, 1.0, 1.0))
    assert "said" not in stats.as_text(await stats.ask(store)) and "frust" not in stats.as_text(await stats.ask(store))
    for reward in (0.8, 0.9, -0.6, 0.0):
        await store.write([Feedback(new_id(), made.id, "", "x", 0.0, 0.0, 0.0, reward, NOW)])
    for kind, at in ((SignKind.REFUSALS, NOW), (SignKind.UNDO_STORM, NOW), (SignKind.UNDO_STORM, NOW - timedelta(40))):
        await store.write([Sign(new_id(), made.id, kind, 0.5, make_place(), at)])
    told = await stats.ask(store)
    text = stats.as_text(told)
    assert "said how it was 4: 2 glad, 1 not, 1 neither." in text
    assert "signs of frustration: five refusals in a row 1, undo storms 1." in text
    assert stats.as_json(told)["moods"]["undo_storms"] == 1
    assert (await stats.ask(store, 0)).moods.undo_storms == 2


async def test_what_came_by_other_means_was_not_taken(store):
    made = make_suggestion(text="abcde fghij")
    await store.write([made, make_outcome(made, implicit=0.3, detail="by other means")])
    total = (await stats.ask(store)).total
    assert (total.seen, total.taken, total.typed) == (1, 0, 0)


async def test_by_language_project_version_and_day(store):
    version = AdapterVersion(
        new_id(), "language:python", "base", None, new_id(), "adapters/x", "00", VersionState.RETIRED, "", {}, NOW
    )
    await store.insert_adapter_version(version)
    unknown = new_id()
    taken, left = (K.ACCEPTED, 1.0, 1.0), (K.IGNORED, 0.0, -0.1)
    await offer(store, taken, adapter_versions=(version.id,))
    await offer(store, left, adapter_versions=(version.id, unknown))
    await offer(store, left, place=make_place(language="go", project="/other"), created_at=NOW - timedelta(days=1))
    made = await store.statistics.ask(None)
    by = {name: {one.name: (one.seen, one.taken) for one in groups} for name, groups in made.groups.items()}
    assert by["language"] == {"python": (2, 1), "go": (1, 0)}
    assert by["project"] == {"/project": (2, 1), "/other": (1, 0)}
    assert by["version"] == {str(version.id): (2, 1), str(unknown): (1, 0), "": (1, 0)}
    assert list(by["day"].items()) == [
        (f"{NOW:%Y-%m-%d}", (2, 1)),
        (f"{NOW - timedelta(days=1):%Y-%m-%d}", (1, 0)),
    ]
    contexts = {one.name: one.context for one in made.groups["version"]}
    assert contexts == {str(version.id): "language:python", str(unknown): "", "": ""}


async def test_a_day_begins_by_local_time(store):
    await offer(store, created_at=datetime(2026, 3, 1, 23, 30, tzinfo=UTC))
    made = await store.statistics.ask(None, timedelta(hours=1))
    assert [one.name for one in made.groups["day"]] == ["2026-03-02"]


async def test_older_ones_are_left_out_when_asked_so(store):
    await offer(store, created_at=NOW - timedelta(days=40))
    assert (await stats.ask(store)).total.offered == 0
    assert (await stats.ask(store, 0)).total.offered == 1
    assert stats.as_text(await stats.ask(store)).startswith("No suggestion was made since ")
    with pytest.raises(NpllmError, match="from 0"):
        await stats.ask(store, -1)


async def test_how_much_still_stands_is_told_for_each_look(store):
    async def taken(*looks: tuple[float, str, K, float]) -> None:
        made = make_suggestion(text="abcde fghij", created_at=NOW)
        told = [
            make_outcome(
                made,
                kind=kind,
                survival=survival,
                occasion=occasion,
                revision=number,
                created_at=NOW + timedelta(seconds=after),
                implicit=1.0,
            )
            for number, (after, occasion, kind, survival) in enumerate(looks)
        ]
        await store.write([made, *told])

    # One is changed after a minute and saved twice, one is thrown away after 20 s and no longer followed then.
    await taken(
        (1.0, "", K.ACCEPTED, 1.0), (40.0, "save", K.ACCEPTED, 1.0), (121.0, "120 s", K.EDITED, 0.6),
        (200.0, "save", K.EDITED, 0.6), (900.0, "commit", K.EDITED, 0.5),
    )  # fmt: skip
    await taken((1.0, "", K.ACCEPTED, 1.0), (20.0, "close", K.DELETED, 0.0))
    made = await store.statistics.ask(None)
    told = {one.occasion: (one.texts, one.characters, one.characters_kept) for one in made.standing}
    assert told == {
        "15 s": (2, 20, 20),
        "30 s": (1, 10, 10),
        "120 s": (1, 10, 6),
        "300 s": (1, 10, 6),
        "600 s": (1, 10, 6),
        "save": (1, 10, 10),
        "commit": (1, 10, 5),
    }
    assert list(told)[-2:] == ["save", "commit"]
    assert "15 s 100% (of 2)" in stats.as_text(made)


async def test_the_tables_say_what_json_says(store):
    await offer(store, (K.ACCEPTED, 1.0, 1.0))
    made = await stats.ask(store)
    told = stats.as_json(made)
    assert json.loads(json.dumps(told)) == told
    assert (told["total"]["acceptance"], told["language"][0]["characters_kept"]) == (1.0, 10)
    text = stats.as_text(made)
    assert "python" in text and "100%" in text and "(bare base)" in text
    assert "adapter version" not in stats.as_text(made, ["language"])


def test_the_command_prints_one_json_object(home, database_url, monkeypatch, capsys):
    monkeypatch.setenv("NPLLM_DATABASE_URL", database_url)
    assert cli.main(["stats", "--json", "--days", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["offered"] == 0
    assert cli.main(["stats", "--days", "-1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


async def test_the_editor_can_ask(home, tmp_path, practised_model, database_url):
    code = "def area(width, height):\n    return "
    given = settings(practised_model, database={"url": database_url})
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", code, "python")
        await editor.accept(uri, await editor.complete(uri, len(code)))
        await editor.execute("npllm.evaluation.settle")
        told = await editor.execute("npllm.stats")
        assert (told["total"]["seen"], told["total"]["taken"], told["total"]["acceptance"]) == (1, 1, 1.0)
        assert told["language"][0]["name"] == "python" and "python" in told["text"]
        assert "from 0" in (await editor.execute("npllm.stats", {"days": -1}))["reason"]

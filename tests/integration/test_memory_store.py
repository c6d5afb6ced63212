# ruff: noqa: F811
"""The store's functions against a real PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import numpy as np
import pytest

from npllm import config
from npllm.memory import similarity
from npllm.memory.database import DataRefused
from npllm.memory.migrate import Migration, load, migrate
from npllm.memory.store import ContextCount, Store
from npllm.types import (
    AdapterVersion,
    Consolidation,
    ConsolidationState,
    Decision,
    Feedback,
    OutcomeKind,
    StoreError,
    VersionState,
    new_id,
)
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    store,
    store_config,
    unit_vector,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def version(**changes: object) -> AdapterVersion:
    given = AdapterVersion(
        id=new_id(),
        context="language:python",
        base_fingerprint="base",
        parent=None,
        consolidation_id=new_id(),
        folder="adapters/x",
        sha256="00",
        state=VersionState.REJECTED,
        reason="",
        metrics={"nll_before": 1.5, "nll_after": math.nan},
        created_at=NOW,
    )
    return dataclasses.replace(given, **changes)


async def test_what_is_written_is_read_back_and_a_replay_changes_nothing(store: Store) -> None:
    parent = new_id()
    suggestion = make_suggestion(adapter_versions=(parent,), memory_ids=(new_id(), new_id()), created_at=NOW)
    outcome = make_outcome(suggestion)
    feedback = Feedback(new_id(), suggestion.id, "👍", "bem", 1.0, 0.5, 0.0, 0.9, NOW)
    experience = make_experience(id=suggestion.id, embedding=unit_vector(1), created_at=NOW)
    records = [suggestion, outcome, feedback, experience]
    await store.write(records)
    before = await store.counts()
    await store.write(list(reversed(records)))

    assert await store.counts() == before
    assert (before.suggestions, before.outcomes, before.feedback, before.experiences) == (1, 1, 1, 1)
    assert await store.suggestion(suggestion.id) == suggestion
    assert await store.latest_suggestion() == suggestion
    assert await store.experience(experience.id) == dataclasses.replace(experience, embedding=None)
    assert await store.suggestion(new_id()) is None


async def test_a_later_look_wins_in_whatever_order_they_arrive(store: Store) -> None:
    first = make_experience(revision=0, final_text="a()", embedding=unit_vector(1))
    second = dataclasses.replace(first, revision=1, final_text="a(b)", embedding=unit_vector(2))
    await store.write([second])
    await store.write([first])
    found = await store.experience(first.id)
    assert found is not None and (found.revision, found.final_text) == (1, "a(b)")


async def test_a_look_without_an_embedding_keeps_the_one_there_is_if_the_text_is_the_same(store: Store) -> None:
    async def score() -> float | None:
        found = await store.similar(unit_vector(1), project="/project", language="python", limit=5, min_similarity=0.5)
        return found[0].score if found else None

    first = make_experience(embedding=unit_vector(1))
    await store.write([first])
    await store.write([dataclasses.replace(first, revision=1, embedding=None)])
    assert await score() == pytest.approx(1.0, abs=1e-3)
    await store.write([dataclasses.replace(first, revision=2, embedding=None, final_text="other()")])
    assert await score() is None


async def test_text_that_postgresql_cannot_hold_is_kept_as_far_as_it_can_be(store: Store) -> None:
    suggestion = make_suggestion(text="a\x00b\ud800c😀", prefix="\x00")
    await store.write([suggestion])
    found = await store.suggestion(suggestion.id)
    assert found is not None and found.text == "a�b�c😀"


async def test_a_record_that_cannot_be_stored_is_refused_and_takes_nothing_with_it(store: Store) -> None:
    good, bad = make_suggestion(), make_suggestion(place=make_place(offset=2**40))
    with pytest.raises(DataRefused):
        await store.write([good, bad])
    assert (await store.counts()).suggestions == 0


async def test_traces_are_the_newest_of_a_language_without_what_is_long(store: Store) -> None:
    made = [
        make_experience(created_at=NOW + timedelta(seconds=second), prefix="x" * 5000 + f"\n{second}\n")
        for second in range(3)
    ]
    other = make_experience(place=make_place(language="go"), created_at=NOW)
    await store.write([*made, other])
    found = await store.traces(None, language="python", limit=2)
    assert [item.id for item in found] == [made[2].id, made[1].id]
    assert found[0].prefix == made[2].prefix[-1000:] and found[0].final_text == made[2].final_text
    assert [item.id for item in await store.traces(NOW + timedelta(seconds=2))] == [made[2].id]
    assert len(await store.traces(None)) == 4
    await store.write([dataclasses.replace(made[2], final_text="later", revision=made[2].revision + 1)])
    assert (await store.traces(None, limit=1))[0].final_text == "later"


async def test_similar_offers_what_the_person_wrote_and_never_an_avoided_text(store: Store) -> None:
    near = unit_vector(1, 2, 0.3)
    shared = {"embedding": near, "prefix": "import os\nx = 1\n"}
    kept = make_experience(**shared, final_text="kept = compute()")
    low = make_experience(**shared, final_text="low = compute()", decision=Decision.LOW)
    typed = make_experience(
        **shared,
        suggested="os.remove(everything)",
        final_text="typed = compute()",
        decision=Decision.AVOID,
        outcome=OutcomeKind.REJECTED,
    )
    avoided = make_experience(
        **shared, suggested="os.system('rm')", final_text="os.system('rm')", decision=Decision.AVOID
    )
    again = make_experience(**shared, suggested="z", final_text="y = os.remove(everything)  # again")
    discarded = make_experience(**shared, suggested="d = 1", final_text="d = 1", decision=Decision.DISCARD)
    own = make_experience(**shared, suggested="d = 1", final_text="own = 2", decision=Decision.DISCARD)
    gone = make_experience(**shared, final_text=" \n", outcome=OutcomeKind.DELETED)
    far = make_experience(final_text="far()", embedding=unit_vector(7))
    other = make_experience(**shared, final_text="js()", place=make_place(language="javascript"))
    await store.write([kept, low, typed, avoided, again, discarded, own, gone, far, other])
    for project in ("/project", None):
        found = await store.similar(unit_vector(1), project=project, language="python", limit=20, min_similarity=0.5)
        assert {s.experience_id for s in found} == {kept.id, low.id, typed.id, own.id}, project
        assert all("os.remove" not in s.text and "os.system" not in s.text for s in found)
        assert all(s.text.endswith("= compute()") or s.text.endswith("own = 2") for s in found)
        assert all(s.score == pytest.approx(0.954, abs=0.01) for s in found)
    found = await store.similar(
        unit_vector(1), project="/project", language="python", limit=20, min_similarity=0.5, exclude=[kept.id]
    )
    assert kept.id not in {s.experience_id for s in found}
    found = await store.similar(unit_vector(1), project="/else", language="python", limit=9, min_similarity=0)
    assert found == []


async def test_where_there_is_much_the_codes_find_what_looking_at_each_finds(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, 384))
    vectors = [centre + 0.6 * rng.standard_normal(384) for centre in centres for _ in range(20)]
    places = [make_place(project=f"/p{number % 3}") for number in range(len(vectors))]
    await store.write(
        [make_experience(embedding=tuple(vector), place=place) for vector, place in zip(vectors, places, strict=True)]
    )
    query = tuple(centres[7] + 0.6 * rng.standard_normal(384))

    async def nearest(project: str | None) -> list[UUID]:
        found = await store.similar(query, project=project, language="python", limit=5, min_similarity=0.0)
        return [one.experience_id for one in found]

    exact = await nearest("/p1")
    monkeypatch.setattr(similarity, "EXACT_BELOW", 1)
    monkeypatch.setattr(similarity, "CANDIDATES", 60)
    assert await nearest("/p1") == exact and len(exact) == 5
    assert len(set(await nearest(None)) - set(exact)) > 0, "of all projects"
    monkeypatch.setattr(similarity, "CANDIDATES", 1)
    assert len(await nearest("/p1")) == 1, "so many are compared, no more"

    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("VACUUM ANALYZE npllm.experiences")
        await connection.execute("SET enable_seqscan = off; SET search_path = npllm")
        plan = await connection.fetch(
            "EXPLAIN SELECT id FROM experiences WHERE owner = current_user AND language = 'python' "
            "AND code IS NOT NULL ORDER BY code <~> CAST(repeat('1', 384) AS bit(384)) LIMIT 9"
        )
    finally:
        await connection.close()
    assert any("Index Only Scan using experiences_codes" in row[0] for row in plan), "no text is read for it"


async def test_experiences_by_time_and_context(store: Store) -> None:
    times = [NOW + timedelta(hours=h) for h in range(4)]
    contexts = ["language:python", "language:python", "language:go", "language:python"]
    made = [make_experience(created_at=t, context=c) for t, c in zip(times, contexts)]
    await store.write(made)
    ids = [e.id for e in made]

    assert [e.id for e in await store.experiences_since(None)] == ids
    assert [e.id for e in await store.experiences_since(times[1])] == ids[1:]
    newest = await store.experiences_since(times[1], context="language:python", newest_first=True, limit=1)
    assert [e.id for e in newest] == [ids[3]]
    assert [e.id for e in await store.experiences_before(times[2])] == [ids[1], ids[0]]
    assert await store.contexts_with_new(times[1]) == [
        ContextCount("language:python", 2),
        ContextCount("language:go", 1),
    ]
    avoided = make_experience(decision=Decision.AVOID)
    await store.write([avoided])
    assert [e.id for e in await store.avoided("/project", 5)] == [avoided.id]
    assert await store.avoided("/other", 5) == []
    assert [e.id for e in await store.avoided(None, 5)] == [avoided.id]


async def test_one_version_is_published_at_a_time_and_every_window_hears_of_it(
    store: Store, store_config: config.Config
) -> None:
    other_window = await Store.connect(store_config)
    heard: list[str] = []
    await other_window.listen(heard.append)
    first, second, elsewhere = version(), version(parent=new_id()), version(context="language:go")
    await store.insert_adapter_version(first)
    assert [v.state for v in await store.adapter_versions()] == [VersionState.REJECTED]
    await store.publish(first)
    await store.publish(elsewhere)
    await asyncio.gather(store.publish(second), other_window.publish(second))

    published = await store.adapter_versions(state=VersionState.PUBLISHED, context="language:python")
    assert [v.id for v in published] == [second.id]
    assert published[0].parent == second.parent and math.isnan(published[0].metrics["nll_after"])
    assert [v.id for v in await store.adapter_versions(state=VersionState.RETIRED)] == [first.id]
    assert len(await store.adapter_versions(base_fingerprint="base")) == 3
    async with asyncio.timeout(20):
        while len(heard) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert heard == [str(v.id) for v in (first, elsewhere, second, second)]
    await other_window.close()


async def test_consolidations(store: Store) -> None:
    assert await store.last_consolidation() is None
    done = Consolidation(new_id(), ConsolidationState.DONE, NOW, NOW, {"loss": math.inf, "contexts": ["x"]})
    cut = Consolidation(new_id(), ConsolidationState.RUNNING, NOW + timedelta(hours=1))
    await store.upsert_consolidation(done)
    assert await store.interrupted_consolidation() is None
    await store.upsert_consolidation(cut)
    assert (await store.interrupted_consolidation()) == cut  # its child was killed
    await store.upsert_consolidation(dataclasses.replace(cut, state=ConsolidationState.INTERRUPTED))
    found = await store.interrupted_consolidation()
    assert found is not None and found.state is ConsolidationState.INTERRUPTED
    assert await store.last_consolidation(ConsolidationState.DONE) == dataclasses.replace(
        done, report={"loss": None, "contexts": ["x"]}
    )
    await store.upsert_consolidation(dataclasses.replace(cut, state=ConsolidationState.DONE))
    assert await store.interrupted_consolidation() is None


async def test_idleness_is_that_of_all_live_windows(store: Store) -> None:
    assert await store.latest_activity() is None
    one, two = new_id(), new_id()
    now = datetime.now(UTC)
    await store.heartbeat(one, now - timedelta(minutes=30), True)
    await store.heartbeat(two, now - timedelta(minutes=10), True)
    assert await store.latest_activity() == now - timedelta(minutes=10)
    await store.heartbeat(one, now - timedelta(minutes=30), False)
    assert await store.latest_activity() == now - timedelta(minutes=10)
    assert await store.sleep_vetoed()
    await store.end_session(one)
    assert not await store.sleep_vetoed()
    await asyncio.sleep(0.05)
    assert await store.latest_activity(stale_s=0.01) is None  # not heard of lately: dead


async def test_one_trainer_at_a_time(store: Store, store_config: config.Config) -> None:
    other = await Store.connect(store_config)
    async with store.trainer_lock() as mine, other.trainer_lock() as theirs:
        assert (mine, theirs) == (True, False)
    async with asyncio.timeout(20):
        while True:
            async with other.trainer_lock() as theirs:
                if theirs:
                    break
    await other.close()


async def end_connection(database_url: str, last_query: str) -> None:
    """End, at the server, the connections of this database whose last query was such a one."""
    admin = await asyncpg.connect(database_url)
    ended = await admin.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ILIKE $1",
        f"%{last_query}%",
    )
    await admin.close()
    assert ended


async def test_the_holder_of_a_lost_trainer_lock_is_told(store: Store, database_url: str) -> None:
    lost = asyncio.Event()
    async with store.trainer_lock(lost.set) as mine:
        assert mine and not lost.is_set()
        await end_connection(database_url, "take_training")
        async with asyncio.timeout(20):
            await lost.wait()
    lost.clear()
    async with asyncio.timeout(20):
        while True:
            async with store.trainer_lock(lost.set) as mine:
                if mine:
                    break
    await asyncio.sleep(0.1)
    assert not lost.is_set()  # given back is not lost


async def test_whoever_does_not_get_the_trainer_lock_hears_nothing_of_it(
    store: Store, store_config: config.Config, database_url: str
) -> None:
    other = await Store.connect(store_config)
    told: list[str] = []
    lost = asyncio.Event()
    async with store.trainer_lock(lost.set) as mine, other.trainer_lock(lambda: told.append("lost")) as theirs:
        assert mine and not theirs
        await end_connection(database_url, "take_training")
        async with asyncio.timeout(20):
            await lost.wait()
        await asyncio.sleep(0.1)
    assert told == []
    await other.close()


@pytest.mark.parametrize("end", ["before", "after"])
async def test_a_connection_lost_around_listen_is_a_store_error_and_is_tried_again(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    real = store._database.connect
    failures = 0

    async def connect() -> asyncpg.Connection:
        nonlocal failures
        connection = await real()
        if failures:
            failures -= 1
            if end == "before":
                connection.terminate()
            else:
                subscribe = connection.add_listener

                async def add_listener(*arguments: object) -> None:
                    await subscribe(*arguments)
                    connection.terminate()

                monkeypatch.setattr(type(connection), "add_listener", lambda _, *arguments: add_listener(*arguments))
        else:
            monkeypatch.undo()
            monkeypatch.setattr(store._database, "connect", connect)
        return connection

    monkeypatch.setattr(store._database, "connect", connect)
    monkeypatch.setattr("npllm.memory.presence.RETRY_S", 0.05)
    failures = 1
    with pytest.raises(StoreError):
        await store.listen(heard.put_nowait)
    await store.listen(heard.put_nowait)
    failures = 2
    await end_connection(database_url, "LISTEN")
    async with asyncio.timeout(20):
        assert await heard.get() == "reconnect"
        told = version(reason="told")
        await store.publish(told)
        assert await heard.get() == str(told.id)
    assert failures == 0 and heard.empty()


async def test_two_people_share_a_database_and_see_only_their_own(
    store: Store,
    store_config: config.Config,
    database_url: str,
) -> None:
    role = f"ana_{new_id().hex}"
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"CREATE ROLE {role} LOGIN IN ROLE npllm_member")
    try:
        url = database_url.replace("npllm@", f"{role}@")
        theirs = await Store.connect(config.merge(store_config, {"database": {"url": url}}, source="the test"))
        await store.write([make_experience(embedding=unit_vector(1))])
        await theirs.write([make_experience(final_text="ana()", embedding=unit_vector(1))])
        for who, text in ((store, "return sum(values)"), (theirs, "ana()")):
            assert (await who.counts()).experiences == 1
            found = await who.similar(unit_vector(1), project=None, language="python", limit=5, min_similarity=0.5)
            assert len(found) == 1 and found[0].text.endswith(text)
        async with store.trainer_lock() as mine, theirs.trainer_lock() as hers:
            assert mine and hers
        await theirs.close()
        hers_directly = await asyncpg.connect(url)
        assert await hers_directly.fetchval("SELECT count(*) FROM npllm.experiences") == 1
        await hers_directly.close()
    finally:
        await admin.execute(f"DROP OWNED BY {role}")
        await admin.execute("DELETE FROM npllm.experiences")
        await admin.execute("DELETE FROM npllm.projects")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


async def test_an_experience_belongs_to_several_contexts(store: Store) -> None:
    one = make_experience(contexts=("project:/project", "framework:pytest", "language:python", "generic"))
    there = make_place(project="/other")
    old = make_experience(prefix="import pytest\n", place=there, contexts=())  # of an earlier version's journal
    await store.write([one, old, make_suggestion(prefix="import flask\n")])
    assert await store.families() == {
        "framework:pytest": 2,
        "generic": 2,
        "language:python": 2,
        "project:/other": 1,
        "project:/project": 1,
    }
    found = await store.experiences_since(None, context="project:/other")
    assert [item.id for item in found] == [old.id]
    assert found[0].contexts == ("project:/other", "framework:pytest", "language:python", "generic")
    assert len(await store.experiences_since(None, context="framework:pytest")) == 2
    latest = await store.latest_suggestion()
    assert latest is not None and "framework:flask" in latest.contexts


async def test_migrations_run_once_each_even_from_several_processes_at_once(
    store_config: config.Config,
    database_url: str,
) -> None:
    stores = await asyncio.gather(*(Store.connect(store_config) for _ in range(3)))
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT number, sha256 FROM npllm.schema_migrations ORDER BY number")
    assert [(r["number"], r["sha256"]) for r in rows] == [(m.number, m.sha256) for m in load()]

    more = [*load(), Migration(load()[-1].number + 1, "more", "CREATE TABLE npllm.more (a int)")]
    assert await migrate(connection, more) == 1
    with pytest.raises(StoreError, match=r"newer version. Upgrade"):
        await Store.connect(store_config)
    changed = [dataclasses.replace(more[0], sql=more[0].sql + " "), *more[1:]]
    with pytest.raises(StoreError, match="is not the one"):
        await migrate(connection, changed)
    broken = [*more, Migration(more[-1].number + 1, "broken", "CREATE TABLE npllm.half (a int); SELECT 1/0")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection, broken)
    assert await connection.fetchval("SELECT to_regclass('npllm.half')") is None
    await connection.close()
    for one in stores:
        await one.close()


async def test_rewards_of_earlier_versions_keep_their_meaning(store_config: config.Config, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    before = [m for m in load() if m.number < 11]
    await migrate(connection, before)
    made = make_suggestion()
    for implicit in (1.0, 0.5):  # taken by a key, and typed out by hand
        await connection.execute(
            "INSERT INTO npllm.outcomes (id, suggestion_id, revision, kind, suggested, final_text, survival, implicit,"
            " created_at, final) VALUES ($1, $2, $3, 'accepted', 'x', 'x', 1, $4, now(), true)",
            *(new_id(), made.id, 0 if implicit == 1.0 else 1, implicit),
        )
    store = await Store.connect(store_config)
    await store.write([made])
    first, last = (await store.looking.case(str(made.id))).outcomes
    assert (first.implicit, first.weight, first.detail, first.seen_s) == (1.0, 1.0, "", None)
    assert (last.implicit, last.weight, last.detail, last.typed) == (0.5, 1.0, "typed out", 0)
    await store.close()
    await connection.close()


async def test_what_an_earlier_version_embedded_has_its_code_and_a_code_follows_its_embedding(
    store_config: config.Config, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(database_url)
    await migrate(connection, [m for m in load() if m.number < 21])
    made = make_experience(embedding=None)
    vector = str(list(unit_vector(3)))
    await connection.execute("SET search_path = npllm; INSERT INTO projects (path) VALUES ('/project')")
    await connection.execute(
        "INSERT INTO experiences (id, project_id, uri, path, language, cursor_offset, prefix, suffix, context,"
        " suggested, final_text, outcome, implicit, reward, relevance, decision, created_at, revision, contexts,"
        " embedding) "
        "SELECT $1, id, '', 'app.py', 'python', 0, '', '', 'language:python', '', 'x = 1', 'edited', 0, 0, 1, 'keep',"
        " now(), 0, '{}', $2::text::halfvec FROM projects",
        *(made.id, vector),
    )
    await connection.execute(
        "INSERT INTO chunk_texts (hash, content, terms, embedding) VALUES ('h', 'x', '', $1::text::halfvec)", vector
    )
    store = await Store.connect(store_config)
    monkeypatch.setattr(similarity, "EXACT_BELOW", 0)

    async def found() -> list[UUID]:
        near = await store.similar(unit_vector(3), project="/project", language="python", limit=5, min_similarity=0.5)
        return [one.experience_id for one in near]

    assert await found() == [made.id]
    assert await connection.fetchval("SELECT count(*) FROM chunk_texts WHERE code IS NOT NULL") == 1
    assert await connection.fetchval("SELECT relallvisible > 0 FROM pg_class WHERE oid = 'experiences'::regclass")
    await connection.execute("UPDATE experiences SET embedding = NULL")
    assert await found() == []
    await connection.execute("UPDATE experiences SET embedding = $1::text::halfvec", vector)
    assert await found() == [made.id]
    await store.close()
    await connection.close()


async def test_a_migration_that_takes_too_long_or_too_much_room_is_said(
    store_config: config.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await Store.connect(store_config)).close()
    slow = [*load(), Migration(9999, "slow", "SELECT pg_sleep(5)")]
    monkeypatch.setattr("npllm.memory.migrate.load", lambda: slow)
    monkeypatch.setattr("npllm.memory.migrate.REWRITING_S", 0.2)
    with pytest.raises(StoreError, match="could not be brought up to date"):
        await Store.connect(store_config)
    full = "DO $$ BEGIN RAISE disk_full USING MESSAGE = 'no room'; END $$"
    monkeypatch.setattr("npllm.memory.migrate.load", lambda: [*load(), Migration(9999, "large", full)])
    with pytest.raises(StoreError, match="Make room"):
        await Store.connect(store_config)
    monkeypatch.undo()
    await (await Store.connect(store_config)).close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:secret@127.0.0.1:1/db", "127.0.0.1"),
        ("postgresql://me:secret@no-such-host.invalid/db", "no-such-host.invalid"),
        ("this is no url", "this is no url"),
    ],
)
async def test_an_unreachable_database_gives_one_clear_message(home: Path, url: str, says: str) -> None:
    settings = config.merge(config.load(home), {"database": {"url": url}}, source="the test")
    with pytest.raises(StoreError) as caught:
        await Store.connect(settings)
    message = str(caught.value)
    assert says in message and "NPLLM_DATABASE_URL" in message and "secret" not in message


async def test_a_missing_database_is_named(store_config: config.Config) -> None:
    url = store_config.database.url.replace("test_", "absent_")
    settings = config.merge(store_config, {"database": {"url": url}}, source="the test")
    with pytest.raises(StoreError, match="absent_"):
        await Store.connect(settings)

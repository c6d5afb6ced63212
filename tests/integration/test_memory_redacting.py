# ruff: noqa: F811, ASYNC110
"""Secrets in what earlier versions stored: their halves, the reports that quote them, and what arrives meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from npllm.config import JournalConfig
from npllm.memory import codec, redacting
from npllm.memory.database import Connection
from npllm.memory.journal import Journal
from npllm.memory.places import Selector
from npllm.memory.pump import Pump
from npllm.memory.redacting import Redacted
from npllm.memory.scrubbing import redact_journals
from npllm.memory.store import Store
from npllm.types import Consolidation, ConsolidationState, JournalRecord, new_id
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_suggestion,
    postgres,
    store,
    store_config,
    unit_vector,
)

BEGIN, END = 'password = "hunter2Zq', '8sKd91mQ"'
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def redact(store: Store, *, dry_run: bool = False) -> Redacted:
    return await store.redacting.run(tainted=lambda _versions, _ids: (), usable=lambda _: True, dry_run=dry_run)


async def stored(url: str, text: str) -> list[str]:
    """Tables of which any row holds a text."""
    connection = await asyncpg.connect(url)
    try:
        names = [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname='npllm'")]
        count = "SELECT count(*) FROM npllm.{} t WHERE strpos(t::text, $1) > 0"
        return [name for name in names if await connection.fetchval(count.format(name), text)]
    finally:
        await connection.close()


async def test_the_half_of_a_secret_goes_with_the_half_before_the_cursor(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redacting, "PAGE", 1)
    written = [make_suggestion(prefix=BEGIN, text=END) for _ in range(2)]
    await store.write([*written, *map(make_outcome, written)])
    would = await redact(store, dry_run=True)
    assert would.rows == Counter(suggestions=2, outcomes=2)
    done = await redact(store)
    assert done.rows == would.rows and done.kinds == would.kinds
    for half in (BEGIN[-9:], END[:-1]):
        assert await stored(database_url, half) == []


async def test_an_outcome_in_a_journal_is_read_with_its_suggestion_in_the_database(
    store: Store, tmp_path: Path
) -> None:
    carried, waiting = make_suggestion(prefix=BEGIN, text=END), make_suggestion(prefix=BEGIN, text=END)
    await store.write([carried])
    left = tmp_path / "left.jsonl"
    records = [make_outcome(carried), waiting, make_outcome(waiting), make_outcome(make_suggestion())]
    left.write_bytes(b"".join(map(codec.encode, records)) + b"{half a line")
    assert await redact_journals(tmp_path, store.redacting.around) == 3
    assert END[:-1].encode() not in left.read_bytes() and left.read_bytes().endswith(b"{half a line")
    assert await redact_journals(tmp_path, store.redacting.around) == 0


async def test_reports_of_sleeps_that_may_quote_it_lose_their_words(store: Store, database_url: str) -> None:
    experience = make_experience(final_text=BEGIN + END, created_at=NOON)
    await store.write([experience])
    ids = {}
    for name, hours in (("before", -1), ("after", 1)):
        at = NOON + timedelta(hours=hours)
        report = {"quotes": [{"id": experience.id.hex, "wrote": f"{name} {BEGIN}{END}"}], "gain": 0.5}
        sleep = Consolidation(new_id(), ConsolidationState.DONE, at, at, report)
        ids[name] = sleep.id
        await store.upsert_consolidation(sleep)
    await redact(store, dry_run=True)
    assert await store.forgetting.emptied_reports() == []
    await redact(store)
    assert await store.forgetting.emptied_reports() == [ids["after"]]
    assert await store.forgetting.unfinished(), "report files are still to be removed"
    last = await store.last_consolidation()
    assert last is not None and last.id == ids["after"] and last.report["gain"] == 0.5
    connection = await asyncpg.connect(database_url)
    kept = await connection.fetchval("SELECT report::text FROM npllm.consolidations WHERE id = $1", ids["after"])
    await connection.close()
    assert END[:-1] not in kept


async def test_a_later_look_that_comes_meanwhile_is_looked_through_and_not_undone(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages were read; then, before they are written, a later look at two of three experiences comes."""
    line = BEGIN + END
    still, clean, worse = (make_experience(prefix=line, final_text="x = 1") for _ in range(3))
    await store.write([still, clean, worse])
    later = [
        dataclasses.replace(clean, revision=1, prefix="", final_text="y = 2"),
        dataclasses.replace(worse, revision=1, final_text=f"z = 3\n{line}"),
    ]
    loop, changed = asyncio.get_running_loop(), redacting._changed

    def slowly(records: Sequence[JournalRecord], around: Sequence[JournalRecord]) -> object:
        found = changed(records, around)
        while later:
            asyncio.run_coroutine_threadsafe(store.write([later.pop()]), loop).result(30)
        return found

    monkeypatch.setattr(redacting, "_changed", slowly)
    found = await redact(store)
    assert found.rows == Counter(experiences=2)
    assert await stored(database_url, END[:-1]) == []
    now = {one.id: await store.experience(one.id) for one in (still, clean, worse)}
    assert now[clean.id] is not None and now[clean.id].final_text == "y = 2"  # type: ignore[union-attr]
    assert now[worse.id] is not None and now[worse.id].final_text.startswith("z = 3\n")  # type: ignore[union-attr]


async def test_an_embedding_made_meanwhile_does_not_bring_the_text_back(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    old = make_experience(prefix=BEGIN, final_text=END)
    await store.write([old])
    asked: list[str] = []

    async def embed(texts: list[str]) -> list[tuple[float, ...]]:
        asked.extend(texts)
        if len(asked) == 1:  # the old text is with the embedder
            assert (await redact(store)).rows == Counter(experiences=1)
        return [unit_vector(3) for _ in texts]

    async def provide() -> Store:
        return store

    running = asyncio.create_task(Pump(Journal(tmp_path), provide, embed, JournalConfig(flush_ms=10)).run())
    async with asyncio.timeout(30):
        while await store.experiences_without_embedding(1):
            await asyncio.sleep(0.02)
    running.cancel()
    assert len(asked) == 2 and END[:-1] in asked[0] and END[:-1] not in asked[1]
    assert await stored(database_url, END[:-1]) == []

    other = make_experience(suggested=BEGIN + END)
    await store.write([other])
    await redact(store)
    await store.write([dataclasses.replace(other, embedding=unit_vector(3))])  # as a pump does that had read it before
    assert await stored(database_url, END[:-1]) == []


async def test_who_writes_and_who_forgets_do_not_wait_for_one_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgetting that begins while a writer asks whose vectors are in use goes on at once."""
    may_write, forgot = store.embeddings.may_write, []

    async def asked(connection: Connection) -> bool:
        forgetting = store.forgetting.forget(
            Selector(project="/other"), tainted=lambda _versions, _ids: (), usable=lambda _: True
        )
        async with asyncio.timeout(20):
            forgot.append(await forgetting)
        return await may_write(connection)

    store.embeddings.mine = "mine"
    monkeypatch.setattr(store.embeddings, "may_write", asked)
    await store.write([make_suggestion(), make_experience()])
    assert len(forgot) == 1 and (await store.counts()).experiences == 1

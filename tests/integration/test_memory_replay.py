# ruff: noqa: F811
"""Drawing for replay, and what is kept apart, against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from npllm.memory.replay import Drawn
from npllm.memory.store import Store
from npllm.sleep import replay
from npllm.sleep.gate import same_ones
from npllm.types import AdapterVersion, Decision, Experience, VersionState, new_id
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_place,
    postgres,
    store,
    store_config,
)

MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)
TOMORROW = MORNING + timedelta(days=1)
PYTHON, BASE = "language:python", "base"


async def draw(store: Store, seed: str = "s", limit: int = 100, context: str = PYTHON, **changes: Any) -> list[Drawn]:
    given: dict[str, Any] = {
        "alpha": replay.ALPHA,
        "epsilon": replay.EPSILON,
        "low": replay.DECISION[Decision.LOW],
        "discard": replay.DECISION[Decision.DISCARD],
        "pause_s": replay.PAUSE_S,
    }
    return await store.replay.draw(context, BASE, TOMORROW, seed=seed, limit=limit, **{**given, **changes})


def day(count: int, **changes: Any) -> list[Experience]:
    return [
        make_experience(created_at=MORNING + timedelta(seconds=n), final_text=f"total += {n}", **changes)
        for n in range(count)
    ]


def version(**changes: Any) -> AdapterVersion:
    given = AdapterVersion(
        id=new_id(),
        context=PYTHON,
        base_fingerprint=BASE,
        parent=None,
        consolidation_id=new_id(),
        folder="adapters/x",
        sha256="00",
        state=VersionState.PUBLISHED,
        reason="",
        metrics={},
        created_at=MORNING,
    )
    return replace(given, **changes)


async def test_priorities_are_the_equations_and_the_never_measured_come_first(store: Store) -> None:
    told = {"emotional": 0.9, "relevance": 0.2}
    items = [
        *day(3, relevance=0.8),
        make_experience(created_at=MORNING, decision=Decision.LOW, relevance=0.5),
        make_experience(created_at=MORNING, decision=Decision.DISCARD, relevance=0.0),
        make_experience(created_at=MORNING, decision=Decision.AVOID, relevance=-3.0),
        make_experience(created_at=MORNING, **told),
    ]
    fresh = make_experience(created_at=MORNING)
    await store.write([*items, fresh])
    surprise = {item.id: 0.5 + 0.25 * n for n, item in enumerate(items)}
    await store.replay.note_surprise(PYTHON, BASE, surprise)
    await store.replay.note_surprise(PYTHON, "another base", {item.id: 99.0 for item in items})
    found = {item.experience.id: item for item in await draw(store)}
    assert len(found) == len(items) + 1
    for item in items:
        assert found[item.id].priority == pytest.approx(replay.priority(item, surprise[item.id]))
        assert found[item.id].mass == pytest.approx(found[item.id].priority ** replay.ALPHA)
    assert found[fresh.id].priority == max(item.priority for item in found.values())
    assert {item.mass for item in await draw(store, alpha=0.0)} == {1.0}
    surprise = {items[0].id: 7.0}
    await store.replay.note_surprise(PYTHON, BASE, surprise)
    again = {item.experience.id: item for item in await draw(store)}
    assert again[items[0].id].priority == pytest.approx(replay.priority(items[0], 7.0)), "a later look replaces it"


async def test_the_first_drawn_follow_their_priorities(store: Store) -> None:
    items = day(6, relevance=1.0)
    await store.write(items)
    surprise = {item.id: float(2**n) for n, item in enumerate(items)}
    await store.replay.note_surprise(PYTHON, BASE, surprise)
    times = 1500
    first = Counter([(await draw(store, seed=str(seed), limit=1))[0].experience.id for seed in range(times)])
    masses = {item.id: replay.priority(item, surprise[item.id]) ** replay.ALPHA for item in items}
    total = sum(masses.values())
    chi2 = sum((first[id] - times * mass / total) ** 2 / (times * mass / total) for id, mass in masses.items())
    assert chi2 < 20.5, "5 degrees of freedom: beyond it one time in a thousand, and the seeds are fixed"


async def test_a_draw_is_the_seeds_own_and_its_limit_changes_nothing_before_it(store: Store) -> None:
    await store.write(day(50))
    every = await draw(store)
    assert [item.key for item in every] == sorted(item.key for item in every)
    assert {item.size for item in every} == {50}
    assert await draw(store, limit=10) == every[:10]
    assert [item.experience.id for item in await draw(store, seed="t")] != [item.experience.id for item in every]


async def test_only_what_is_old_of_this_context_and_has_something_to_teach_is_drawn(store: Store) -> None:
    old = make_experience(created_at=MORNING)
    deleted = make_experience(created_at=MORNING, final_text="", suggested="theirs()")
    others = [
        make_experience(created_at=TOMORROW),
        make_experience(created_at=MORNING, context="language:go", contexts=("language:go", "generic")),
        make_experience(created_at=MORNING, final_text=" \n", suggested="\t"),
    ]
    await store.write([old, deleted, *others])
    assert {item.experience.id for item in await draw(store)} == {old.id, deleted.id}
    go = others[1].id  # of another language, in the same project
    assert {item.experience.id for item in await draw(store, context="generic")} == {old.id, deleted.id, go}


async def test_a_pause_ends_a_session(store: Store) -> None:
    times = [0, 60, 120, 120 + 3600, 120 + 3601, 90_000]
    items = [make_experience(created_at=MORNING - timedelta(days=2) + timedelta(seconds=at)) for at in times]
    await store.write(items)
    found = {item.experience.id: item.session for item in await draw(store, limit=6)}
    sessions = [found[item.id] for item in items]
    assert sessions[0] == sessions[1] == sessions[2] != sessions[3] == sessions[4] != sessions[5]


async def test_what_is_held_out_by_a_published_version_is_apart_for_good(store: Store) -> None:
    items = day(60)
    await store.write(items)
    first, second = version(), version(created_at=TOMORROW)
    held = [item.id for item in items[:30]]
    await store.publish(first, held_out=held)
    await store.publish(first, held_out=held)  # a killed sleep does it again
    await store.publish(second, held_out=[items[0].id, *(item.id for item in items[30:35]), new_id()])
    assert {item.experience.id for item in await draw(store)} == {item.id for item in items[35:]}
    slices = await store.replay.slices(PYTHON)
    assert [(one.version_id, one.held_at) for one in slices] == [(second.id, TOMORROW), (first.id, MORNING)]
    newest, oldest = await store.replay.texts_of(PYTHON, slices, most=20)
    assert [item.id for item in oldest.experiences] == same_ones(held, 20)
    assert {item.id for item in newest.experiences} == {item.id for item in items[30:35]}, "each in its first slice"
    apart = await store.replay.apart(PYTHON, limit=100)
    assert {item.id for item in apart} == {item.id for item in items[:35]}
    assert not await store.replay.slices("language:go")

    connection = await asyncpg.connect(store.url)
    await connection.execute("DELETE FROM npllm.experiences WHERE id = $1", held[0])
    await connection.close()
    assert held[0] not in {item.id for item in await store.replay.apart(PYTHON, limit=100)}, "forgotten is forgotten"
    await store.replay.note_surprise(PYTHON, BASE, {held[0]: 1.0})


async def test_a_large_memory_is_drawn_from_within_the_time_of_a_command(store: Store) -> None:
    """Fifty thousand rows of ordinary size; what comes back is bounded by the limit."""
    await store.write([make_experience(created_at=MORNING, prefix="x = 1\n" * 300)])
    connection = await asyncpg.connect(store.url)
    names = [
        row["column_name"]
        for row in await connection.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'npllm' "
            "AND table_name = 'experiences' AND column_name <> 'id' AND is_generated = 'NEVER'"
        )
    ]
    columns = ", ".join(names)
    await connection.execute(
        f"INSERT INTO npllm.experiences (id, {columns}) SELECT gen_random_uuid(), {columns} "
        "FROM npllm.experiences, generate_series(2, 50000)"
    )
    await connection.close()
    found = await asyncio.wait_for(draw(store, limit=200), 100.0)
    assert len({item.experience.id for item in found}) == 200
    assert found[0].size == 50_000
    chosen, weights = replay.choose(found, 60, exponent=1.0)
    assert len(chosen) == 60
    assert all(weight == pytest.approx(1.0) for weight in weights.values()), "all alike: nothing to undo"
    assert isinstance(found[0].experience.id, UUID)

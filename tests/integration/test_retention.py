# ruff: noqa: F811
"""Retention: memory is bounded, what must stay stays, and forgetting still finds what had learned from what is gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from npllm.config import Config
from npllm.forgetting.taint import Taint
from npllm.memory import retention
from npllm.memory.places import Selector
from npllm.memory.store import Store
from npllm.sleep.interruption import Interrupted
from npllm.types import (
    Decision,
    Experience,
    Feedback,
    HeldBack,
    JournalRecord,
    Sign,
    SignKind,
    Suggestion,
    VersionState,
    new_id,
)
from tests.fixtures_lineage import make_version
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
)
from tests.fixtures_sleep import MORNING, config_for


@pytest.fixture
def config(home: Path, tiny_model: Path, database_url: str) -> Config:
    made = config_for(home, tiny_model)
    return replace(made, database=replace(made.database, url=database_url))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)


def day(number: int, path: str = "app.py", decision: Decision = Decision.KEEP) -> list[JournalRecord]:
    """All that a day leaves of one suggestion."""
    at = MORNING + timedelta(days=number)
    place = make_place(path=path, uri=f"file:///project/{path}")
    made = make_suggestion(place=place, created_at=at)
    return [
        made,
        make_outcome(made, created_at=at),
        Feedback(new_id(), made.id, "👍", "", 0.9, 0.9, 0.0, 0.9, at),
        make_experience(id=made.id, place=place, decision=decision, created_at=at),
        HeldBack(new_id(), place, 0.1, 0.25, 12, -0.5, "model", at),
        Sign(new_id(), made.id, SignKind.UNDO_STORM, 0.5, place, at),
    ]


def bounded(config: Config, **bounds: int) -> Config:
    return replace(config, memory=replace(config.memory, **bounds))


async def rows_of(config: Config, *tables: str) -> dict[str, int]:
    connection = await asyncpg.connect(config.database.url)
    try:
        return {name: await connection.fetchval(f"SELECT count(*) FROM npllm.{name}") for name in tables}
    finally:
        await connection.close()


async def test_the_newest_are_kept_with_what_became_of_them(store: Store, config: Config) -> None:
    days = [day(number) for number in range(12)]
    await store.write([record for records in days for record in records])
    memory = bounded(config, keep_suggestions=4, keep_experiences=5).memory
    gone = await store.retention.prune(memory)
    assert gone == {"suggestions": 8, "held_back": 8, "signs": 8, "experiences": 7}
    counts = await store.counts()
    assert (counts.suggestions, counts.outcomes, counts.feedback, counts.experiences) == (4, 4, 4, 5)
    assert await rows_of(config, "held_back", "signs", "pruned") == {"held_back": 4, "signs": 4, "pruned": 8}
    kept = await store.experiences_since(None)
    assert [one.created_at for one in kept] == [MORNING + timedelta(days=number) for number in range(7, 12)]
    assert await store.retention.prune(memory) == {}
    everything = bounded(config, keep_suggestions=0, keep_experiences=0).memory
    assert await store.retention.prune(everything) == {}


async def test_what_versions_are_judged_by_and_what_is_avoided_stay(store: Store, config: Config) -> None:
    days = [day(number, decision=Decision.AVOID if number == 1 else Decision.KEEP) for number in range(6)]
    await store.write([record for records in days for record in records])
    experiences = [record for records in days for record in records if isinstance(record, Experience)]
    version = await make_version(store, config, publish=False)
    await store.publish(version, held_out=[experiences[0].id])
    assert await store.retention.prune(bounded(config, keep_experiences=2).memory) == {"experiences": 2}
    kept = {one.id for one in await store.experiences_since(None)}
    assert kept == {experiences[number].id for number in (0, 1, 4, 5)}


async def test_it_can_be_interrupted_and_goes_on(store: Store, config: Config) -> None:
    await store.write([record for number in range(9) for record in day(number)])
    memory = bounded(config, keep_suggestions=1, keep_experiences=1).memory
    looks = 0

    def person_comes_back() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        await store.retention.prune(memory, person_comes_back)
    assert (await store.counts()).suggestions == 6
    await store.retention.prune(memory)
    counts = await store.counts()
    assert (counts.suggestions, counts.experiences) == (1, 1)


async def test_forgetting_a_path_still_finds_who_learned_from_what_was_pruned(store: Store, config: Config) -> None:
    old, new = day(0, "keys/old.py"), day(1)
    await store.write([*old, *new])
    assert isinstance(old[0], Suggestion) and isinstance(new[0], Suggestion)
    version = await make_version(store, config, learned=[old[0].id])
    other = await make_version(store, config, learned=[new[0].id], context="language:rust")
    await store.retention.prune(bounded(config, keep_suggestions=1, keep_experiences=1).memory)
    assert await store.experience(old[0].id) is None

    selector = Selector(path="/project/keys")
    taint = Taint(config.home, selector)
    found = await store.forgetting.forget(selector, tainted=taint.of, usable=taint.usable)
    assert [one.id for one in found.tainted] == [version.id]
    states = {one.id: one.state for one in await store.adapter_versions()}
    assert states == {version.id: VersionState.FORGOTTEN, other.id: VersionState.PUBLISHED}
    assert await rows_of(config, "pruned") == {"pruned": 0}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("swordfish_42", True),
        ("unlock(swordfish_42, now)", True),
        ("lock(swordfish_42, no", True),  # begins and ends within words
        ("said_aloud", True),  # in a comment
        ("swordfish_43", False),
        ("swordfish", False),  # a part of a word alone: no sketch knows it
    ],
)
async def test_forgetting_a_text_finds_who_learned_from_what_was_pruned(
    store: Store, config: Config, text: str, found: bool
) -> None:
    old, new = day(0), day(1)
    case, outcome, feedback, experience, *_ = old
    assert isinstance(case, Suggestion) and isinstance(feedback, Feedback) and isinstance(experience, Experience)
    await store.write([case, outcome, replace(feedback, comment="is it said_aloud?")])
    await store.write([replace(experience, final_text="return unlock(swordfish_42, now)"), *new])
    version = await make_version(store, config, learned=[case.id])
    await store.retention.prune(bounded(config, keep_suggestions=1, keep_experiences=1).memory)
    assert await store.experience(case.id) is None
    connection = await asyncpg.connect(config.database.url)
    assert "swordfish" not in str(await connection.fetch("SELECT * FROM npllm.pruned"))
    await connection.close()

    selector = Selector(text=text)
    taint = Taint(config.home, selector)
    said = await store.forgetting.forget(selector, tainted=taint.of, usable=taint.usable)
    assert [one.id for one in said.tainted] == ([version.id] if found else [])
    assert await rows_of(config, "pruned") == {"pruned": 0 if found else 1}

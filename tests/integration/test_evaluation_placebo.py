"""The placebos in a real database: exchanged for a sleep, in the same way each time, and put back; or for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from npllm.config import Config
from npllm.evaluation.ablation import life, placebo
from npllm.evaluation.ablation.arms import Arm, Shuffled
from npllm.evaluation.ablation.desk import day_of, repeatable_ids
from npllm.memory.embedder import Embedder
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import Decision, Experience, OutcomeKind
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    postgres,
    store,
    store_config,
    unit_vector,
)

# ruff: noqa: F811

SEED = 3
KINDS = (OutcomeKind.ACCEPTED, OutcomeKind.EDITED, OutcomeKind.REJECTED, OutcomeKind.DELETED)


def day(number: int, count: int) -> list[Experience]:
    """Experiences each with a text, a feedback and an embedding of its own; every third in another context."""
    with repeatable_ids(SEED, number):
        return [
            make_experience(
                prefix=f"def part_{number}_{k}():\n    ",
                final_text=f"return {number}_{k}",
                suggested=f"suggested {number}_{k}",
                outcome=KINDS[k % len(KINDS)],
                reward=k / 100,
                implicit=k / 100,
                decision=Decision.AVOID if k == 4 else Decision.KEEP,
                context="language:go" if k % 3 == 2 else "language:python",
                embedding=unit_vector(k),
                created_at=datetime(2026, 3, number, 12, 0, tzinfo=UTC) + timedelta(seconds=k),
            )
            for k in range(count)
        ]


def done(item: Experience) -> tuple[object, ...]:
    return item.final_text, item.outcome, item.implicit, item.reward, item.relevance, item.decision


def place(item: Experience) -> tuple[object, ...]:
    return item.id, item.prefix, item.suffix, item.suggested, item.context, item.contexts, item.created_at


def true_of(items: Sequence[Experience]) -> dict[UUID, Experience]:
    return {item.id: replace(item, revision=0) for item in items}


async def test_a_sleep_sees_texts_and_feedback_exchanged_and_the_day_after_the_true_ones(
    store: Store, store_config: Config
) -> None:
    first = day(1, 9)
    await store.write(first)
    true = true_of(await store.experiences_since(None))
    async with placebo.exchanged(store_config, SEED):
        one = {item.id: item for item in await store.experiences_since(None)}
    for id, item in one.items():
        assert place(item) == place(true[id]) and done(item) != done(true[id]), "nobody keeps their own"
        assert item.embedding is None, "it would be of the other text"
    for context in ("language:python", "language:go"):
        there = Counter(done(item) for item in one.values() if item.context == context)
        assert there == Counter(done(item) for item in true.values() if item.context == context)
    assert true_of(await store.experiences_since(None)) == true, "texts, feedback and embeddings are back"

    await store.write(day(2, 6))
    with pytest.raises(RuntimeError, match="the sleep failed"):
        async with placebo.exchanged(store_config, SEED):
            two = {item.id: item for item in await store.experiences_since(None)}
            raise RuntimeError("the sleep failed")
    assert len(two) == 15 and {day_of(id) for id in two} == {1, 2}
    assert all(done(two[id]) == done(one[id]) for id in one), "what is replayed is what was learned"
    again = true_of(await store.experiences_since(None))
    assert {id: again[id] for id in true} == true and len(again) == 15


async def test_for_good_each_day_is_exchanged_once_and_found_again_as_it_then_is(
    store: Store, store_config: Config
) -> None:
    first = day(1, 9)
    await store.write(first)
    true = {item.id: item for item in first}
    await placebo.exchange(store_config, SEED, 1)
    one = {item.id: item for item in await store.experiences_since(None)}
    assert all(place(item) == place(true[id]) and done(item) != done(true[id]) for id, item in one.items())
    embedder = Embedder()
    for item in (one[first[0].id], one[first[5].id]):
        [vector] = await embedder.embed([embedding_text(item.prefix, item.final_text)])
        options = {"project": item.place.project, "language": item.place.language}
        [found] = await store.similar(vector, **options, limit=1, min_similarity=0.9)
        assert item.final_text in found.text and true[item.id].final_text not in found.text
    embedder.close()

    await store.write(day(2, 6))
    await placebo.exchange(store_config, SEED, 2)
    both = {item.id: item for item in await store.experiences_since(None)}
    assert len(both) == 15 and {id: both[id] for id in one} == one, "the day before stays as it is"
    assert all(done(both[item.id]) != done(item) for item in day(2, 6))
    await placebo.exchange(store_config, SEED, 3)  # of a day without an experience, nothing
    assert {item.id: item for item in await store.experiences_since(None)} == both


@pytest.mark.parametrize("shuffled", list(Shuffled))
async def test_a_night_of_each_kind_sees_and_leaves_what_it_should(
    store: Store, store_config: Config, monkeypatch: pytest.MonkeyPatch, shuffled: Shuffled
) -> None:
    async def texts() -> dict[UUID, str]:
        return {item.id: item.final_text for item in await store.experiences_since(None)}

    async def asleep(*_: Any) -> dict[str, Any]:
        return {"seen": await texts()}

    monkeypatch.setattr(life, "sleep", asleep)
    await store.write(day(1, 6))
    true = await texts()
    arm = Arm("one", {}, True, None, shuffled=shuffled)
    place = life.Place(Path("/home"), Path("/work"), "", {})
    seen = (await life._night(store_config, arm, place, SEED, 1, lambda _: None))["seen"]
    assert (seen == true) is (shuffled is Shuffled.NOTHING)
    assert (await texts() == true) is (shuffled is not Shuffled.FOR_GOOD)


def test_the_exchange_depends_on_days_contexts_and_seed_alone() -> None:
    items = [*day(1, 9), *day(2, 6)]
    one, other = placebo.shuffled(items, SEED), placebo.shuffled(items[::-1], SEED)
    assert one == other != placebo.shuffled(items, SEED + 1)
    assert placebo.shuffled(items[:1], SEED) == [], "alone, there is nothing to exchange"

"""The placebos: what the person did changes places among the experiences of its day, for a sleep or for good.

What a person wrote at a place, and what they thought of the suggestion there, stay together and go to another place of
the same day and context. Nobody keeps their own.

`exchange`, for good: what is remembered awake from then on is what was exchanged, as if the person's feedback had been
noise. `exchanged`, for the sleep alone: every day is exchanged in the same way before each sleep, so what is replayed
or judged by again is what was learned; afterwards all is as it was, embeddings too, and awake the memory is true.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from npllm.config import Config
from npllm.evaluation.ablation.desk import day_of
from npllm.memory.embedder import Embedder
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import Experience

MOST = 1_000_000  # experiences


async def exchange(config: Config, seed: int, day: int) -> None:
    """Exchange a day's experiences for good, and embed them as they then are, to be found again by that.

    Raises:
        StoreError: the database is away.
        ModelError: there is nothing to embed with.
    """
    store = await Store.connect(config)
    embedder = Embedder(config.memory.embedder, threads=config.memory.threads)
    try:
        every = await store.experiences_since(None, limit=MOST)
        made = shuffled([item for item in every if day_of(item.id) == day], seed)
        vectors = await embedder.embed([embedding_text(item.prefix, item.final_text) for item in made])
        await store.write([replace(item, embedding=vector) for item, vector in zip(made, vectors, strict=True)])
    finally:
        embedder.close()
        await store.close()


@asynccontextmanager
async def exchanged(config: Config, seed: int) -> AsyncIterator[None]:
    """Exchange everything that the store has; put it back on any way out.

    Nothing else may write experiences meanwhile. Where the process dies, they stay exchanged.

    Raises:
        StoreError: the database is away.
    """
    store = await Store.connect(config)
    try:
        true = await store.experiences_since(None, limit=MOST)
        await store.write(shuffled(true, seed))
        try:
            yield
        finally:  # a higher revision than the exchanged ones have
            await store.write([replace(item, revision=item.revision + 2) for item in true])
    finally:
        await store.close()


def shuffled(items: Sequence[Experience], seed: int) -> list[Experience]:
    """The experiences with another one's text and feedback each; one that is alone in its day and context is left out.

    Depends on ids and contexts alone, not on the order of `items`.
    """
    groups: dict[tuple[int, str], list[Experience]] = {}
    for item in sorted(items, key=lambda item: item.id):
        groups.setdefault((day_of(item.id), item.context), []).append(item)
    made: list[Experience] = []
    for (day, context), group in groups.items():
        if len(group) < 2:
            continue
        order = list(range(len(group)))
        random.Random(f"{seed}:{day}:{context}").shuffle(order)
        for index, other in zip(order, order[1:] + order[:1], strict=True):  # one cycle: nobody keeps their own
            made.append(_as_done(group[index], group[other]))
    return made


def _as_done(place: Experience, done: Experience) -> Experience:
    """What was done elsewhere, at this place; without an embedding, which would be of another text."""
    return replace(
        place,
        final_text=done.final_text,
        outcome=done.outcome,
        implicit=done.implicit,
        emotional=done.emotional,
        reward=done.reward,
        relevance=done.relevance,
        decision=done.decision,
        revision=place.revision + 1,
        embedding=None,
    )

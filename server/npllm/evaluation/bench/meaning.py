"""The background's path: experiences by meaning in PostgreSQL, against looking at every one; and writing meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
from pgvector import HalfVector

from npllm.evaluation.bench.figures import Row, recall
from npllm.evaluation.bench.material import Numbers, Place, perturbed
from npllm.memory.database import Database
from npllm.memory.journal import Journal
from npllm.memory.store import Store
from npllm.types import Decision, Experience, OutcomeKind, new_id
from npllm.types import Place as Where

WANTED = 10
PAGE = 10_000  # rows made and copied at a time
PROJECTS = (("/bench/large", 0.6), ("/bench/tenth", 0.1), ("/bench/hundredth", 0.01), ("/bench/others", 0.29))
INDEX = (
    "CREATE INDEX experiences_codes ON experiences (owner, language, project_id) INCLUDE (id, code) "
    "WHERE code IS NOT NULL"
)
NEAREST = """
SELECT e.id, e.embedding <=> $1 AS distance FROM experiences e
WHERE $2::text IS NULL OR e.project_id = (SELECT id FROM projects WHERE owner = current_user AND path = $2)
ORDER BY distance LIMIT $3
"""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WRITTEN = 200  # experiences in a transaction, as the journal's pump writes them
WRITING_S = 10.0


@dataclass(frozen=True, slots=True)
class Filled:
    """How the rows came about, in seconds."""

    made: int
    copied: float
    indexed: float


async def fill(database: Database, store: Store, size: int, real: Numbers, texts: Sequence[Place], seed: int) -> Filled:
    """Bring the table up to so many rows: what is there already, of this seed or not, stays."""
    there = (await store.counts()).experiences
    async with database.own_connection() as connection:
        whole = await connection.fetchval("SELECT to_regclass('npllm.experiences_codes')") is not None
        if there >= size and whole:
            return Filled(0, 0.0, 0.0)
        from pgvector.asyncpg import register_vector

        await register_vector(connection, schema="npllm")
        numbers = [await _project(connection, path) for path, _ in PROJECTS]
        shares = np.array([share for _, share in PROJECTS])
        await connection.execute("DROP INDEX IF EXISTS experiences_codes")
        began = time.perf_counter()
        for start in range(there, size, PAGE):
            count = min(PAGE, size - start)
            rows = _rows(start, count, numbers, shares, real, texts, seed)
            await connection.copy_records_to_table("experiences", records=rows, columns=COLUMNS, timeout=600)
        copied = time.perf_counter() - began
        began = time.perf_counter()
        await connection.execute(INDEX, timeout=7200)
        await connection.execute("VACUUM ANALYZE experiences", timeout=3600)
        return Filled(max(size - there, 0), copied, time.perf_counter() - began)


async def _project(connection: asyncpg.Connection, path: str) -> int:
    await connection.execute("INSERT INTO projects (path) VALUES ($1) ON CONFLICT DO NOTHING", path)
    number: int = await connection.fetchval("SELECT id FROM projects WHERE owner = current_user AND path = $1", path)
    return number


COLUMNS = (
    *("id", "project_id", "uri", "path", "language", "cursor_offset", "prefix", "suffix", "context", "suggested"),
    *("final_text", "outcome", "implicit", "reward", "relevance", "decision", "created_at", "revision", "contexts"),
    "embedding",
)


def _rows(
    start: int, count: int, numbers: Sequence[int], shares: Numbers, real: Numbers, texts: Sequence[Place], seed: int
) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng([seed, start])
    projects = rng.choice(len(numbers), count, p=shares)
    vectors = perturbed(real, count, seed + start)
    for offset in range(count):
        text = texts[(start + offset) % len(texts)]
        number = projects[offset]
        path = f"module_{(start + offset) % 500}.py"
        yield (
            *(new_id(), numbers[number], f"file://{PROJECTS[number][0]}/{path}", path, "python", 0, text.prefix, ""),
            *("language:python", "pass", text.line, "edited", 0.5, 0.5, 0.8, "keep"),
            *(
                BEGAN + timedelta(seconds=start + offset),
                0,
                ["language:python", "generic"],
                HalfVector(vectors[offset]),
            ),
        )


async def measure(database: Database, store: Store, size: int, queries: Numbers) -> list[Row]:
    """Latency and recall of each way that a search may go."""
    rows = []
    for path, project in (
        ("meaning, all projects (by codes)", None),
        ("meaning, a project with 60 %", "/bench/large"),
        ("meaning, a project with 10 %", "/bench/tenth"),
        ("meaning, a project with 1 %", "/bench/hundredth"),
    ):
        latencies, found, cosines = await _search(store, queries, project)
        exact = [await _exactly(database, query, project) for query in queries[:EXACT]]
        share = recall(found[:EXACT], [[id for id, _ in hits] for hits in exact])
        best = float(np.mean([cosine for hits in exact for _, cosine in hits]))
        lost = best - float(np.mean([cosine for some in cosines[:EXACT] for cosine in some]))
        rows.append(Row(size, path, tuple(latencies), (), share, lost))
    return rows


EXACT = 20  # queries that are also answered by looking at every row


async def _exactly(database: Database, query: Numbers, project: str | None) -> list[tuple[Any, float]]:
    """The nearest and their cosines, by looking at every row."""
    from pgvector.asyncpg import register_vector

    async with database.own_connection() as connection:
        await register_vector(connection, schema="npllm")
        found = await connection.fetch(NEAREST, HalfVector(query), project, WANTED, timeout=600)
    return [(row["id"], 1.0 - row["distance"]) for row in found]


async def _search(
    store: Store, queries: Numbers, project: str | None
) -> tuple[list[float], list[list[object]], list[list[float]]]:
    """Milliseconds (of all but the first), what was found, and its cosines."""
    latencies: list[float] = []
    found: list[list[object]] = []
    cosines: list[list[float]] = []
    for query in queries:
        began = time.perf_counter()
        hits = await store.similar(query, project=project, language="python", limit=WANTED, min_similarity=-1.0)
        latencies.append((time.perf_counter() - began) * 1000)
        found.append([hit.experience_id for hit in hits])
        cosines.append([hit.score for hit in hits])
    return latencies[1:], found, cosines


async def while_writing(
    store: Store, journal: Path, size: int, queries: Numbers, real: Numbers
) -> tuple[list[Row], float]:
    """Searches and the journal's fsync while experiences are written as fast as they go in; and those per second."""
    going_on, written = True, 0
    vectors = perturbed(real, 4000, 99)

    async def write() -> None:
        nonlocal written
        while going_on:
            await store.write([_experience(vectors[(written + n) % len(vectors)]) for n in range(WRITTEN)])
            written += WRITTEN

    acknowledged: list[float] = []

    async def happens() -> None:
        own = Journal(journal)
        while going_on:
            began = time.perf_counter()
            await asyncio.to_thread(own.append, [_experience(None)])
            acknowledged.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.05)
        own.close()

    tasks = [asyncio.create_task(write()), asyncio.create_task(happens())]
    began = time.perf_counter()
    searched: list[float] = []
    while time.perf_counter() - began < WRITING_S:
        searched += (await _search(store, queries[:20], None))[0]
    going_on = False
    await asyncio.gather(*tasks)
    rate = written / (time.perf_counter() - began)
    return [
        Row(size, "meaning, all projects, while writing", tuple(searched)),
        Row(size, "an event on disk, while writing (hot path)", tuple(acknowledged)),
    ], rate


async def tidy(database: Database) -> None:
    """Delete what was written meanwhile, now or in a run that was cut short."""
    async with database.own_connection() as connection:
        await connection.execute(
            "DELETE FROM experiences WHERE owner = current_user AND project_id = "
            "(SELECT id FROM projects WHERE owner = current_user AND path = '/bench/written')"
        )


def _experience(embedding: Numbers | None) -> Experience:
    where = Where("file:///bench/written/app.py", "app.py", "python", "/bench/written", 0)
    return Experience(
        id=new_id(),
        place=where,
        prefix="def total(values):\n    ",
        suffix="\n",
        context="language:python",
        suggested="pass",
        final_text="return sum(values)",
        outcome=OutcomeKind.EDITED,
        implicit=0.5,
        emotional=None,
        reward=0.5,
        relevance=0.8,
        decision=Decision.KEEP,
        created_at=datetime.now(UTC),
        embedding=None if embedding is None else tuple(map(float, embedding)),
    )

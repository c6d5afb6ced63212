"""Fixtures that need the store: a real embedded PostgreSQL per session, a fresh database per test.

Import what a test module needs (with `# ruff: noqa: F811` on top), as
`from tests.fixtures_memory import database_url, postgres, store, store_config  # noqa: F401`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from npllm import config, contexts
from npllm.memory.postgres import EmbeddedPostgres, Endpoint, destroy
from npllm.memory.store import Store
from npllm.types import (
    Decision,
    Experience,
    Outcome,
    OutcomeKind,
    Place,
    Suggestion,
    new_id,
)

_SERVER = pytest.StashKey[Endpoint]()


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    """One real embedded server for the whole session, however many modules import this fixture."""
    if _SERVER not in pytestconfig.stash:
        home = tmp_path_factory.mktemp("postgres")
        server = EmbeddedPostgres(home)

        def end() -> None:
            server.close_blocking()
            destroy(home)

        pytestconfig.add_cleanup(end)
        pytestconfig.stash[_SERVER] = server.start_blocking()
    return pytestconfig.stash[_SERVER]


@pytest.fixture
def database_url(postgres: Endpoint) -> Iterator[str]:
    """The URL of an empty database of its own, usable as NPLLM_DATABASE_URL by subprocesses too."""
    name = f"test_{new_id().hex}"

    async def administer(sql: str) -> None:
        connection = await asyncpg.connect(postgres.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(administer(f"CREATE DATABASE {name}"))
    yield dataclasses.replace(postgres, database=name).url
    asyncio.run(administer(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def store_config(home: Path, database_url: str) -> config.Config:
    """All defaults, over the fresh database."""
    return config.merge(config.load(home), {"database": {"url": database_url}}, source="the test")


@pytest.fixture
async def store(store_config: config.Config) -> AsyncIterator[Store]:
    """A connected Store over the fresh database."""
    made = await Store.connect(store_config)
    yield made
    await made.close()


def make_place(**changes: Any) -> Place:
    given: dict[str, Any] = {
        "uri": "file:///project/app.py",
        "path": "app.py",
        "language": "python",
        "project": "/project",
        "offset": 0,
    }
    return Place(**{**given, **changes})


def make_suggestion(**changes: Any) -> Suggestion:
    given: dict[str, Any] = {
        "id": new_id(),
        "place": make_place(),
        "text": "return total",
        "prefix": "def add(values):\n    ",
        "suffix": "\n",
        "context": "language:python",
        "base_fingerprint": "base",
        "adapter_versions": (),
        "memory_ids": (),
        "mean_logprob": -0.5,
        "latency_ms": 12.5,
        "created_at": datetime.now(UTC),
    }
    return Suggestion(**_with_contexts({**given, **changes}))


def make_outcome(suggestion: Suggestion, **changes: Any) -> Outcome:
    given: dict[str, Any] = {
        "id": new_id(),
        "suggestion_id": suggestion.id,
        "kind": OutcomeKind.ACCEPTED,
        "suggested": suggestion.text,
        "final_text": suggestion.text,
        "survival": 1.0,
        "implicit": 1.0,
        "created_at": datetime.now(UTC),
    }
    return Outcome(**{**given, **changes})


def make_experience(**changes: Any) -> Experience:
    given: dict[str, Any] = {
        "id": new_id(),
        "place": make_place(),
        "prefix": "def add(values):\n    ",
        "suffix": "\n",
        "context": "language:python",
        "suggested": "return total",
        "final_text": "return sum(values)",
        "outcome": OutcomeKind.EDITED,
        "implicit": 0.5,
        "emotional": None,
        "reward": 0.5,
        "relevance": 0.8,
        "decision": Decision.KEEP,
        "created_at": datetime.now(UTC),
    }
    return Experience(**_with_contexts({**given, **changes}))


def _with_contexts(given: dict[str, Any]) -> dict[str, Any]:
    return {"contexts": contexts.of(given["place"], given["prefix"]), **given}


def unit_vector(index: int, other: int | None = None, share: float = 0.0) -> tuple[float, ...]:
    """A 384-dimensional unit vector along one axis, leaning by `share` (its cosine) to another."""
    values = [0.0] * 384
    values[index] = (1 - share * share) ** 0.5
    if other is not None:
        values[other] = share
    return tuple(values)

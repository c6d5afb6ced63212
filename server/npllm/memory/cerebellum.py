"""The cerebellum's part of the store: its versions, the patterns it knows, and how many reflexes it gave.

Rows are of the present database user alone; every write is idempotent. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import CerebellumVersion, Pattern, VersionState

CONTEXT = "cerebellum"  # in the tables `replay` and `held_out`


class CerebellumRecords:
    """What the store keeps of the cerebellum; all methods raise StoreError while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(
        self, *, origin: str | None = None, state: VersionState | None = None
    ) -> list[CerebellumVersion]:
        """Versions, newest first, narrowed by what is given.

        Args:
            origin: fingerprint of the model that they grew from.
        """
        value = None if state is None else state.value

        async def operation(connection: Connection) -> list[CerebellumVersion]:
            return [_version(row) async for row in QUERIES.cerebellum_versions(connection, origin=origin, state=value)]

        return await self._database.run(operation)

    async def insert(self, version: CerebellumVersion) -> None:
        """Record a version (not published: see `publish`); the second time updates state and metrics."""

        async def operation(connection: Connection) -> None:
            await QUERIES.insert_cerebellum_version(connection, **_row(version))

        await self._database.run(operation)

    async def publish(
        self, version: CerebellumVersion, patterns: Sequence[Pattern], *, held_out: Sequence[UUID] = ()
    ) -> None:
        """In one transaction: retire the version in use of that origin, publish this one, put the patterns that it
        knows in the place of the former ones, and announce it.

        Args:
            held_out: the experiences that it was judged by; from now on they are kept apart for every cerebellum.
        """
        row = {**_row(version), "state": VersionState.PUBLISHED.value}
        found = [{**_pattern_row(pattern), "version_id": version.id} for pattern in patterns]

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            await QUERIES.retire_cerebellum(connection, origin=version.origin, id=version.id)
            await QUERIES.insert_cerebellum_version(connection, **row)
            if held_out:
                await QUERIES.hold_out(
                    connection,
                    ids=list(held_out),
                    context=CONTEXT,
                    version_id=version.id,
                    held_at=version.created_at,
                )
            await QUERIES.forget_patterns(connection)
            if found:
                await QUERIES.insert_patterns(connection, found)
            await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def put_in_use(self, version: CerebellumVersion) -> None:
        """In one transaction: retire the version in use of that origin, publish this one, and announce it.

        The patterns were those of the other one: they are deleted, and the next version writes those that it knows.
        """

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            await QUERIES.retire_cerebellum(connection, origin=version.origin, id=version.id)
            await QUERIES.set_cerebellum_state(connection, id=version.id, state=VersionState.PUBLISHED.value)
            await QUERIES.forget_patterns(connection)
            await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def take_out_of_use(self, version: CerebellumVersion) -> None:
        """Retire it, and announce that: the model as it came serves. Its patterns are deleted."""

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            await QUERIES.set_cerebellum_state(connection, id=version.id, state=VersionState.RETIRED.value)
            await QUERIES.forget_patterns(connection)
            await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def pin(self, id: UUID, pinned: bool) -> None:
        """Whether a version stays in use whatever a sleep makes."""

        async def operation(connection: Connection) -> None:
            await QUERIES.pin_cerebellum(connection, id=id, pinned=pinned)

        await self._database.run(operation)

    async def patterns(self, *, language: str | None = None, limit: int = 1000) -> list[Pattern]:
        """What the version in use knows, most frequent first."""

        async def operation(connection: Connection) -> list[Pattern]:
            found = QUERIES.patterns(connection, language=language, limit=limit)
            return [Pattern(row["language"], row["text"], row["count"], row["last_seen"]) async for row in found]

        return await self._database.run(operation)

    async def forget_patterns(self) -> None:
        """Delete all patterns; the next published version writes those that it knows."""

        async def operation(connection: Connection) -> None:
            await QUERIES.forget_patterns(connection)

        await self._database.run(operation)

    async def reflexes(self) -> int:
        """How many suggestions it gave alone (`Suggestion.source` is "reflex")."""

        async def operation(connection: Connection) -> int:
            return int(await QUERIES.reflex_count(connection))

        return await self._database.run(operation)


def _row(version: CerebellumVersion) -> dict[str, Any]:
    return {
        "id": version.id,
        "origin": version.origin,
        "parent": version.parent,
        "consolidation_id": version.consolidation_id,
        "folder": version.folder,
        "sha256": version.sha256,
        "state": version.state.value,
        "reason": rows.text(version.reason),
        "metrics": rows.to_json(version.metrics),
        "created_at": version.created_at,
    }


def _version(row: rows.Row) -> CerebellumVersion:
    return CerebellumVersion(
        id=rows.uuid(row["id"]),
        origin=row["origin"],
        parent=None if row["parent"] is None else rows.uuid(row["parent"]),
        consolidation_id=rows.uuid(row["consolidation_id"]),
        folder=row["folder"],
        sha256=row["sha256"],
        state=VersionState(row["state"]),
        reason=row["reason"],
        metrics={key: math.nan if value is None else value for key, value in json.loads(row["metrics"]).items()},
        created_at=row["created_at"],
        pinned=row["pinned"],
    )


def _pattern_row(pattern: Pattern) -> dict[str, Any]:
    text = rows.text(pattern.text)
    return {
        "language": rows.text(pattern.language),
        "hash": hashlib.sha256(" ".join(text.split()).encode()).hexdigest(),
        "text": text,
        "count": pattern.count,
        "last_seen": pattern.last_seen,
    }

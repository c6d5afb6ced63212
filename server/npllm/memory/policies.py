"""The modulator's policies in the store, and what came of the choices that were made by chance.

As adapter versions: one is published per database user and base, and its publication is announced to all windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from npllm.memory import rows, version_rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import PolicyVersion, VersionState


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision of the modulator, its probability, and the mean reward of the suggestions that it served."""

    decision: UUID
    uri: str
    families: tuple[str, ...]
    action: tuple[float, ...]
    propensity: float
    features: tuple[float, ...]
    reward: float  # [-1, 1]
    suggestions: tuple[UUID, ...] = ()  # that it served


class Policies:
    """Of the present database user; all methods raise StoreError while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(self, base_fingerprint: str) -> list[PolicyVersion]:
        """All for a base, newest first."""

        async def operation(connection: Connection) -> list[PolicyVersion]:
            found = QUERIES.policy_versions(connection, base_fingerprint=base_fingerprint)
            return [version_rows.policy(row) async for row in found]

        return await self._database.run(operation)

    async def published(self, base_fingerprint: str) -> PolicyVersion | None:
        """The one in use; None: the rules decide."""
        found = await self.versions(base_fingerprint)
        return next((version for version in found if version.state is VersionState.PUBLISHED), None)

    async def insert(self, version: PolicyVersion) -> None:
        """Record one. A published one retires the one before and is announced, in the same transaction."""

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            if version.state is VersionState.PUBLISHED:
                await QUERIES.retire_policies(connection, base_fingerprint=version.base_fingerprint, id=version.id)
            await QUERIES.insert_policy_version(connection, **version_rows.policy_row(version))
            if version.state is VersionState.PUBLISHED:
                await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def decided(self, base_fingerprint: str, limit: int = 20_000) -> list[Decided]:
        """The newest decisions that were made by chance and have an outcome; from at most `limit` suggestions."""

        async def operation(connection: Connection) -> list[rows.Row]:
            return [r async for r in QUERIES.decided(connection, base_fingerprint=base_fingerprint, limit=limit)]

        return _by_decision(await self._database.run(operation))


def _by_decision(found: Iterable[rows.Row]) -> list[Decided]:
    together: dict[UUID, list[rows.Row]] = {}
    for row in found:
        together.setdefault(rows.uuid(row["decision_id"]), []).append(row)
    return [
        Decided(
            decision=decision,
            uri=of_it[0]["uri"],
            families=tuple(of_it[0]["families"]),
            action=tuple(of_it[0]["action"]),
            propensity=of_it[0]["propensity"],
            features=tuple(of_it[0]["features"]),
            reward=sum(row["reward"] for row in of_it) / len(of_it),
            suggestions=tuple(rows.uuid(row["id"]) for row in of_it),
        )
        for decision, of_it in together.items()
    ]

"""What sleep made: versions of adapters, gains of attention, and the consolidations themselves."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from npllm.memory import version_rows
from npllm.memory.database import QUERIES, Connection
from npllm.memory.part import Part
from npllm.types import AdapterVersion, AttentionVersion, Consolidation, ConsolidationState, VersionState


class Consolidations(Part):
    """The part of the store that holds what sleep made."""

    async def insert_adapter_version(self, version: AdapterVersion) -> None:
        """Record a version (not published: see `publish`); the second time updates state and metrics."""

        async def operation(connection: Connection) -> None:
            await QUERIES.insert_adapter_version(connection, **version_rows.version_row(version))

        await self._database.run(operation)

    async def adapter_versions(
        self,
        *,
        state: VersionState | None = None,
        base_fingerprint: str | None = None,
        context: str | None = None,
    ) -> list[AdapterVersion]:
        """Versions, newest first, narrowed by what is given."""
        found = await self._all(
            "adapter_versions",
            state=None if state is None else state.value,
            base_fingerprint=base_fingerprint,
            context=context,
        )
        return [version_rows.version(row) for row in found]

    async def publish(self, version: AdapterVersion, *, held_out: Sequence[UUID] = ()) -> None:
        """In one transaction: retire what is published of that context and base, publish this, announce it.

        Args:
            held_out: the experiences that it was judged by; from now on they are kept apart in its context, for good.
        """
        row = {**version_rows.version_row(version), "state": VersionState.PUBLISHED.value}

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            await QUERIES.retire_published(
                connection, context=version.context, base_fingerprint=version.base_fingerprint, id=version.id
            )
            await QUERIES.insert_adapter_version(connection, **row)
            if held_out:
                await QUERIES.hold_out(
                    connection,
                    ids=list(held_out),
                    context=version.context,
                    version_id=version.id,
                    held_at=version.created_at,
                )
            await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def attention_versions(
        self, base_fingerprint: str, *, state: VersionState | None = None
    ) -> list[AttentionVersion]:
        """Gains for a base, newest first, in one state or in any."""
        wanted = None if state is None else state.value
        found = await self._all("attention_versions", base_fingerprint=base_fingerprint, state=wanted)
        return [version_rows.attention_version(row) for row in found]

    async def insert_attention_version(self, version: AttentionVersion) -> None:
        """Record gains; published ones retire those in use and are announced, in the same transaction."""

        async def operation(connection: Connection) -> None:
            published = version.state is VersionState.PUBLISHED
            if published:
                await QUERIES.lock_versions(connection)
                await QUERIES.retire_attention(connection, base_fingerprint=version.base_fingerprint, id=version.id)
            await QUERIES.insert_attention_version(connection, **version_rows.attention_row(version))
            if published:
                await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def upsert_consolidation(self, consolidation: Consolidation) -> None:
        async def operation(connection: Connection) -> None:
            await QUERIES.upsert_consolidation(connection, **version_rows.consolidation_row(consolidation))

        await self._database.run(operation)

    async def last_consolidation(
        self, state: ConsolidationState | None = None, *, base_fingerprint: str | None = None
    ) -> Consolidation | None:
        """The newest sleep, of one state or of any, for one base or for any."""
        wanted = None if state is None else state.value
        row = await self._one("last_consolidation", state=wanted, base_fingerprint=base_fingerprint)
        return None if row is None else version_rows.consolidation(row)

    async def consolidation(self, id: UUID) -> Consolidation | None:
        row = await self._one("consolidation", id=id)
        return None if row is None else version_rows.consolidation(row)

    async def interrupted_consolidation(self) -> Consolidation | None:
        """The newest sleep, if it was cut short: interrupted, or `running` still as its child was killed.

        Ask while holding the trainer lock: else a running one may really be running.
        """
        last = await self.last_consolidation()
        unfinished = (ConsolidationState.INTERRUPTED, ConsolidationState.RUNNING)
        return last if last is not None and last.state in unfinished else None

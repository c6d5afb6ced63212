"""Which adapter version is in use, changed by hand: put one in use, take one out, pin one. Announced to all editors.

Call with the trainer's lock held (`quiet`): a sleep builds on what is in use.
"""

from __future__ import annotations

import contextlib
import time
from asyncio import sleep
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import AdapterVersion, StoreError, VersionState, new_id

if TYPE_CHECKING:
    from npllm.memory.store import Store

PATIENCE_S = 20.0  # a scheduler looks once a second, and its child is gone two seconds later
POLL_S = 0.2


class Lineage:
    """The part of the store that changes which version is in use."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_in_use(self, version: AdapterVersion) -> None:
        """In one transaction: retire what is published of its context and base, publish this, announce it."""

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            await QUERIES.retire_published(
                connection, context=version.context, base_fingerprint=version.base_fingerprint, id=version.id
            )
            await QUERIES.set_version_state(connection, id=version.id, state=VersionState.PUBLISHED.value)
            await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def take_out_of_use(self, version: AdapterVersion) -> None:
        """Retire it, and announce that: the bare base answers in its context."""

        async def operation(connection: Connection) -> None:
            await QUERIES.lock_versions(connection)
            await QUERIES.set_version_state(connection, id=version.id, state=VersionState.RETIRED.value)
            await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def pin(self, id: UUID, pinned: bool) -> None:
        """Whether a version stays in use whatever a sleep makes."""

        async def operation(connection: Connection) -> None:
            await QUERIES.pin_version(connection, id=id, pinned=pinned)

        await self._database.run(operation)


@contextlib.asynccontextmanager
async def quiet(store: Store, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """Nobody trains until the block ends: a sleep, an editor's or one in a terminal, is sent away, as by a key.

    Raises:
        StoreError: somebody else keeps the lock, as another such command does; or the database is away.
    """
    session = new_id()
    deadline = time.monotonic() + patience_s
    try:
        while True:
            async with store.trainer_lock() as ours:
                if ours:
                    yield
                    return
            if time.monotonic() > deadline:
                raise StoreError(
                    "Another npllm command that changes what was learned is at work, or a sleep that does not end when "
                    "it is told to. Wait until it is over, or end it, then say this again."
                )
            await store.heartbeat(session, datetime.now(UTC), False)
            await sleep(POLL_S)
    finally:
        await store.end_session(session)

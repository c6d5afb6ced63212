"""Which embedder the stored vectors are of, and changing it.

While it is changed it is nobody's: no vector is stored until the old ones are gone. What has none is embedded anew in
the background (`pump`), the newest first. Killed at any moment, the next process goes on where this one was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import Experience

log = logging.getLogger(__name__)

BATCH = 2000  # vectors dropped in a transaction
NOBODY = ""


class Embeddings:
    """The part of the store that knows the embedder. `mine`: whose vectors this process writes; None = not checked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.mine: str | None = None

    async def use(self, fingerprint: str, *, shipped: bool) -> bool:
        """Write vectors of this embedder from now on; drop those of another. Whether there was another.

        Args:
            shipped: it is the one that npllm brings, which made what an earlier version stored.

        Raises:
            StoreError: the database is away; said again, it goes on.
        """

        async def known(connection: Connection) -> str | None:
            value: str | None = await QUERIES.embedder(connection)
            return value

        before = await self._database.run(known)
        self.mine = fingerprint
        if before == fingerprint:
            return False
        if before is None and shipped:
            await self._set(fingerprint)
            return False
        await self._set(NOBODY)
        dropped = await self._drop("experiences") + await self._drop("chunk")
        await self._set(fingerprint)
        log.info("another embedder: %d vectors were dropped, and are made anew in the background", dropped)
        return True

    async def may_write(self, connection: Connection) -> bool:
        """Whether this process's vectors are the ones in use, until the transaction ends."""
        return self.mine is None or await QUERIES.embedder_held(connection) in (None, self.mine)

    async def may_search(self, connection: Connection) -> bool:
        """The same, at this moment: vectors of another embedder resemble its own by chance alone."""
        return self.mine is None or await QUERIES.embedder(connection) in (None, self.mine)

    async def in_use(self) -> bool:
        """The same, by itself."""
        return await self._database.run(self.may_search)

    async def fill(self, experiences: Iterable[Experience]) -> None:
        """Give what is stored without an embedding these ones, where its text is still what they were made of.

        Raises:
            StoreError: the database is away.
        """
        values = [
            {
                "id": one.id,
                "prefix": rows.text(one.prefix),
                "final_text": rows.text(one.final_text),
                "embedding": rows.vector(one.embedding),
            }
            for one in sorted(experiences, key=lambda one: one.id)  # in the order in which others write
        ]

        async def operation(connection: Connection) -> None:
            if await self.may_write(connection):
                await QUERIES.fill_experiences(connection, values)

        await self._database.run(operation)

    async def _set(self, fingerprint: str) -> None:
        async def operation(connection: Connection) -> None:
            await QUERIES.use_embedder(connection, embedder=fingerprint)

        await self._database.run(operation)

    async def _drop(self, what: str) -> int:
        async def operation(connection: Connection) -> int:
            count: int = await getattr(QUERIES, f"drop_{what}_embeddings")(connection, batch=BATCH)
            return count

        total = 0
        while count := await self._database.run(operation):
            total += count
        return total

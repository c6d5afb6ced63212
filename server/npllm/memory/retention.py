"""Retention: the oldest rows beyond so many are deleted, so that the disk that memory takes is bounded.

Not forgetting: what was learned from them stays learned. Where they lay is kept (the table `pruned`), with a sketch of
their words, so that forgetting a path or a text finds the versions that had learned from it. Call with the trainer's
lock held, while no sleep is half done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from npllm.config import MemoryConfig
from npllm.memory.database import QUERIES, Connection, Database

log = logging.getLogger(__name__)

BATCH = 2000  # rows in a transaction: nobody waits long for them


class Retention:
    """The part of the store that keeps it from growing for ever."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, settings: MemoryConfig, look: Callable[[], None] = lambda: None) -> dict[str, int]:
        """Delete what is beyond the bounds, oldest first; how many rows of each table that were.

        Args:
            look: called between two batches; what it raises ends this, and the next time goes on.
        """
        bounds = {
            "suggestions": settings.keep_suggestions,
            "held_back": settings.keep_suggestions,
            "signs": settings.keep_suggestions,
            "experiences": settings.keep_experiences,
            "chunk_texts": settings.keep_chunks,
        }
        gone: dict[str, int] = {}
        for table, keep in bounds.items():
            while keep:
                look()
                count = await self._some(table, keep)
                gone[table] = gone.get(table, 0) + count
                if count < BATCH:
                    break
        found = {table: count for table, count in gone.items() if count}
        if found:
            log.info("pruned, being more than are kept: %s", ", ".join(f"{n} {table}" for table, n in found.items()))
        return found

    async def _some(self, table: str, keep: int) -> int:
        async def operation(connection: Connection) -> int:
            count: int = await getattr(QUERIES, f"prune_{table}")(connection, keep=keep, batch=BATCH)
            return count

        return await self._database.run(operation)

"""What every part of the store that asks for rows shares: a database, and questions by the names of queries."""

from __future__ import annotations

from typing import Any

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database


class Part:
    """A part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def _all(self, name: str, **parameters: Any) -> list[rows.Row]:
        async def operation(connection: Connection) -> list[rows.Row]:
            return [row async for row in getattr(QUERIES, name)(connection, **parameters)]

        return await self._database.run(operation)

    async def _one(self, name: str, **parameters: Any) -> Any:
        async def operation(connection: Connection) -> Any:
            return await getattr(QUERIES, name)(connection, **parameters)

        return await self._database.run(operation)

"""Project memory shared with the members of a role: switched on for one project by each who shares and uses it."""

from __future__ import annotations

from dataclasses import dataclass

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import StoreError


@dataclass(frozen=True, slots=True)
class Share:
    """`own`, `others`: experiences that this person, and all others with that role, share."""

    project: str
    role: str
    own: int
    others: int


class Shares:
    """The part of the store that shares."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def share(self, project: str, role: str) -> None:
        """Let the members of a role use what this person wrote in a project, and use what they wrote in theirs.

        Raises:
            StoreError: there is no such role, or this person does not belong to it.
        """

        async def operation(connection: Connection) -> None:
            if not (belongs := await QUERIES.may_share_with(connection, role=role)):
                why = f"You do not belong to the role {role}" if belongs is False else f"There is no role {role}"
                raise StoreError(
                    f"{why}: let an administrator of the database run CREATE ROLE {role} NOLOGIN and GRANT {role} TO "
                    "everybody who works on that project."
                )
            await QUERIES.upsert_project(connection, [{"path": rows.text(project)}])
            await QUERIES.share(connection, project=rows.text(project), role=role)
            await QUERIES.share_what_there_is(connection, project=rows.text(project))

        await self._database.run(operation)

    async def unshare(self, project: str, role: str | None = None) -> int:
        """Take it back, from one role or from all; how many shares that ended. The copies are deleted."""

        async def operation(connection: Connection) -> int:
            return int(await QUERIES.unshare(connection, project=rows.text(project), role=role))

        return await self._database.run(operation)

    async def all(self) -> list[Share]:
        async def operation(connection: Connection) -> list[Share]:
            return [Share(**dict(row)) async for row in QUERIES.shares(connection)]

        return await self._database.run(operation)

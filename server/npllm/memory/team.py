"""A database that a team shares, from its administrator's side, and what a person should know of its safety.

`setup` makes the tables the administrator's, takes away what could tell one person about another (0015 says what), and
`secure()` there keeps it so after later migrations. Persons are database users in the role npllm_member.
"""

from __future__ import annotations

import re

from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import StoreError

MEMBER = "npllm_member"


class Team:
    """Over a connected store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def setup(self) -> None:
        """Make the database fit for a team. Run by an administrator: a superuser, or whoever owns the database and may
        make roles; again after an upgrade. Doing it twice does no harm.

        Raises:
            StoreError: a right is missing.
        """

        async def operation(connection: Connection) -> None:
            if await connection.fetchval("SELECT to_regrole($1)", MEMBER) is None:
                await connection.execute(f"CREATE ROLE {MEMBER} NOLOGIN")
            for row in [dict(row) async for row in QUERIES.foreign_things(connection)]:
                await connection.execute(f"ALTER {row['what']} OWNER TO CURRENT_USER")
            await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            await QUERIES.open_for_a_team(connection)
            await connection.execute("SELECT npllm.secure()")
            if await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
                await connection.execute(
                    "DELETE FROM pg_statistic USING pg_class c WHERE starelid = c.oid AND c.relnamespace = "
                    "'npllm'::regnamespace"
                )

        await self._database.run(operation)

    async def add(self, name: str) -> None:
        """Let a database user, who exists, keep a memory here.

        Raises:
            StoreError: there is no such user, or they would see everybody's rows.
        """

        async def operation(connection: Connection) -> None:
            role = await QUERIES.role(connection, name=name)
            if role is None:
                raise StoreError(
                    f"There is no database user {name}. Make one on the server: CREATE ROLE {_quoted(name)} LOGIN "
                    "PASSWORD '...', and let pg_hba.conf admit it with hostssl and scram-sha-256."
                )
            if role["sees_all"]:
                raise StoreError(
                    f"{name} is a superuser or has BYPASSRLS, and would see everybody's rows. Let that person have a "
                    "user of their own for npllm."
                )
            await connection.execute(f"GRANT {MEMBER} TO {_quoted(name)}")

        await self._database.run(operation)

    async def remove(self, name: str) -> dict[str, int]:
        """Delete all of a person's rows, and let them keep none any more; how many rows of each table that were."""

        async def operation(connection: Connection) -> dict[str, int]:
            if await QUERIES.role(connection, name=name) is not None:  # else dropped already; the rows may be there
                await connection.execute(f"REVOKE {MEMBER} FROM {_quoted(name)}")
            gone: dict[str, int] = {}
            await connection.execute("SELECT npllm.open_for_migration()")
            for row in [dict(row) async for row in QUERIES.owned_tables(connection)]:
                said = await connection.execute(f"DELETE FROM {row['name']} WHERE owner = $1", name)
                if count := int(re.sub(r"\D", "", said) or 0):
                    gone[row["name"].removeprefix("npllm.")] = count
            await connection.execute("SELECT npllm.secure()")
            return gone

        return await self._database.run(operation)

    async def members(self) -> list[str]:
        """The database users that may keep a memory here."""

        async def operation(connection: Connection) -> list[str]:
            return [row["name"] async for row in QUERIES.members(connection)]

        return await self._database.run(operation)

    async def weaknesses(self) -> list[str]:
        """What about this database could let others see what is this person's, in a sentence each with its mend."""

        async def operation(connection: Connection) -> list[str]:
            me = await QUERIES.me(connection)
            found = []
            if me["address"] and me["address"] not in ("127.0.0.1", "::1") and not me["encrypted"]:
                found.append("The connection is not encrypted: say sslmode=verify-full in the URL.")
            if me["sees_all"] and me["for_a_team"]:
                found.append(
                    f"The database user {me['name']} sees everybody's rows, as it is an administrator: use one of your "
                    "own for your memory."
                )
            if not me["sees_all"] and not me["for_a_team"] and (owner := await QUERIES.tables_owner(connection)):
                found.append(
                    f"The tables belong to the database user {owner}, who could read your rows: let an administrator "
                    "run `npllm team setup`."
                )
            if bare := [row["name"] async for row in QUERIES.unguarded(connection)]:
                found.append(
                    f"Nothing keeps persons' rows apart in {', '.join(bare)}: an administrator runs `npllm team setup`."
                )
            schemas = [row["name"] async for row in QUERIES.open_schemas(connection)]
            return found + [
                f"Every database user may make functions in the schema {name} that yours would call: let an "
                f"administrator run REVOKE CREATE ON SCHEMA {name} FROM PUBLIC."
                for name in schemas
            ]

        return await self._database.run(operation)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""Numbered SQL migrations, each applied once, in a transaction, under an advisory lock.

Files are `NNNN_name.sql`: package data `npllm/migrations` in a wheel, the repository's `db/migrations` beside a
checkout. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

import npllm
from npllm.types import StoreError

log = logging.getLogger(__name__)

SCHEMA = "npllm"
REWRITTEN = ("experiences", "chunk_texts")  # by 0021
LOCK = 0x6E706C6C6D  # "npllm": any number, the same for everybody
PATIENCE_S = 100  # with another process that migrates; below the connections' own limit, so that this is what is said
REWRITING_S = 3600  # a migration may write every row anew
MIN_VECTOR = (0, 8)  # what is tested; halfvec and binary_quantize


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def folder() -> Path:
    """Where the migrations are. Raises StoreError when the installation lacks them."""
    package = Path(npllm.__file__).resolve().parent
    for candidate in (package / "migrations", package.parent.parent / "db" / "migrations"):
        if candidate.is_dir():
            return candidate
    raise StoreError(f"The database migrations are missing beside {package}: reinstall npllm.")


def load(where: Path | None = None) -> list[Migration]:
    """All migrations, in the order of their numbers; raises StoreError where two have the same one."""
    found = []
    for file in sorted((where or folder()).glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match is None:
            raise StoreError(f"{file} is not named NNNN_name.sql.")
        found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    if len({m.number for m in found}) != len(found):
        raise StoreError(f"Two of the migrations in {where or folder()} have the same number: reinstall npllm.")
    return found


async def migrate(connection: asyncpg.Connection, migrations: Sequence[Migration] | None = None) -> int:
    """Bring the database up to date; gives how many migrations were applied. Locks nothing where all are.

    Raises:
        StoreError: the database is newer than this program, a migration was changed after it was applied, or
            this database user lacks a right. Names the mend.
    """
    wanted = load() if migrations is None else migrations
    try:
        if not await _pending(connection, wanted):
            return 0
        await _lock(connection)
        try:
            return await _apply(connection, wanted)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreError(
            f"This database user may not set up npllm's tables: {error}. Let an administrator run "
            f"'CREATE EXTENSION IF NOT EXISTS vector' and grant CREATE on the database, or, for a team, run "
            "`npllm team setup`; then try again."
        ) from error
    except asyncpg.DiskFullError as error:
        raise StoreError(
            "The disk under the database is too full to bring its tables up to date: all is written anew, which "
            f"needs as much room once more ({error}). Nothing was changed. Make room; it is tried again."
        ) from error
    except TimeoutError as error:
        raise StoreError(
            f"The tables could not be brought up to date within {REWRITING_S // 60} minutes. Nothing was changed; it "
            "is tried again."
        ) from error
    except (asyncpg.UndefinedFileError, asyncpg.FeatureNotSupportedError) as error:
        raise StoreError(
            f"The database server has no pgvector: {error}. Install pgvector 0.8 or newer there "
            "(https://github.com/pgvector/pgvector), or unset NPLLM_DATABASE_URL for the embedded one."
        ) from error


async def _pending(connection: asyncpg.Connection, wanted: Sequence[Migration]) -> list[Migration]:
    """The migrations that are not applied yet."""
    usable = await connection.fetchval(
        "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1", SCHEMA
    )
    if usable is False:
        raise StoreError(
            f"The database user {await connection.fetchval('SELECT current_user')} is no member of the team that keeps "
            "its memory in this database: let an administrator run `npllm team add` with this name."
        )
    if usable is None or await connection.fetchval("SELECT to_regclass('npllm.schema_migrations')") is None:
        return list(wanted)
    rows = await connection.fetch(f"SELECT number, name, sha256 FROM {SCHEMA}.schema_migrations ORDER BY number")
    done = {row["number"]: row for row in rows}
    known = {migration.number: migration for migration in wanted}
    for number, row in done.items():
        if number not in known:
            raise StoreError(
                f"The database has migration {number:04}_{row['name']}, which this npllm does not know: "
                "it was used by a newer version. Upgrade npllm."
            )
        if row["sha256"] != known[number].sha256:
            raise StoreError(
                f"Migration {number:04}_{row['name']} is not the one that the database was made with. "
                "Reinstall npllm, or, if a migration was changed in development, use a fresh data folder."
            )
    missing = [migration for migration in wanted if migration.number not in done]
    if not missing:
        await _check_vector(connection)
        return []
    owner = await connection.fetchrow(
        "SELECT r.rolname::text AS name, pg_has_role(r.oid, 'USAGE') AS ours FROM pg_class c "
        f"JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = '{SCHEMA}.schema_migrations'::regclass"
    )
    if owner is not None and not owner["ours"]:
        raise StoreError(
            f"The tables are older than this npllm, and belong to the database user {owner['name']}: let that user "
            "bring them up to date (`npllm team setup`), or use an earlier npllm until then."
        )
    return missing


async def _lock(connection: asyncpg.Connection) -> None:
    """One process migrates at a time. Anybody who may connect could hold this lock: then it is said who does."""
    await connection.execute(f"SET lock_timeout = '{PATIENCE_S}s'")
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    except asyncpg.LockNotAvailableError as error:
        holder = await connection.fetchrow(
            "SELECT a.usename, l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.granted AND "
            "l.locktype = 'advisory' AND (l.classid::bigint << 32 | l.objid::bigint) = $1",
            LOCK,
        )
        who = f"user {holder['usename']}, process {holder['pid']}" if holder else "another process"
        raise StoreError(
            f"The tables cannot be brought up to date: {who} has held npllm's lock for {PATIENCE_S} s. "
            "Wait until that is done, or end it with pg_terminate_backend."
        ) from error
    finally:
        if not connection.is_closed():
            await connection.execute("RESET lock_timeout")


async def _apply(connection: asyncpg.Connection, wanted: Sequence[Migration]) -> int:
    if await connection.fetchval("SELECT to_regclass('npllm.schema_migrations')") is None:
        async with connection.transaction():
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute(
                f"""CREATE TABLE {SCHEMA}.schema_migrations (
                    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,
                    applied_at timestamptz NOT NULL DEFAULT now())"""
            )
            await connection.execute(f"GRANT SELECT ON {SCHEMA}.schema_migrations TO PUBLIC")
            await connection.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC")
    applied = 0
    for migration in await _pending(connection, wanted):  # again: another process may have been first
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {SCHEMA}, public")
            if await _has(connection, "open_for_migration"):
                await connection.execute(f"SELECT {SCHEMA}.open_for_migration()")
            await connection.execute(migration.sql, timeout=REWRITING_S)
            await connection.execute(
                f"INSERT INTO {SCHEMA}.schema_migrations (number, name, sha256) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.sha256,
            )
            if await _has(connection, "secure"):
                await connection.execute(f"SELECT {SCHEMA}.secure()")
        applied += 1
    await _check_vector(connection)
    if applied:
        await _tidy(connection)
    return applied


async def _tidy(connection: asyncpg.Connection) -> None:
    """Let what searches read an index alone where all rows were written anew; that this cannot be harms nothing."""
    for table in REWRITTEN:
        try:
            await connection.execute(f"VACUUM (ANALYZE) {SCHEMA}.{table}", timeout=REWRITING_S)
        except (asyncpg.PostgresError, TimeoutError) as error:
            log.info("%s is not tidied up now, autovacuum will: %s", table, error)


async def _has(connection: asyncpg.Connection, function: str) -> bool:
    """Whether this database has it yet (0015 makes them)."""
    return await connection.fetchval("SELECT to_regprocedure($1)", f"{SCHEMA}.{function}()") is not None


async def _check_vector(connection: asyncpg.Connection) -> None:
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    parts = tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])
    if parts < MIN_VECTOR:
        raise StoreError(
            f"The database has pgvector {version or 'not at all'}; 0.8 or newer is needed. Install it on "
            "the server, then run 'ALTER EXTENSION vector UPDATE' there."
        )

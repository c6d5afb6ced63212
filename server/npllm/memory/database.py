"""Connections to PostgreSQL, embedded or by URL, that survive its restarts.

Runs an operation on a pooled connection; when the connection breaks, (re)starts the embedded server if it is
ours and tries again until `database.connect_timeout_s` has passed. So every operation given to `run` must be
idempotent. Knows no tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiosql
import asyncpg
from pgvector.asyncpg import register_vector

from npllm.config import Config
from npllm.memory import tls
from npllm.memory.migrate import SCHEMA, migrate
from npllm.memory.postgres import EmbeddedPostgres
from npllm.types import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = Any  # asyncpg's, pooled or not: the stubs have two unrelated classes
Operation = Callable[[Connection], Awaitable[T]]

QUERIES: Any = aiosql.from_path(Path(__file__).parent / "queries", "asyncpg", mandatory_parameters=False)

VECTOR_SCHEMA = (
    "SELECT nspname::text FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'"
)

_TRANSIENT = (
    OSError,  # TimeoutError too
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
_REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,  # the driver cannot encode a parameter
    OverflowError,
)


class DataRefused(StoreError):
    """The database cannot hold a value that it was given; trying again will not help."""


async def _knows_vectors(connection: Connection) -> None:
    """Let a new connection of the pool speak pgvector's binary format, wherever the extension lies.

    Made only once the tables are there: `open` migrates on a connection of its own.
    """
    schema = await connection.fetchval(VECTOR_SCHEMA)
    await register_vector(connection, schema=schema)


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited has raised it; if nobody did, the next call will


class Database:
    """A pool, and how to get it back."""

    def __init__(self, config: Config) -> None:
        self._config = config.database
        self._embedded = None if config.database.url else EmbeddedPostgres(config.home)
        self._target: dict[str, Any] = {"dsn": config.database.url, **tls.arguments(config.database.url)}
        self._search_path = SCHEMA  # no other: what somebody puts elsewhere is never called
        self._pool: asyncpg.Pool[Any] | None = None
        self._mending = asyncio.Lock()
        self._restart: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def url(self) -> str:
        """Where the database is, without the password."""
        target = self._target
        if target.get("dsn"):
            shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", str(target["dsn"]))
            return re.sub(r"(password=)[^&]*", r"\1***", shown)
        return f"{target.get('host', 'embedded')} (embedded)"

    async def open(self) -> None:
        """Start or join the server, migrate, fill the pool. Raises StoreError with cause and mend."""
        try:
            async with self.own_connection() as connection:
                applied = await migrate(connection)
                await QUERIES.introduce(connection)
            if applied:
                log.info("the database was brought up to date: %d migrations", applied)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._closed = True
        if self._restart is not None:
            self._restart.cancel()
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), timeout=5)
            except (TimeoutError, *_TRANSIENT, asyncpg.InterfaceError):
                self._pool.terminate()
            self._pool = None
        if self._embedded is not None:
            await self._embedded.close()

    async def connect(self) -> Connection:
        """A connection of one's own, outside the pool (locks, LISTEN, migrations)."""

        async def make(_: asyncpg.Pool[Any]) -> Connection:
            return await asyncpg.connect(**self._arguments())

        return await self._persist(make)

    @contextlib.asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Connection]:
        connection = await self.connect()
        try:
            yield connection
        finally:
            connection.terminate()  # its locks go with it, whatever state it is in

    async def run(self, operation: Operation[T]) -> T:
        """Run an idempotent operation, in a transaction of its own, again after a broken connection.

        Raises:
            DataRefused: a value cannot be stored.
            StoreError: the database stays away, or refuses.
        """

        async def attempt(pool: asyncpg.Pool[Any]) -> T:
            timeout = self._config.connect_timeout_s
            async with pool.acquire(timeout=timeout) as connection, connection.transaction():
                return await operation(connection)

        return await self._persist(attempt)

    async def _persist(self, attempt: Callable[[asyncpg.Pool[Any]], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._config.connect_timeout_s
        pause = 0.05
        while True:
            if self._closed:
                raise StoreError("The store is closed.")
            try:
                return await attempt(await self._reach())
            except _REFUSED as error:
                raise DataRefused(f"The database cannot hold a value: {error}") from error
            except (*_TRANSIENT, asyncpg.InterfaceError) as error:
                if time.monotonic() + pause > deadline:
                    raise self._unreachable(error) from error
                log.debug("the database is away (%r), trying again", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                await self._mend(deadline - time.monotonic())
            except asyncpg.DiskFullError as error:
                raise StoreError(
                    f"The disk of the database at {self.url} is full: {error}. Make room there; nothing is lost "
                    "meanwhile."
                ) from error
            except asyncpg.PostgresError as error:
                raise StoreError(
                    f"The database at {self.url} refused: {type(error).__name__}: {error}. `npllm doctor` says more."
                ) from error

    async def _reach(self) -> asyncpg.Pool[Any]:
        if self._pool is None:
            async with self._mending:
                if self._pool is None:
                    if self._embedded is not None:
                        await self._start_embedded()
                    self._pool = await self._make_pool()
        return self._pool

    async def _mend(self, patience_s: float) -> None:
        """After a broken connection: the embedded server may have to be started again (by one of us, once)."""
        if self._embedded is None:
            return
        if self._restart is None or self._restart.done():
            self._restart = asyncio.create_task(self._restart_embedded(), name="npllm-database-restart")
            self._restart.add_done_callback(_seen)
        try:
            await asyncio.wait_for(asyncio.shield(self._restart), timeout=max(patience_s, 1.0))
        except TimeoutError:
            raise StoreError(
                f"The embedded database ({self.url}) is still starting; after a crash that can take a while."
            ) from None

    async def _restart_embedded(self) -> None:
        async with self._mending:
            before = dict(self._target)
            await self._start_embedded()
            if self._target != before and self._pool is not None:
                self._pool.terminate()
                self._pool = None

    async def _start_embedded(self) -> None:
        assert self._embedded is not None
        endpoint = await self._embedded.start()
        self._target = {
            "host": endpoint.host,
            "port": endpoint.port,
            "user": endpoint.user,
            "database": endpoint.database,
        }

    async def _make_pool(self) -> asyncpg.Pool[Any]:
        try:
            first = await asyncpg.connect(**self._arguments())
            try:
                found = await first.fetchval(VECTOR_SCHEMA)
            finally:
                await first.close()
            if found is not None and found != SCHEMA:
                self._search_path = f"{SCHEMA}, {found}"
            return await asyncpg.create_pool(
                min_size=0, max_size=self._config.pool_size, init=_knows_vectors, **self._arguments()
            )
        except (
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            ValueError,
        ) as error:
            if self._embedded is not None and isinstance(error, _TRANSIENT):
                raise  # ours, and only just started: worth another try
            raise self._unreachable(error) from error

    def _arguments(self) -> dict[str, Any]:
        return {
            **self._target,
            "timeout": self._config.connect_timeout_s,
            "command_timeout": 120.0,
            "server_settings": {"search_path": self._search_path, "application_name": "npllm"},
        }

    def _unreachable(self, error: BaseException) -> StoreError:
        said = str(error) or type(error).__name__
        if self._embedded is not None:
            return StoreError(f"The embedded database ({self.url}) does not answer: {said}. See `npllm doctor`.")
        mend = tls.mend(error) or (
            "Check NPLLM_DATABASE_URL or database.url in config.toml, or remove it to use the embedded database."
        )
        return StoreError(f"The database at {self.url} cannot be used: {said.rstrip('.')}. {mend}")

"""What one person's processes know of one another: which windows are awake, who trains, what is new.

Sessions are rows; the trainer's lock and `listen` each keep a connection of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from uuid import UUID

import asyncpg

from npllm.memory.database import QUERIES, Connection, Database
from npllm.memory.part import Part
from npllm.types import StoreError

log = logging.getLogger(__name__)

RECONNECT = "reconnect"  # what a listener is told after a gap: read the table again
RETRY_S = 1.0


class Presence(Part):
    """The part of the store through which one person's processes see one another."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._listeners: list[asyncio.Task[None]] = []

    async def heartbeat(self, session_id: UUID, last_activity: datetime, asleep_ok: bool) -> None:
        """This window lives, was last used then, and would (not) let sleep begin."""

        async def operation(connection: Connection) -> None:
            await QUERIES.heartbeat(connection, id=session_id, last_activity=last_activity, asleep_ok=asleep_ok)

        await self._database.run(operation)

    async def end_session(self, session_id: UUID) -> None:
        async def operation(connection: Connection) -> None:
            await QUERIES.end_session(connection, id=session_id)
            await QUERIES.forget_sessions(connection)

        await self._database.run(operation)

    async def latest_activity(self, stale_s: float = 30.0) -> datetime | None:
        """When any window heard of within `stale_s` was last used; None: no window lives."""

        async def operation(connection: Connection) -> datetime | None:
            value: datetime | None = await QUERIES.latest_activity(connection, stale_s=float(stale_s))
            return value

        return await self._database.run(operation)

    async def sleep_vetoed(self, stale_s: float = 30.0) -> bool:
        """Whether a window heard of within `stale_s` does not want sleep to begin by itself."""

        async def operation(connection: Connection) -> bool:
            return bool(await QUERIES.sleep_vetoed(connection, stale_s=float(stale_s)))

        return await self._database.run(operation)

    @contextlib.asynccontextmanager
    async def trainer_lock(self, on_lost: Callable[[], None] | None = None) -> AsyncIterator[bool]:
        """One trainer per database user: True = we have it until the block ends (or this process dies).

        The lock goes with its connection: if that breaks inside the block, `on_lost` is called, from the event loop,
        once; somebody else may train from then on.

        Raises:
            StoreError: the database is away.
        """
        async with self._database.own_connection() as connection:

            def lost(_: Connection) -> None:
                log.warning("the connection that held the trainer's lock was lost")
                if on_lost is not None:
                    on_lost()

            with _as_store_error("asking for the trainer's lock"):
                held = bool(await QUERIES.try_trainer_lock(connection))
                _watch(connection, lost)
            if not held:
                connection.remove_termination_listener(lost)
            try:
                yield held
            finally:
                connection.remove_termination_listener(lost)

    async def listen(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the id of each version put in use from now on, by any process.

        When something was forgotten it is called with `forgetting.ANNOUNCED`.

        After a broken connection it listens again and calls `callback("reconnect")`: read the table anew then.

        Raises:
            StoreError: the database is away now.
        """
        lost = asyncio.Event()
        connection = await self._subscribe(callback, lost)

        async def again() -> None:
            nonlocal connection
            try:
                while True:
                    await lost.wait()
                    lost.clear()
                    while True:
                        try:
                            connection = await self._subscribe(callback, lost)
                            break
                        except StoreError as error:
                            log.warning("not listening for new versions: %s", error)
                        except Exception:
                            log.exception("listening for new versions failed; trying again")
                        await asyncio.sleep(RETRY_S)
                    callback(RECONNECT)
            finally:
                connection.terminate()

        self._listeners.append(asyncio.create_task(again(), name="npllm-listen"))

    async def _subscribe(self, callback: Callable[[str], None], lost: asyncio.Event) -> Connection:
        connection = await self._database.connect()
        try:
            with _as_store_error("listening for new versions"):
                channel = await QUERIES.channel(connection)
                await connection.add_listener(channel, lambda _c, _pid, _channel, payload: callback(str(payload)))
                _watch(connection, lambda _: lost.set())
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _stop_listening(self) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        self._listeners.clear()


def _watch(connection: Connection, lost: Callable[[Connection], None]) -> None:
    """See to it that `lost` is called when the connection ends; raises OSError when it has already."""
    connection.add_termination_listener(lost)
    if connection.is_closed():
        connection.remove_termination_listener(lost)
        raise ConnectionResetError("the connection was lost")


@contextlib.contextmanager
def _as_store_error(doing: str) -> Iterator[None]:
    """The driver's errors on a connection of our own, which nobody else translates."""
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StoreError(f"The database went away while {doing}: {error or type(error).__name__}.") from error

"""The store: typed questions to PostgreSQL and typed answers. SQL lives in queries/*.sql.

Everything is of the present database user alone. Every write is idempotent, so that a journal can be replayed.
No method returns dicts; all raise StoreError while the database is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from npllm.config import Config
from npllm.memory import rows
from npllm.memory.cerebellum import CerebellumRecords
from npllm.memory.database import QUERIES, Connection, Database
from npllm.memory.embeddings import Embeddings
from npllm.memory.forgetting import Forgetting
from npllm.memory.index.records import ChunkRecords
from npllm.memory.lineage import Lineage
from npllm.memory.looking import Looking
from npllm.memory.places import off_limits
from npllm.memory.policies import Policies
from npllm.memory.redacting import Redacting
from npllm.memory.replay import ReplayRecords
from npllm.memory.retention import Retention
from npllm.memory.shares import Shares
from npllm.memory.similarity import find_similar
from npllm.memory.statistics import Statistician
from npllm.memory.team import Team
from npllm.types import (
    AdapterVersion,
    AttentionVersion,
    Consolidation,
    ConsolidationState,
    Counts,
    Experience,
    Feedback,
    HeldBack,
    JournalRecord,
    Outcome,
    Sign,
    Snippet,
    StoreError,
    Suggestion,
    Trace,
    VersionState,
)

log = logging.getLogger(__name__)

RECONNECT = "reconnect"  # what a listener is told after a gap: read the table again
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class ContextCount:
    """How many experiences a context (e.g. "language:python") has gained."""

    context: str
    count: int


class Store:
    """One process's view of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.lineage = Lineage(database)
        self.forgetting = Forgetting(database)
        self.looking = Looking(database)
        self.retention = Retention(database)
        self.replay = ReplayRecords(database)
        self.cerebellum = CerebellumRecords(database)
        self.embeddings = Embeddings(database)
        self.index = ChunkRecords(database, self.embeddings)
        self._listeners: list[asyncio.Task[None]] = []
        self.policies = Policies(database)
        self.statistics = Statistician(database)
        self.team = Team(database)
        self.redacting = Redacting(database)
        self.shares = Shares(database)

    @classmethod
    async def connect(cls, config: Config) -> Store:
        """Start or join the embedded server, or reach the one at `database.url`; migrate.

        Raises:
            StoreError: with cause and mend.
        """
        database = Database(config)
        await database.open()
        return cls(database)

    @property
    def url(self) -> str:
        """Where the database is, for people; without a password."""
        return self._database.url

    async def close(self) -> None:
        for task in self._listeners:
            task.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)
        self._listeners.clear()
        await self._database.close()

    # --- what happened ---

    async def write(self, records: Sequence[JournalRecord]) -> None:
        """Write all of `records` in one transaction; what is there already stays as it is.

        Raises:
            DataRefused: one of them cannot be stored; none was.
            StoreError: the database is away.
        """
        if not records:
            return
        placed = [r for r in records if isinstance(r, Suggestion | Experience | HeldBack | Sign)]
        suggestions = [rows.suggestion_row(r) for r in records if isinstance(r, Suggestion)]
        outcomes = [rows.outcome_row(r) for r in records if isinstance(r, Outcome)]
        feedback = [rows.feedback_row(r) for r in records if isinstance(r, Feedback)]
        experiences = [rows.experience_row(r) for r in records if isinstance(r, Experience)]
        held_back = [rows.held_back_row(r) for r in records if isinstance(r, HeldBack)]
        signs = [rows.sign_row(r) for r in records if isinstance(r, Sign)]
        experiences.sort(key=lambda row: (row["id"], row["revision"]))

        async def operation(connection: Connection) -> None:
            # Before any table is locked, as in forgetting: else the two may wait for one another.
            bare = bool(experiences) and not await self.embeddings.may_write(connection)
            limits = [row["path"] async for row in QUERIES.off_limits(connection)] if placed else []
            barred = {_about(record) for record in placed if off_limits(record.place, limits)}
            if barred:  # and what comes of them later: the tables refuse what is forgotten
                await QUERIES.remember_forgotten(connection, ids=list(barred))
            # Sorted, so that two processes writing at once cannot deadlock.
            projects = sorted({rows.text(r.place.project) for r in placed if _about(r) not in barred})
            if projects:
                await QUERIES.upsert_project(connection, [{"path": path} for path in projects])
            if suggestions:
                await QUERIES.insert_suggestions(connection, suggestions)
            if outcomes:
                await QUERIES.insert_outcomes(connection, outcomes)
            if feedback:
                await QUERIES.insert_feedback(connection, feedback)
            if held_back:
                await QUERIES.insert_held_back(connection, held_back)
            if signs:
                await QUERIES.insert_signs(connection, signs)
            if experiences:
                await QUERIES.upsert_experiences(
                    connection, [{**row, "embedding": None} for row in experiences] if bare else experiences
                )

        await self._database.run(operation)

    async def counts(self) -> Counts:
        """Rows per table, of this database user."""
        row = await self._one("counts")
        return Counts(**dict(row))

    async def suggestion(self, id: UUID) -> Suggestion | None:
        row = await self._one("suggestion", id=id)
        return None if row is None else rows.suggestion(row)

    async def latest_suggestion(self) -> Suggestion | None:
        row = await self._one("latest_suggestion")
        return None if row is None else rows.suggestion(row)

    # --- what was learned ---

    async def experience(self, id: UUID) -> Experience | None:
        row = await self._one("experience", id=id)
        return None if row is None else rows.experience(row)

    async def experiences_since(
        self,
        since: datetime | None,
        *,
        context: str | None = None,
        limit: int = 10_000,
        newest_first: bool = False,
    ) -> list[Experience]:
        """Those with `created_at >= since` (all if None), of one context or of all; oldest first by default."""
        name = "newest_experiences_since" if newest_first else "experiences_since"
        return [rows.experience(r) for r in await self._all(name, since=since, context=context, limit=limit)]

    async def experiences_before(
        self, before: datetime, *, context: str | None = None, limit: int = 10_000
    ) -> list[Experience]:
        """Older ones, for replay; newest first."""
        found = await self._all("experiences_before", before=before, context=context, limit=limit)
        return [rows.experience(r) for r in found]

    async def experiences_without_embedding(self, limit: int) -> list[Experience]:
        """What `similar` cannot find yet, newest first; `embeddings.fill` mends that."""
        return [rows.experience(row) for row in await self._all("experiences_without_embedding", limit=limit)]

    async def contexts_with_new(self, since: datetime | None) -> list[ContextCount]:
        """The contexts with experiences since then, most first."""
        found = await self._all("contexts_with_new", since=since)
        return [ContextCount(row["context"], row["count"]) for row in found]

    async def families(self) -> dict[str, int]:
        """Experiences by context, most first; an experience belongs to several (see `npllm.contexts`)."""
        return {row["context"]: row["count"] for row in await self._all("families")}

    async def avoided(self, project: str | None, limit: int = 1000) -> list[Experience]:
        """What is never to be suggested again, newest first, of one project or (None) of all."""
        return [rows.experience(row) for row in await self._all("avoided", project=project, limit=limit)]

    async def traces(self, since: datetime | None, *, language: str | None = None, limit: int = 2000) -> list[Trace]:
        """What the person ended up with since then (all if None), in one language or all, newest first."""
        return [rows.trace(row) for row in await self._all("traces", since=since, language=language, limit=limit)]

    async def similar(
        self,
        embedding: Sequence[float],
        *,
        project: str | None,
        language: str,
        limit: int,
        min_similarity: float,
        exclude: Collection[UUID] = (),
    ) -> list[Snippet]:
        """What the person wrote in places like this one, nearest first; `score` is the cosine similarity.

        Never the text of an avoided suggestion, nor of a discarded one; nothing while another embedder's vectors are in
        use. `project` None searches all projects.
        """

        async def operation(connection: Connection) -> list[Snippet]:
            if not await self.embeddings.may_search(connection):
                return []
            return await find_similar(connection, embedding, project, language, limit, min_similarity, exclude)

        return await self._database.run(operation)

    # --- what sleep made of it ---

    async def insert_adapter_version(self, version: AdapterVersion) -> None:
        """Record a version (not published: see `publish`); the second time updates state and metrics."""

        async def operation(connection: Connection) -> None:
            await QUERIES.insert_adapter_version(connection, **rows.version_row(version))

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
        return [rows.version(row) for row in found]

    async def publish(self, version: AdapterVersion, *, held_out: Sequence[UUID] = ()) -> None:
        """In one transaction: retire what is published of that context and base, publish this, announce it.

        Args:
            held_out: the experiences that it was judged by; from now on they are kept apart in its context, for good.
        """
        row = {**rows.version_row(version), "state": VersionState.PUBLISHED.value}

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
        return [rows.attention_version(row) for row in found]

    async def insert_attention_version(self, version: AttentionVersion) -> None:
        """Record gains; published ones retire those in use and are announced, in the same transaction."""

        async def operation(connection: Connection) -> None:
            published = version.state is VersionState.PUBLISHED
            if published:
                await QUERIES.lock_versions(connection)
                await QUERIES.retire_attention(connection, base_fingerprint=version.base_fingerprint, id=version.id)
            await QUERIES.insert_attention_version(connection, **rows.attention_row(version))
            if published:
                await QUERIES.announce(connection, id=str(version.id))

        await self._database.run(operation)

    async def experiences_with_memories(
        self, since: datetime | None, *, limit: int
    ) -> list[tuple[Experience, tuple[UUID, ...]]]:
        """Those with `created_at >= since` (all if None) in whose prompts something remembered stood, newest first,
        with the ids of what stood there, the most alike first."""
        found = await self._all("experiences_with_memories", since=since, limit=limit)
        return [(rows.experience(row), tuple(map(rows.uuid, row["memory_ids"]))) for row in found]

    async def upsert_consolidation(self, consolidation: Consolidation) -> None:
        async def operation(connection: Connection) -> None:
            await QUERIES.upsert_consolidation(connection, **rows.consolidation_row(consolidation))

        await self._database.run(operation)

    async def last_consolidation(self, state: ConsolidationState | None = None) -> Consolidation | None:
        """The newest sleep, of one state or of any."""
        row = await self._one("last_consolidation", state=None if state is None else state.value)
        return None if row is None else rows.consolidation(row)

    async def consolidation(self, id: UUID) -> Consolidation | None:
        row = await self._one("consolidation", id=id)
        return None if row is None else rows.consolidation(row)

    async def interrupted_consolidation(self) -> Consolidation | None:
        """The newest sleep, if it was cut short: interrupted, or `running` still as its child was killed.

        Ask while holding the trainer lock: else a running one may really be running.
        """
        last = await self.last_consolidation()
        unfinished = (ConsolidationState.INTERRUPTED, ConsolidationState.RUNNING)
        return last if last is not None and last.state in unfinished else None

    # --- who is awake ---

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

    async def _all(self, name: str, **parameters: Any) -> list[rows.Row]:
        async def operation(connection: Connection) -> list[rows.Row]:
            return [row async for row in getattr(QUERIES, name)(connection, **parameters)]

        return await self._database.run(operation)

    async def _one(self, name: str, **parameters: Any) -> Any:
        async def operation(connection: Connection) -> Any:
            return await getattr(QUERIES, name)(connection, **parameters)

        return await self._database.run(operation)


def _about(record: Suggestion | Experience | HeldBack | Sign) -> UUID:
    """The suggestion's id."""
    return record.suggestion_id if isinstance(record, HeldBack | Sign) else record.id


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

"""The store: typed questions to PostgreSQL and typed answers. SQL lives in queries/*.sql.

Everything is of the present database user alone. Every write is idempotent, so that a journal can be replayed.
No method returns dicts; all raise StoreError while the database is away.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from npllm.config import Config
from npllm.memory import rows
from npllm.memory.cerebellum import CerebellumRecords
from npllm.memory.consolidations import Consolidations
from npllm.memory.database import QUERIES, Connection, Database
from npllm.memory.embeddings import Embeddings
from npllm.memory.forgetting import Forgetting
from npllm.memory.index.records import ChunkRecords
from npllm.memory.lineage import Lineage
from npllm.memory.looking import Looking
from npllm.memory.places import off_limits
from npllm.memory.policies import Policies
from npllm.memory.presence import Presence
from npllm.memory.redacting import Redacting
from npllm.memory.replay import ReplayRecords
from npllm.memory.retention import Retention
from npllm.memory.shares import Shares
from npllm.memory.similarity import find_similar
from npllm.memory.statistics import Statistician
from npllm.memory.team import Team
from npllm.types import (
    Counts,
    Experience,
    Feedback,
    HeldBack,
    JournalRecord,
    Outcome,
    Sign,
    Snippet,
    Suggestion,
    Trace,
)


@dataclass(frozen=True, slots=True)
class ContextCount:
    """How many experiences a context (e.g. "language:python") has gained."""

    context: str
    count: int


class Store(Consolidations, Presence):
    """One process's view of the database: what happened and what was learned, and with its parts all else."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.lineage = Lineage(database)
        self.forgetting = Forgetting(database)
        self.looking = Looking(database)
        self.retention = Retention(database)
        self.replay = ReplayRecords(database)
        self.cerebellum = CerebellumRecords(database)
        self.embeddings = Embeddings(database)
        self.index = ChunkRecords(database, self.embeddings)
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
        await self._stop_listening()
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

    async def experiences_among(
        self, ids: Sequence[UUID], *, context: str | None = None, limit: int = 10_000
    ) -> list[Experience]:
        """Those with these ids that are still there, newest first, of one context or of all."""
        found = await self._all("experiences_among", ids=list(ids), context=context, limit=limit)
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

    async def experiences_with_memories(
        self, since: datetime | None, *, limit: int
    ) -> list[tuple[Experience, tuple[UUID, ...]]]:
        """Those with `created_at >= since` (all if None) in whose prompts something remembered stood, newest first,
        with the ids of what stood there, the most alike first."""
        found = await self._all("experiences_with_memories", since=since, limit=limit)
        return [(rows.experience(row), tuple(map(rows.uuid, row["memory_ids"]))) for row in found]


def _about(record: Suggestion | Experience | HeldBack | Sign) -> UUID:
    """The suggestion's id."""
    return record.suggestion_id if isinstance(record, HeldBack | Sign) else record.id

"""Looking into what is remembered: a case with all that belongs to it, a search, every record, sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import (
    Experience,
    Feedback,
    HeldBack,
    JournalRecord,
    NpllmError,
    Outcome,
    OutcomeKind,
    Sign,
    SignKind,
    Suggestion,
)

PAGE = 500  # records at a time
MOST_NAMED = 5  # of the ids that a beginning could mean


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one suggestion; `suggestion` or `experience` is there."""

    suggestion: Suggestion | None
    outcomes: tuple[Outcome, ...]  # every look at it, the first one first
    feedback: tuple[Feedback, ...]
    experience: Experience | None
    signs: tuple[Sign, ...] = ()  # of frustration, that were last about it

    @property
    def id(self) -> UUID:
        known = self.suggestion or self.experience
        assert known is not None
        return known.id


@dataclass(frozen=True, slots=True)
class Hit:
    """An experience that a search found. `similarity`: cosine, None where words were searched."""

    experience: Experience
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much the database holds.

    Attributes:
        bytes_by_table: with indexes, of all users together.
        database_bytes: of everything in it.
        experiences: by (language, decision), most first.
        projects: experiences by project's path, most first.
        first, last: when the oldest and the newest experience began; None where there is none.
        unembedded: experiences that a search by likeness cannot find yet.
    """

    bytes_by_table: Mapping[str, int]
    database_bytes: int
    experiences: Mapping[tuple[str, str], int]
    projects: Mapping[str, int]
    first: datetime | None
    last: datetime | None
    unembedded: int


class Looking:
    """The part of the store that a person looks through."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def case(self, beginning: str) -> Case:
        """The case whose id begins so; "last" = the newest.

        Raises:
            NpllmError: there is none, or more than one.
        """
        id = await self._newest() if beginning == "last" else await self._named(beginning)

        async def operation(connection: Connection) -> Case:
            suggestion = await QUERIES.suggestion(connection, id=id)
            experience = await QUERIES.experience(connection, id=id)
            return Case(
                None if suggestion is None else rows.suggestion(suggestion),
                tuple([outcome(row) async for row in QUERIES.outcomes_of(connection, id=id)]),
                tuple([feedback(row) async for row in QUERIES.feedback_of(connection, id=id)]),
                None if experience is None else rows.experience(experience),
                tuple([sign(row) async for row in QUERIES.signs_of(connection, id=id)]),
            )

        return await self._database.run(operation)

    async def _newest(self) -> UUID:
        async def operation(connection: Connection) -> Any:
            found = await QUERIES.latest_suggestion(connection)
            return found or await QUERIES.newest_experience(connection)

        found = await self._database.run(operation)
        if found is None:
            raise NpllmError("Nothing is remembered yet.")
        return rows.uuid(found["id"])

    async def _named(self, beginning: str) -> UUID:
        plain = beginning.strip().lower()
        if not plain or set(plain) - set("0123456789abcdef-"):
            raise NpllmError(f"{beginning!r} is no id: say an id, its beginning, or `last`.")

        async def operation(connection: Connection) -> list[UUID]:
            found = QUERIES.ids_like(connection, beginning=plain + "%", limit=MOST_NAMED + 1)
            return [rows.uuid(row["id"]) async for row in found]

        ids = await self._database.run(operation)
        if not ids:
            raise NpllmError(f"Nothing that is remembered has an id that begins with {beginning}.")
        if len(ids) > 1:
            named = ", ".join(map(str, ids[:MOST_NAMED])) + (" ..." if len(ids) > MOST_NAMED else "")
            raise NpllmError(f"More than one id begins with {beginning}: {named}.")
        return ids[0]

    async def with_words(
        self, words: Sequence[str], *, language: str | None, project: str | None, limit: int
    ) -> list[Hit]:
        """Experiences that hold every word, in any case, the newest first."""

        async def operation(connection: Connection) -> list[Hit]:
            found = QUERIES.experiences_with_words(
                connection, words=[rows.text(word) for word in words], language=language, project=project, limit=limit
            )
            return [Hit(rows.experience(row)) async for row in found]

        return await self._database.run(operation)

    async def nearest(
        self, embedding: Sequence[float], *, language: str | None, project: str | None, limit: int
    ) -> list[Hit]:
        """Experiences most like a text, by its embedding; the likest first."""

        async def operation(connection: Connection) -> list[Hit]:
            found = QUERIES.experiences_nearest(
                connection, embedding=rows.vector(embedding), language=language, project=project, limit=limit
            )
            return [Hit(rows.experience(row), 1.0 - row["distance"]) async for row in found]

        return await self._database.run(operation)

    async def records(self) -> AsyncIterator[JournalRecord]:
        """Everything that was recorded, kind by kind in the order of time, page by page; without embeddings.

        Suggestions come first: what else there is belongs to them.
        """
        kinds: tuple[tuple[str, Callable[[rows.Row], JournalRecord]], ...] = (
            ("suggestions_after", rows.suggestion),
            ("outcomes_after", outcome),
            ("feedback_after", feedback),
            ("experiences_after", rows.experience),
            ("held_back_after", held_back),
            ("signs_after", sign),
        )
        for query, build in kinds:
            after = UUID(int=0)
            while page := await self._page(query, after):
                for row in page:
                    yield build(row)
                after = rows.uuid(page[-1]["id"])

    async def _page(self, query: str, after: UUID) -> list[rows.Row]:
        async def operation(connection: Connection) -> list[rows.Row]:
            return [row async for row in getattr(QUERIES, query)(connection, after=after, limit=PAGE)]

        return await self._database.run(operation)

    async def sizes(self) -> Sizes:
        async def operation(connection: Connection) -> Sizes:
            span = await QUERIES.experience_span(connection)
            return Sizes(
                {row["name"]: row["bytes"] async for row in QUERIES.table_sizes(connection)},
                await QUERIES.database_size(connection),
                {
                    (row["language"], row["decision"]): row["count"]
                    async for row in QUERIES.experience_groups(connection)
                },
                {row["project"]: row["count"] async for row in QUERIES.project_counts(connection)},
                span["first"],
                span["last"],
                span["unembedded"],
            )

        return await self._database.run(operation)


def outcome(row: rows.Row) -> Outcome:
    return Outcome(
        id=rows.uuid(row["id"]),
        suggestion_id=rows.uuid(row["suggestion_id"]),
        kind=OutcomeKind(row["kind"]),
        suggested=row["suggested"],
        final_text=row["final_text"],
        survival=row["survival"],
        implicit=row["implicit"],
        created_at=row["created_at"],
        revision=row["revision"],
        final=row["final"],
        occasion=row["occasion"],
        detail=row["detail"],
        weight=row["weight"],
        typed=row["typed"],
        seen_s=row["seen_s"],
    )


def feedback(row: rows.Row) -> Feedback:
    return Feedback(
        id=rows.uuid(row["id"]),
        suggestion_id=rows.uuid(row["suggestion_id"]),
        emoji=row["emoji"],
        comment=row["comment"],
        satisfaction=row["satisfaction"],
        confidence=row["confidence"],
        frustration=row["frustration"],
        reward=row["reward"],
        created_at=row["created_at"],
        read_by=row["read_by"],
    )


def sign(row: rows.Row) -> Sign:
    return Sign(
        id=rows.uuid(row["id"]),
        suggestion_id=rows.uuid(row["suggestion_id"]),
        kind=SignKind(row["kind"]),
        strength=row["strength"],
        place=rows.place(row),
        created_at=row["created_at"],
    )


def held_back(row: rows.Row) -> HeldBack:
    return HeldBack(
        suggestion_id=rows.uuid(row["suggestion_id"]),
        place=rows.place(row),
        chance=row["chance"],
        threshold=row["threshold"],
        size=row["size"],
        mean_logprob=row["mean_logprob"],
        source=row["source"],
        created_at=row["created_at"],
    )

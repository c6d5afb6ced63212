"""What became of the suggestions, in figures: one question to PostgreSQL, grouped in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from npllm.memory.database import QUERIES, Connection, Database

DIMENSIONS = ("language", "project", "version", "day")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one group of suggestions. Characters are without white space.

    Attributes:
        name: the language, the project's path, the version's id ("" = no version), the day (YYYY-MM-DD), or "".
        context: of a version: its context, "cerebellum", or "" where it is not known (any more).
        offered: all of them.
        seen: on screen long enough, and not continued by the next one; only these can be taken.
        taken: by a key, in whole or in part, whatever became of them.
        typed: written out by hand, letter by letter.
        deleted: of those taken, thrown away again.
        characters_kept: of those taken, as many as still stood at the last look.
    """

    name: str
    context: str
    offered: int
    seen: int
    taken: int
    typed: int
    deleted: int
    characters_seen: int
    characters_taken: int
    characters_kept: int

    @property
    def acceptance(self) -> float | None:
        """Taken, of those seen: [0, 1]; None where none was seen."""
        return self.taken / self.seen if self.seen else None

    @property
    def retention(self) -> float | None:
        """Characters that still stand, of those taken: [0, 1]; None where none was taken."""
        return self.characters_kept / self.characters_taken if self.characters_taken else None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of all suggestions since a moment (None = ever); the groups by `DIMENSIONS`, most first, days newest first."""

    since: datetime | None
    total: Figures
    groups: dict[str, tuple[Figures, ...]]


class Statistician:
    """The part of the store that counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, since: datetime | None, offset: timedelta = timedelta(0)) -> Statistics:
        """The figures of this database user's suggestions.

        Args:
            since: made then or later; None = ever.
            offset: of local time from UTC; days begin by it.
        """

        async def operation(connection: Connection) -> list[tuple[str, Figures]]:
            found = QUERIES.statistics(connection, since=since, offset=offset)
            return [(row["dimension"], _figures(row)) async for row in found]

        rows = await self._database.run(operation)
        groups = {name: tuple(made for dimension, made in rows if dimension == name) for name in DIMENSIONS}
        total = next(made for dimension, made in rows if dimension == "all")
        return Statistics(since, total, groups)


def _figures(row: dict[str, object]) -> Figures:
    values = {name: row[name] for name in Figures.__dataclass_fields__}
    counts = {name: round(value) for name, value in values.items() if isinstance(value, int | float)}
    return Figures(**{**values, **counts})  # type: ignore[arg-type]

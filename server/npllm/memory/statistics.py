"""What became of the suggestions, in figures: one question to PostgreSQL, grouped in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

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
class PacingFigures:
    """What was held back, and how the estimated chances fare; of suggestions that were seen.

    Attributes:
        held_back: made and not shown, because they were unlikely to be taken.
        estimated: those with an estimated chance.
        estimated_taken: of these, taken or typed out.
        expected_taken: as many as the chances add up to.
        audited: of these, shown although the chance was too small.
        audited_taken: of those, taken or typed out.
    """

    held_back: int
    estimated: int
    estimated_taken: int
    expected_taken: float
    audited: int
    audited_taken: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of what was taken as a whole still stood at one time.

    Attributes:
        occasion: "15 s" ... "600 s" after it was taken, "save" (the first one), "commit" (the first one).
        texts: so many were followed for so long.
        characters: of these.
        characters_kept: of those, still there.
    """

    occasion: str
    texts: int
    characters: int
    characters_kept: int


@dataclass(frozen=True, slots=True)
class Stages:
    """Through which states suggestions came, and where each is by the last word about it.

    Attributes:
        requested: requests that were made for them, also those that were answered with nothing.
        asked: suggestions that a key of the person's own asked for.
        offered: given to the editor.
        seen: on screen long enough, and not continued by the next one.
        typed_along: of which the person typed something while they were on screen.
        ends: (kind, how it came about, how many); no kind = nothing is known yet.
    """

    requested: int
    asked: int
    offered: int
    seen: int
    typed_along: int
    ends: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Moods:
    """How often the person said something, and what; and signs of frustration in what they did, apart from that.

    Attributes:
        glad, frustrated, neither: by the emotional reward.
        refusals: five in a row, ten ...
        undo_storms: five undos within ten seconds.
    """

    glad: int
    frustrated: int
    neither: int
    refusals: int
    undo_storms: int


@dataclass(frozen=True, slots=True)
class Past:
    """A suggestion that was seen: what was known of it before, and whether it was taken (also by typing it out)."""

    text: str
    mean_logprob: float
    language: str
    source: str
    prefix: str  # the last 200 characters
    suffix: str  # the first 200 characters
    taken: bool


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of all suggestions since a moment (None = ever); the groups by `DIMENSIONS`, most first, days newest first."""

    since: datetime | None
    total: Figures
    groups: dict[str, tuple[Figures, ...]]
    pacing: PacingFigures
    standing: tuple[Standing, ...]
    stages: Stages
    moods: Moods


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

        async def operation(connection: Connection) -> Statistics:
            found = QUERIES.statistics(connection, since=since, offset=offset)
            figures = [(row["dimension"], _figures(row)) async for row in found]
            groups = {name: tuple(made for dimension, made in figures if dimension == name) for name in DIMENSIONS}
            total = next(made for dimension, made in figures if dimension == "all")
            pacing = PacingFigures(**dict(await QUERIES.pacing(connection, since=since)))
            looks = QUERIES.standing(connection, since=since)
            standing = [
                Standing(row["occasion"], row["texts"], row["characters"], round(row["characters_kept"]))
                async for row in looks
            ]
            ends = [(r["kind"], r["detail"], r["count"]) async for r in QUERIES.ends(connection, since=since)]
            stages = Stages(**dict(await QUERIES.stages(connection, since=since)), ends=tuple(ends))
            moods = Moods(**dict(await QUERIES.moods(connection, since=since)))
            return Statistics(since, total, groups, pacing, tuple(standing), stages, moods)

        return await self._database.run(operation)

    async def history(self, limit: int) -> list[Past]:
        """What was seen and what became of it, oldest first: of the newest ones so many."""

        async def operation(connection: Connection) -> list[Past]:
            return [_past(row) async for row in QUERIES.history(connection, limit=limit)]

        return await self._database.run(operation)


def _past(row: dict[str, Any]) -> Past:
    return Past(**{name: row[name] for name in Past.__dataclass_fields__})


def _figures(row: dict[str, object]) -> Figures:
    values = {name: row[name] for name in Figures.__dataclass_fields__}
    counts = {name: round(value) for name, value in values.items() if isinstance(value, int | float)}
    return Figures(**{**values, **counts})  # type: ignore[arg-type]

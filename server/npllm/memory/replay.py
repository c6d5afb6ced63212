"""What PostgreSQL knows for replay and for judging: old experiences by priority, surprises, what is kept apart.

Reached as `store.replay`. The equations and their constants are sleep's; here they are parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.types import Experience

LINE_TAIL = 2000  # characters above the cursor, of what is only compared with


@dataclass(frozen=True, slots=True)
class Drawn:
    """An old experience as it was drawn.

    Attributes:
        priority: p_i.
        mass: p_i ^ alpha; its share of all masses is the chance to be drawn first.
        key: -ln(u) / mass; the smaller, the earlier it was drawn.
        session: which stretch of work without a long pause it is from.
        size: N, how many there are to draw from.
    """

    experience: Experience
    priority: float
    mass: float
    key: float
    session: int
    size: int


@dataclass(frozen=True, slots=True)
class Slice:
    """What an earlier sleep held out: the version that was judged by it first, when, and (some of) the texts."""

    version_id: UUID
    held_at: datetime
    experiences: tuple[Experience, ...] = ()


class ReplayRecords:
    """The tables `replay` and `held_out`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def draw(
        self,
        context: str,
        base_fingerprint: str,
        before: datetime,
        *,
        seed: str,
        limit: int,
        alpha: float,
        epsilon: float,
        low: float,
        discard: float,
        pause_s: float,
        exclude: Sequence[UUID] = (),
        everywhere: bool = False,
    ) -> list[Drawn]:
        """The first `limit` of a context's old experiences in the order in which they are drawn.

        Args:
            before: younger ones are not old.
            everywhere: of all contexts; `context` only says whose surprises count, and from whom things are kept apart.
            seed: another one draws others.
            alpha, epsilon, low, discard, pause_s: see `npllm.sleep.replay`.
            exclude: these are not to be drawn.
        """
        found = await self._all(
            "draw_experiences",
            context=context,
            belongs=[] if everywhere else [context],
            base_fingerprint=base_fingerprint,
            before=before,
            seed=seed,
            limit=limit,
            alpha=alpha,
            epsilon=epsilon,
            low=low,
            discard=discard,
            pause_s=pause_s,
            exclude=list(exclude),
        )
        return [
            Drawn(rows.experience(row), row["priority"], row["mass"], row["key"], int(row["session"]), row["size"])
            for row in found
        ]

    async def note_surprise(self, context: str, base_fingerprint: str, surprise: Mapping[UUID, float]) -> None:
        """Write down the surprise (nats per byte) of experiences; of those that are gone, nothing."""
        values = [
            {"id": id, "context": context, "base_fingerprint": base_fingerprint, "surprise": value}
            for id, value in sorted(surprise.items())
        ]
        if not values:
            return

        async def operation(connection: Connection) -> None:
            await QUERIES.note_surprise(connection, values)

        await self._database.run(operation)

    async def slices(self, context: str) -> list[Slice]:
        """The earlier sleeps that held something out, newest first, without the texts."""
        found = await self._all("held_out_slices", context=context)
        return [Slice(rows.uuid(row["version_id"]), row["held_at"]) for row in found]

    async def texts_of(self, context: str, slices: Sequence[Slice], *, most: int) -> list[Slice]:
        """Slices with their texts: of each the first `most` by the SHA-256 of their ids, so always the same ones."""
        wanted = [item.version_id for item in slices]
        found = await self._all("held_out_of", context=context, versions=wanted, most=most)
        texts: dict[UUID, list[Experience]] = {}
        for row in found:
            texts.setdefault(rows.uuid(row["version_id"]), []).append(rows.experience(row))
        return [replace(item, experiences=tuple(texts.get(item.version_id, ()))) for item in slices]

    async def apart(self, context: str, *, limit: int) -> list[Experience]:
        """What is kept apart to judge by, newest first: the end of what stood above, the text, nothing below."""
        found = await self._all("held_out_lines", context=context, limit=limit, tail=LINE_TAIL)
        return [rows.experience(row) for row in found]

    async def _all(self, name: str, **parameters: Any) -> list[rows.Row]:
        async def operation(connection: Connection) -> list[rows.Row]:
            return [row async for row in getattr(QUERIES, name)(connection, **parameters)]

        return await self._database.run(operation)

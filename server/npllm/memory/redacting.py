"""Looking for secrets in what earlier versions stored, with the patterns of this one; and replacing them.

Page by page, each in a transaction of its own: the rows, and the versions that had learned from them, which are taken
out of use as in forgetting. So it may be killed at any moment and is done when it is said again; what files hold is
left to `scrubbing`. Call with the trainer's lock held.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.memory.forgetting import ANNOUNCED, Tainted, Version, take_out_of_use
from npllm.memory.looking import PAGE, feedback, outcome
from npllm.memory.places import Selector, texts
from npllm.memory.redaction import Redactor, redact
from npllm.memory.secret_shapes import PLACEHOLDER
from npllm.types import JournalRecord, Outcome, new_id

_Pair = tuple[JournalRecord, JournalRecord]  # with secrets, and without
_PLACED = re.compile(re.escape(PLACEHOLDER) + r"([a-z0-9-]+)>")


@dataclass(slots=True)
class Redacted:
    """What was found.

    Attributes:
        rows: changed, or deleted where they are derived, by table.
        kinds: secrets by kind.
        tainted: versions that had learned from them; back: versions that came back into use.
    """

    rows: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    tainted: list[Version] = field(default_factory=list)
    back: list[Version] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of record: its pages, its rows, the columns that hold text, whose case it is."""

    table: str
    build: Callable[[rows.Row], JournalRecord]
    columns: tuple[str, ...]
    case: str


# Outcomes before suggestions: what a secret in one begins with may stand in the suggestion that it is about.
KINDS = (
    _Kind("outcomes", outcome, ("suggested", "final_text"), "suggestion_id"),
    _Kind("suggestions", rows.suggestion, ("text", "prefix", "suffix"), "id"),
    _Kind("feedback", feedback, ("comment",), "suggestion_id"),
    _Kind("experiences", rows.experience, ("prefix", "suffix", "suggested", "final_text"), "id"),
)


class Redacting:
    """The part of the store that looks for secrets once more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, *, tainted: Tainted, usable: Callable[[Version], bool], dry_run: bool = False) -> Redacted:
        """Look through all that is stored, and replace what is found.

        Args:
            tainted, usable: as of `Forgetting.forget`.
            dry_run: only say what would be replaced.

        Raises:
            StoreError: the database is away; what was done is done.
        """
        found = Redacted()
        for kind in KINDS:
            async for page in self._pages(kind.table):
                records = [kind.build(row) for row in page]
                around = await self.around({one.suggestion_id for one in records if isinstance(one, Outcome)})
                changed = await asyncio.to_thread(_changed, records, around)
                if changed and not dry_run:
                    changed = await self._write(kind, changed, found, tainted, usable)
                if not changed:
                    continue
                for before, after in changed:
                    found.kinds += _kinds(after) - _kinds(before)
                found.rows[kind.table] += len(changed)
        await self._patterns(found, dry_run)
        await self._index(found, dry_run)
        return found

    async def _pages(self, table: str) -> AsyncIterator[list[rows.Row]]:
        after = UUID(int=0)
        while page := await self._page(table, after):
            yield page
            after = rows.uuid(page[-1]["id"])

    async def _page(self, table: str, after: UUID) -> list[rows.Row]:
        async def operation(connection: Connection) -> list[rows.Row]:
            return [row async for row in getattr(QUERIES, f"{table}_after")(connection, after=after, limit=PAGE)]

        return await self._database.run(operation)

    async def around(self, ids: Collection[UUID]) -> list[JournalRecord]:
        """The suggestions that outcomes are about: a secret may begin before them."""
        if not ids:
            return []

        async def operation(connection: Connection) -> list[JournalRecord]:
            return [rows.suggestion(row) async for row in QUERIES.suggestions_named(connection, ids=list(ids))]

        return await self._database.run(operation)

    async def _write(
        self,
        kind: _Kind,
        changed: Sequence[_Pair],
        found: Redacted,
        tainted: Tainted,
        usable: Callable[[Version], bool],
    ) -> list[_Pair]:
        """Write them, and take out of use what learned from them; those that were written."""

        async def operation(connection: Connection) -> tuple[list[_Pair], list[Version], list[Version]]:
            await QUERIES.lock_versions(connection)
            now = await _held(connection, changed) if kind.table == "experiences" else list(changed)
            if not now:
                return [], [], []
            after = [record for _, record in now]
            values = [
                {"id": _id(one), **{name: rows.text(getattr(one, name)) for name in kind.columns}} for one in after
            ]
            await getattr(QUERIES, f"redact_{kind.table}")(connection, values)
            ids = frozenset(getattr(one, kind.case) for one in after)
            first = min(one.created_at for one in after)
            gone, back = await take_out_of_use(connection, ids, tainted, usable, Selector(), first)
            await QUERIES.begin_forgetting(connection, id=act)
            await QUERIES.announce(connection, id=ANNOUNCED)
            return now, gone, back

        act = new_id()
        now, gone, back = await self._database.run(operation)
        found.tainted += gone
        found.back += back
        return now

    async def _patterns(self, found: Redacted, dry_run: bool) -> None:
        """What the cerebellum knows by heart: a pattern with a secret is deleted; the next sleep makes them anew."""

        async def read(connection: Connection) -> list[Mapping[str, Any]]:
            return [dict(row) async for row in QUERIES.every_pattern(connection)]

        patterns = await self._database.run(read)
        bad = await asyncio.to_thread(lambda: [p for p in patterns if redact(p["text"], p["language"]) != p["text"]])
        if not bad:
            return
        found.rows["patterns"] += len(bad)

        async def delete(connection: Connection) -> None:
            await QUERIES.delete_patterns(connection, [{"language": p["language"], "hash": p["hash"]} for p in bad])

        if not dry_run:
            await self._database.run(delete)

    async def _index(self, found: Redacted, dry_run: bool) -> None:
        """Chunks of the projects' code: those with a secret are deleted, and their files are read again."""
        after = b""
        while True:

            async def read(connection: Connection, after: bytes = after) -> list[rows.Row]:
                return [row async for row in QUERIES.chunk_texts_after(connection, after=after, limit=PAGE)]

            page = await self._database.run(read)
            if not page:
                return
            after = bytes(page[-1]["hash"])
            bad = await asyncio.to_thread(_with_secrets, page)
            if bad:
                found.rows["chunks"] += len(bad)
            if bad and not dry_run:

                async def delete(connection: Connection, bad: list[bytes] = bad) -> None:
                    await QUERIES.lock_memory(connection)
                    await QUERIES.read_again(connection, hashes=bad)
                    await QUERIES.drop_chunks_by_hash(connection, hashes=bad)
                    await QUERIES.drop_texts(connection, hashes=bad)
                    await QUERIES.announce(connection, id=ANNOUNCED)

                await self._database.run(delete)


def _with_secrets(page: Sequence[rows.Row]) -> list[bytes]:
    return [bytes(row["hash"]) for row in page if redact(row["content"], row["language"]) != row["content"]]


async def _held(connection: Connection, changed: Sequence[_Pair]) -> list[_Pair]:
    """Experiences and what is to replace them, as they are now, until the transaction ends."""
    pairs = {_id(before): (before, after) for before, after in changed}
    now: list[_Pair] = []
    later: list[JournalRecord] = []
    async for row in QUERIES.experiences_held(connection, ids=list(pairs)):
        record = rows.experience(row)
        if texts(record) == texts(pairs[record.id][0]):
            now.append(pairs[record.id])
        else:
            later.append(record)
    return now + (await asyncio.to_thread(_changed, later, ()) if later else [])


def _changed(records: Sequence[JournalRecord], around: Sequence[JournalRecord]) -> list[_Pair]:
    """The records that hold secrets, and as they are without."""
    redactor = Redactor()
    for suggestion in around:
        redactor.record(suggestion)
    pairs = ((record, redactor.record(record)) for record in records)
    return [(before, after) for before, after in pairs if texts(before) != texts(after)]


def _kinds(record: JournalRecord) -> Counter[str]:
    return Counter(kind for text in texts(record) for kind in _PLACED.findall(text))


def _id(record: JournalRecord) -> UUID:
    id: UUID = record.id  # type: ignore[union-attr]
    return id

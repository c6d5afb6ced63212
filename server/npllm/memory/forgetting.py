"""Forgetting in the database: rows, and the versions that had learned from them, in one transaction.

After it nothing of what was forgotten is served, or comes back from a journal (the table `forgotten`). What files still
hold is removed by `scrubbing`, which may be killed and runs again to its end. Knows the tables of versions by their
columns, whatever kind of model they are of; what a version learned is told by the caller, who reads manifests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.memory.places import Selector, covered, names
from npllm.types import VersionState, new_id

ANNOUNCED = "forgotten"  # told to those who listen for versions
GROUP = ("context", "base_fingerprint", "origin")  # columns that say which versions stand in for one another
KEPT_WORDS = ("base_fingerprint", "context", "verdict", "version", "parent", "kind", "date")  # of a report
PROJECT = "project:"
TABLES = (
    *("suggestions", "outcomes", "feedback", "held_back", "signs", "experiences", "consolidations"),
    *("chunks", "chunk_texts", "indexed_files", "projects"),
)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of any kind, as far as forgetting goes. `group`: those with the same one stand in for one another."""

    table: str
    id: UUID
    parent: UUID | None
    consolidation: UUID
    folder: str
    state: str
    group: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was forgotten, or would be.

    Attributes:
        counts: rows by table.
        waiting: suggestions in journals that have not reached the database.
        tainted: versions that had learned from it, and their descendants.
        back: versions that came back into use.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0
    tainted: tuple[Version, ...] = ()
    back: tuple[Version, ...] = ()

    @property
    def nothing(self) -> bool:
        return not any(self.counts.values()) and not self.waiting and not self.tainted


Tainted = Callable[[Sequence[Version], frozenset[UUID]], Collection[UUID]]


class _OnlyLooking(Exception):  # takes the transaction back, and the answer along
    def __init__(self, found: Forgotten) -> None:
        self.found = found


class Forgetting:
    """The part of the store that forgets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget(
        self,
        selector: Selector,
        *,
        tainted: Tainted,
        usable: Callable[[Version], bool],
        in_journals: Collection[UUID] = (),
        keep_out: bool = True,
        dry_run: bool = False,
    ) -> Forgotten:
        """Delete what is meant, take what learned from it out of use, and announce that; all of it or nothing.

        Args:
            tainted: which versions learned from any of these suggestions, or from files that are meant.
            usable: whether a version's files are whole, so that it may come back into use.
            in_journals: suggestions that are meant and may not have reached the database.
            keep_out: put the paths that are meant off limits.
            dry_run: only say what would happen.
        """

        async def operation(connection: Connection) -> Forgotten:
            await QUERIES.lock_versions(connection)
            await QUERIES.lock_memory(connection)
            ids, first = await _meant(connection, selector)
            known_already = [row async for row in QUERIES.forgotten_among(connection, ids=list(in_journals))]
            waiting = set(in_journals) - ids - {rows.uuid(row["id"]) for row in known_already}
            ids |= set(in_journals)
            found = await _delete(connection, ids)
            found["chunks"] = await _delete_chunks(connection, selector, kept_out=keep_out and bool(selector.limits))
            kept_out = [rows.text(path) for path in selector.limits] if keep_out else []
            await QUERIES.delete_unused_projects(connection, limits=kept_out)
            gone, back = await take_out_of_use(connection, frozenset(ids), tainted, usable, selector, first)
            for path in kept_out:
                await QUERIES.put_off_limits(connection, path=path)
            result = Forgotten(found, len(waiting), tuple(gone), tuple(back))
            if dry_run:
                raise _OnlyLooking(result)
            await QUERIES.begin_forgetting(connection, id=run)
            await QUERIES.announce(connection, id=ANNOUNCED)
            return result

        run = new_id()
        try:
            return await self._database.run(operation)
        except _OnlyLooking as looked:
            return looked.found

    async def forgotten_among(self, ids: Iterable[UUID]) -> frozenset[UUID]:
        """Those of these suggestions that were forgotten."""
        asked = list(ids)

        async def operation(connection: Connection) -> frozenset[UUID]:
            found = [row async for row in QUERIES.forgotten_among(connection, ids=asked)]
            return frozenset(rows.uuid(row["id"]) for row in found)

        return await self._database.run(operation) if asked else frozenset()

    async def off_limits(self) -> tuple[str, ...]:
        """Files and folders from which nothing is learned."""

        async def operation(connection: Connection) -> tuple[str, ...]:
            return tuple([row["path"] async for row in QUERIES.off_limits(connection)])

        return await self._database.run(operation)

    async def remember(self, path: str) -> int:
        """Let a path be learned from again; how many entries that took away."""

        async def operation(connection: Connection) -> int:
            await QUERIES.announce(connection, id=ANNOUNCED)
            return sum([await QUERIES.take_off_limits(connection, path=name) for name in names(path)])

        return await self._database.run(operation)

    # -- what files still hold ---------------------------------------------------------------------------------

    async def unfinished(self) -> bool:
        """Whether files may still hold something of what was forgotten."""

        async def operation(connection: Connection) -> bool:
            return bool(await QUERIES.unfinished_forgettings(connection))

        return await self._database.run(operation)

    async def last(self) -> datetime | None:
        """When something was forgotten last; None: never."""

        async def operation(connection: Connection) -> datetime | None:
            found: datetime | None = await QUERIES.last_forgetting(connection)
            return found

        return await self._database.run(operation)

    async def finished(self) -> None:
        """Nothing is left in files."""

        async def operation(connection: Connection) -> None:
            await QUERIES.finish_forgettings(connection)

        await self._database.run(operation)

    async def folders(self) -> list[str]:
        """Of forgotten versions, relative to the data folder."""

        async def operation(connection: Connection) -> list[str]:
            found = await _versions(connection)
            return [version.folder for version in found if version.state == VersionState.FORGOTTEN.value]

        return await self._database.run(operation)

    async def emptied_reports(self) -> list[UUID]:
        """Sleeps whose reports were emptied of words."""

        async def operation(connection: Connection) -> list[UUID]:
            found = [row async for row in QUERIES.reports(connection)]
            return [rows.uuid(row["id"]) for row in found if json.loads(row["report"]).get("forgotten")]

        return await self._database.run(operation)

    async def vacuum(self, timeout_s: float = 60.0) -> None:
        """Make the database give deleted rows' pages back, as far as this user may and nobody is in the way.

        Raises:
            asyncpg.PostgresError, OSError: it did not go all the way.
        """
        async with self._database.own_connection() as connection:
            await connection.execute("SET lock_timeout = '5s'")
            for table in TABLES:
                await connection.execute(f"VACUUM (FULL) {table}", timeout=timeout_s)
                await connection.execute(f"VACUUM {table}", timeout=timeout_s)  # now an index alone can be read again


async def _meant(connection: Connection, selector: Selector) -> tuple[set[UUID], datetime | None]:
    """Ids of the suggestions that are meant, and when the first of them was made."""
    with_text: set[int] | None = None
    if selector.text:
        with_text = {row["id"].int async for row in QUERIES.ids_with_text(connection, text=rows.text(selector.text))}
    ids: set[UUID] = set()
    first: datetime | None = None
    known: dict[tuple[str, str, str], bool] = {}
    every: set[int] = set()
    async for row in QUERIES.cases(connection):
        every.add(row["id"].int)
        if with_text is not None and row["id"].int not in with_text:
            continue
        if selector.since is not None and row["created_at"] < selector.since:
            continue
        place = (row["project"], row["path"], row["uri"])
        if place not in known:
            known[place] = selector.takes_place(*place)
        if known[place]:
            ids.add(rows.uuid(row["id"]))
            first = min(first or row["created_at"], row["created_at"])
    if with_text is not None and selector.since is None and not (selector.path or selector.project):
        ids |= {UUID(int=id) for id in with_text - every}  # outcomes and feedback of a suggestion that never arrived
    return ids, first


async def take_out_of_use(
    connection: Connection,
    ids: frozenset[UUID],
    tainted: Tainted,
    usable: Callable[[Version], bool],
    selector: Selector,
    first: datetime | None = None,
) -> tuple[list[Version], list[Version]]:
    """Versions that learned from these suggestions, with all that grew from them; and those that came back for them.

    Args:
        first: sleeps that ended later may have seen what is meant: their reports lose their words, too.
    """
    versions = await _versions(connection)
    known = {version.id: version for version in versions}
    gone = _with_descendants(versions, frozenset(tainted(versions, ids)))
    back = [older for id in gone if (older := _ancestor(known[id], known, gone, usable)) and _in_use(known[id])]
    await _taint(connection, [known[id] for id in gone], back, selector)
    sleeps = {known[id].consolidation for id in gone}
    await _empty_reports(connection, sleeps, first, selector)
    return [known[id] for id in gone], back


async def _versions(connection: Connection) -> list[Version]:
    found = []
    for table in [dict(row) async for row in QUERIES.version_tables(connection)]:
        has = dict(zip(GROUP, (table["has_context"], table["has_base"], table["has_origin"]), strict=True))
        columns = ["id", "parent", "consolidation_id", "folder", "state", *(name for name in GROUP if has[name])]
        query = f'SELECT {", ".join(columns)} FROM "{table["name"]}" WHERE owner = current_user ORDER BY created_at'
        for row in await connection.fetch(query):
            group = tuple(f"{name}={row[name]}" for name in GROUP if has[name])
            parent = None if row["parent"] is None else rows.uuid(row["parent"])
            sleep = rows.uuid(row["consolidation_id"])
            found.append(
                Version(table["name"], rows.uuid(row["id"]), parent, sleep, row["folder"], row["state"], group)
            )
    return found


def _with_descendants(versions: Sequence[Version], tainted: frozenset[UUID]) -> list[UUID]:
    """Those that are not forgotten yet, and all that grew from them; oldest first."""
    found = set(tainted)
    while grown := {version.id for version in versions if version.parent in found} - found:
        found |= grown
    forgotten = VersionState.FORGOTTEN.value
    return [version.id for version in versions if version.id in found and version.state != forgotten]


def _in_use(version: Version) -> bool:
    return version.state == VersionState.PUBLISHED.value


def _ancestor(
    version: Version, known: Mapping[UUID, Version], gone: Collection[UUID], usable: Callable[[Version], bool]
) -> Version | None:
    """The newest of its line that may take its place."""
    seen = {version.id}
    older = known.get(version.parent) if version.parent else None
    while older is not None and older.id not in seen:
        seen.add(older.id)
        fits = older.group == version.group and older.table == version.table
        if fits and older.id not in gone and older.state == VersionState.RETIRED.value and usable(older):
            return older
        older = known.get(older.parent) if older.parent else None
    return None


async def _delete(connection: Connection, ids: Collection[UUID]) -> dict[str, int]:
    listed = list(ids)
    if listed:
        await QUERIES.remember_forgotten(connection, ids=listed)
    counts = {
        "suggestions": await QUERIES.delete_suggestions(connection, ids=listed),
        "outcomes": await QUERIES.delete_outcomes(connection, ids=listed),
        "feedback": await QUERIES.delete_feedback(connection, ids=listed),
        "experiences": await QUERIES.delete_experiences(connection, ids=listed),
        "signs": await QUERIES.delete_signs(connection, ids=listed),
        "held back": await QUERIES.delete_held_back(connection, ids=listed),
    }
    await QUERIES.delete_pruned(connection, ids=listed)
    return counts


async def _delete_chunks(connection: Connection, selector: Selector, *, kept_out: bool) -> int:
    """Delete what the index holds of what is meant, and every text that no file holds; how many chunks that were.

    Where their files are not kept out from now on, the chunks themselves are: as they are, they do not come back.
    """
    files = {
        row["id"]
        async for row in QUERIES.index_places(connection)
        if selector.takes_place(row["project"], row["path"], "")
        and (selector.since is None or row["changed_at"] >= selector.since)
    }
    if selector.text:
        holding = QUERIES.chunks_with_text(connection, text=rows.text(selector.text))
        hashes = {bytes(row["hash"]) async for row in holding if row["file_id"] in files}
    else:
        held = QUERIES.chunks_of(connection, ids=list(files))
        hashes = {bytes(row["hash"]) async for row in held}
    if not kept_out:
        await QUERIES.remember_forgotten_chunks(connection, hashes=list(hashes))
        count: int = await QUERIES.drop_chunks_by_hash(connection, hashes=list(hashes))
    else:
        count = await QUERIES.count_chunks(connection, ids=list(files))
        await QUERIES.drop_files(connection, ids=list(files))
    await QUERIES.drop_unused_texts(connection)
    return count


async def _taint(connection: Connection, gone: Sequence[Version], back: Sequence[Version], selector: Selector) -> None:
    """Take versions out of use for good, derived rows with them; put others back."""
    derived = await connection.fetch(
        "SELECT table_name::text AS name FROM information_schema.columns WHERE table_schema = 'npllm' "
        "AND column_name = 'version_id'"
    )
    reason = f"Forgotten on purpose on {datetime.now(UTC):%Y-%m-%d}: it had learned from what was forgotten."
    for version in gone:
        await connection.execute(
            f'UPDATE "{version.table}" SET state = $2, reason = $3 WHERE owner = current_user AND id = $1',
            version.id,
            VersionState.FORGOTTEN.value,
            reason,
        )
        for context in (name.removeprefix("context=") for name in version.group if name.startswith("context=")):
            await connection.execute(
                f'UPDATE "{version.table}" SET context = $2 WHERE owner = current_user AND id = $1',
                version.id,
                _public(context, selector),
            )
        await QUERIES.pin_version(connection, id=version.id, pinned=False)
        for table in derived:
            await connection.execute(
                f'DELETE FROM "{table["name"]}" WHERE owner = current_user AND version_id = $1', version.id
            )
    for version in back:
        await connection.execute(
            f'UPDATE "{version.table}" SET state = $2 WHERE owner = current_user AND id = $1',
            version.id,
            VersionState.PUBLISHED.value,
        )


def _public(context: str, selector: Selector) -> str:
    """A context's name, without the path of a project that is forgotten."""
    path = context.removeprefix(PROJECT)
    limits = frozenset(name for given in (selector.path, selector.project) if given for name in names(given))
    return PROJECT + "forgotten" if path != context and covered(names(path), limits) else context


async def _empty_reports(
    connection: Connection, sleeps: Collection[UUID], first: datetime | None, selector: Selector
) -> None:
    """Take the words out of the reports of sleeps that may have seen what is forgotten; the numbers stay."""
    for row in [dict(row) async for row in QUERIES.reports(connection)]:
        id = rows.uuid(row["id"])
        late = first is not None and (row["ended_at"] is None or row["ended_at"] >= first)
        if id in sleeps or late:
            report = {**_wordless(json.loads(row["report"]), selector), "forgotten": True}
            await QUERIES.replace_report(connection, id=id, report=rows.to_json(report))


def _wordless(value: Any, selector: Selector, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _wordless(item, selector, name) for name, item in value.items()}
    if isinstance(value, list):
        return [kept for item in value if (kept := _wordless(item, selector)) != ""]
    if isinstance(value, str):
        return _public(value, selector) if key in KEPT_WORDS else ""
    return value

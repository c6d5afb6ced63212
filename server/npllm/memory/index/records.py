"""The index in PostgreSQL: files as they were read, where their chunks lie, and what the chunks say, once each.

Everything is of the present database user alone. Every write is idempotent and waits for a forgetting that goes on,
then leaves out what is off limits by then.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection, Database
from npllm.memory.embeddings import Embeddings
from npllm.memory.places import covered, paths_of
from npllm.memory.similarity import CANDIDATES, EXACT_BELOW

ANNOUNCED = "index:"  # and the project's number; told to those who listen for versions


@dataclass(frozen=True, slots=True)
class State:
    """A file as it was read: its time in nanoseconds, its size, and by which way of reading."""

    mtime_ns: int
    size: int
    made_by: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a file; see `chunks.Chunk`."""

    hash: bytes
    line: int
    symbol: str
    content: str
    terms: bytes


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read, and its chunks."""

    path: str
    language: str
    state: State
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Lying:
    """Where a chunk lies, and its terms."""

    hash: bytes
    path: str
    terms: bytes


@dataclass(frozen=True, slots=True)
class Near:
    """A chunk that resembles a query; `similarity` is the cosine."""

    hash: bytes
    path: str
    similarity: float


class ChunkRecords:
    """The part of the store that holds the index. `embeddings`: knows whose vectors are in use."""

    def __init__(self, database: Database, embeddings: Embeddings) -> None:
        self._database = database
        self._embeddings = embeddings

    # -- what the indexing process says ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def claim(self) -> AsyncIterator[Claims]:
        """Projects can be claimed, each by one process, until the block ends."""
        async with self._database.own_connection() as connection:
            yield Claims(connection)

    async def known(self, project: str) -> dict[str, State]:
        """The files that are indexed, by path."""

        async def operation(connection: Connection) -> dict[str, State]:
            row = await QUERIES.indexed_project(connection, project=rows.text(project))
            if row is None:
                return {}
            found = QUERIES.indexed_files(connection, project_id=row["id"])
            return {one["path"]: State(one["mtime_ns"], one["size"], one["made_by"]) async for one in found}

        return await self._database.run(operation)

    async def kept(self, project: str) -> int:
        """How many chunks this project has, and those that some process keeps the index of just now."""

        async def operation(connection: Connection) -> int:
            return int(await QUERIES.count_kept_chunks(connection, project=rows.text(project)))

        return await self._database.run(operation)

    async def write(self, project: str, files: Sequence[File], gone: Collection[str] = ()) -> int:
        """Put these files in the place of what was known of them, and drop those that are gone.

        Chunks that stay as they are cost nothing; texts that are known keep their embeddings.

        Returns: how many files' chunks are other than they were.
        """
        if not files and not gone:
            return 0

        async def operation(connection: Connection) -> int:
            await QUERIES.wait_for_forgetting(connection)
            limits = [row["path"] async for row in QUERIES.off_limits(connection)]
            allowed = [one for one in files if not (limits and covered(paths_of(project, one.path, ""), limits))]
            if allowed:
                await QUERIES.upsert_project(connection, [{"path": rows.text(project)}])
            row = await QUERIES.indexed_project(connection, project=rows.text(project))
            if row is None:
                return 0
            dropped = await self._drop(connection, row["id"], {*gone, *(one.path for one in files)} - _paths(allowed))
            changed = await self._put(connection, row["id"], allowed) if allowed else 0
            if dropped or changed:
                await QUERIES.announce(connection, id=f"{ANNOUNCED}{row['id']}")
            return int(dropped) + changed

        return await self._database.run(operation)

    async def _drop(self, connection: Connection, project_id: int, paths: Collection[str]) -> int:
        if not paths:
            return 0
        known = QUERIES.indexed_files(connection, project_id=project_id)
        ids = [one["id"] async for one in known if one["path"] in paths]
        return int(await QUERIES.drop_files(connection, ids=ids)) if ids else 0

    async def _put(self, connection: Connection, project_id: int, files: Sequence[File]) -> int:
        asked = list({piece.hash for one in files for piece in one.pieces})
        forgotten = {bytes(row["hash"]) async for row in QUERIES.forgotten_chunks_among(connection, hashes=asked)}
        ids = {
            row["path"]: row["id"]
            async for row in QUERIES.put_files(
                connection,
                project_id=project_id,
                made_by=files[0].state.made_by,
                paths=[rows.text(one.path) for one in files],
                languages=[one.language for one in files],
                mtimes=[one.state.mtime_ns for one in files],
                sizes=[one.state.size for one in files],
            )
        }
        before: dict[int, list[tuple[bytes, int, str]]] = {id: [] for id in ids.values()}
        async for row in QUERIES.chunks_of(connection, ids=list(ids.values())):
            before[row["file_id"]].append((bytes(row["hash"]), row["line"], row["symbol"]))
        changed: dict[int, list[Piece]] = {}
        for one in files:
            id, pieces = ids[rows.text(one.path)], [piece for piece in one.pieces if piece.hash not in forgotten]
            if before[id] != [(piece.hash, piece.line, rows.text(piece.symbol)) for piece in pieces]:
                changed[id] = pieces
        if not changed:
            return 0
        texts = {piece.hash: piece for pieces in changed.values() for piece in pieces}
        ordered = sorted(texts)  # so that two processes that write at once cannot deadlock
        await QUERIES.put_texts(
            connection,
            hashes=ordered,
            contents=[rows.text(texts[hash].content) for hash in ordered],
            terms=[texts[hash].terms for hash in ordered],
        )
        await QUERIES.drop_chunks(connection, ids=list(changed))
        placed = [(id, at, piece) for id, pieces in changed.items() for at, piece in enumerate(pieces)]
        await QUERIES.put_chunks(
            connection,
            file_ids=[id for id, _, _ in placed],
            positions=[at for _, at, _ in placed],
            hashes=[piece.hash for _, _, piece in placed],
            lines=[piece.line for _, _, piece in placed],
            symbols=[rows.text(piece.symbol) for _, _, piece in placed],
        )
        return len(changed)

    async def drop_all(self) -> int:
        """Delete the index of every project, and projects that nothing else is left of; how many files that were."""

        async def operation(connection: Connection) -> int:
            await QUERIES.lock_memory(connection)
            count = int(await QUERIES.drop_every_file(connection))
            await QUERIES.drop_unused_texts(connection)
            await QUERIES.delete_unused_projects(connection, limits=[])
            return count

        return await self._database.run(operation)

    async def without_embedding(self, projects: Collection[str], limit: int) -> list[tuple[bytes, str]]:
        """Hash and text of chunks that `nearest` cannot find yet."""

        async def operation(connection: Connection) -> list[tuple[bytes, str]]:
            found = QUERIES.chunks_without_embedding(connection, projects=list(projects), limit=limit)
            return [(bytes(row["hash"]), row["content"]) async for row in found]

        return await self._database.run(operation)

    async def embed(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Give chunks their embeddings, unless another embedder's are in use."""
        made = {hash: found.to_text() for hash in sorted(vectors) if (found := rows.vector(vectors[hash])) is not None}

        async def operation(connection: Connection) -> None:
            if await self._embeddings.may_write(connection):
                await QUERIES.embed_chunks(connection, hashes=list(made), embeddings=list(made.values()))

        if made:
            await self._database.run(operation)

    # -- what the server asks ----------------------------------------------------------------------------------

    async def number(self, project: str) -> int | None:
        """What a project is called in announcements; None where nothing is known of it."""

        async def operation(connection: Connection) -> int | None:
            row = await QUERIES.indexed_project(connection, project=rows.text(project))
            return None if row is None else int(row["id"])

        return await self._database.run(operation)

    async def terms(self, project: str, languages: Sequence[str]) -> list[Lying]:
        """Every chunk of a project in some languages, with its terms; fetched in small pages."""

        async def operation(connection: Connection) -> list[Lying]:
            found = QUERIES.chunk_terms(connection, project=rows.text(project), languages=list(languages))
            return [Lying(row["hash"], row["path"], row["terms"]) async for row in found]

        return await self._database.run(operation)

    async def contents(self, hashes: Sequence[bytes]) -> dict[bytes, str]:
        """What chunks say, by hash."""

        async def operation(connection: Connection) -> dict[bytes, str]:
            found = QUERIES.chunk_contents(connection, hashes=list(hashes))
            return {bytes(row["hash"]): row["content"] async for row in found}

        return await self._database.run(operation) if hashes else {}

    async def nearest(
        self,
        embedding: Sequence[float],
        project: str,
        languages: Sequence[str],
        *,
        without: str,
        limit: int,
        min_similarity: float,
    ) -> list[Near]:
        """The chunks of a project that resemble an embedding, the nearest first; none of another embedder.

        By looking at each where a project has few, else at their codes first (see `similarity`).

        Args:
            without: the path of a file that does not count.
        """
        vector = rows.vector(embedding)
        if vector is None or limit < 1:
            return []

        async def operation(connection: Connection) -> list[Near]:
            if not await self._embeddings.may_search(connection):
                return []
            size = await QUERIES.chunk_count(
                connection, project=rows.text(project), languages=list(languages), ceiling=EXACT_BELOW
            )
            if size is None or not size["size"]:
                return []
            parameters: dict[str, Any] = {
                "embedding": vector,
                "project_id": size["id"],
                "languages": list(languages),
                "without": rows.text(without),
                "max_distance": 1.0 - min_similarity,
                "limit": limit,
            }
            if size["size"] < EXACT_BELOW:
                found = QUERIES.nearest_chunks_exact(connection, **parameters)
            else:
                found = QUERIES.nearest_chunks_coded(connection, candidates=CANDIDATES, **parameters)
            return [Near(bytes(row["hash"]), row["path"], 1.0 - row["distance"]) async for row in found]

        return await self._database.run(operation)


class Claims:
    """Which process keeps the index of a project: the one whose connection says so."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, and every claim with it."""
        return bool(self._connection.is_closed())

    async def take(self, project: str) -> bool:
        return bool(await QUERIES.keep_index(self._connection, project=project))

    async def give_back(self, project: str) -> None:
        await QUERIES.leave_index(self._connection, project=project)


def _paths(files: Sequence[File]) -> set[str]:
    return {one.path for one in files}

"""What in a project's code resembles the present place: by identifiers in memory, by meaning in PostgreSQL.

The search by identifiers is fast enough for the hot path; for it each project's terms are kept here, loaded in the
background, page by page, and again when the index has changed. Both answers are ranks, to be fused by reciprocal rank
(Cormack 2009): a chunk at rank r of a list gains 1 / (K + r). Used on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from npllm.memory.index import grammars, terms
from npllm.memory.index.records import ANNOUNCED, Lying, Near
from npllm.types import NpllmError, Place

if TYPE_CHECKING:
    from npllm.memory.index.sparse import SparseIndex

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Hashable)

K = 60  # of reciprocal rank fusion
QUERY_LINES = 8  # before the cursor, that have something in them
SHELVES = 8  # projects and languages that are kept
REST_S = 2.0  # between two loads of a shelf, and at least
REST_SHARE = 20  # times as long as the last one took
MATCHED_LINES = 3  # an excerpt begins where so many lines resemble the place most
SHOWN_LINES = 10  # of an excerpt
SHOWN_CHARACTERS = 500


class Indexed(Protocol):
    """The part of `ChunkRecords` that is needed here."""

    async def number(self, project: str) -> int | None: ...
    async def terms(self, project: str, languages: Sequence[str]) -> list[Lying]: ...
    async def contents(self, hashes: Sequence[bytes]) -> dict[bytes, str]: ...
    async def nearest(
        self,
        embedding: Sequence[float],
        project: str,
        languages: Sequence[str],
        *,
        without: str,
        limit: int,
        min_similarity: float,
    ) -> list[Near]: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, and a file that holds it."""

    hash: bytes
    path: str


class CodeSearch:
    """One per server."""

    def __init__(self, records: Indexed, *, by_meaning: bool) -> None:
        self._records = records
        self._by_meaning = by_meaning
        self._shelves: OrderedDict[tuple[str, tuple[str, ...]], _Shelf] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self, place: Place) -> None:
        """See to it that a project's terms are known, and not old; returns at once."""
        if not place.project:
            return
        shelf = self._shelf(place)
        if shelf.loading is None and shelf.stale and time.monotonic() >= shelf.due:
            shelf.stale = False
            shelf.loading = asyncio.create_task(self._load(shelf), name="npllm-index-load")
            self._tasks.add(shelf.loading)
            shelf.loading.add_done_callback(self._tasks.discard)

    async def ready(self, place: Place) -> None:
        """Wait for the first load of a project's terms."""
        self.look(place)
        shelf = self._shelves.get(_key(place))
        if shelf is not None and shelf.index is None and shelf.loading is not None:
            await asyncio.wait([shelf.loading])

    async def loaded(self) -> None:
        """Load again, at once, what is known of every project."""
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*(self._load(shelf) for shelf in list(self._shelves.values())))

    def by_identifiers(self, place: Place, prefix: str, limit: int) -> list[Hit]:
        """The chunks of other files that share most identifiers with the lines before the cursor, best first."""
        shelf = self._shelves.get(_key(place))
        if shelf is None or shelf.index is None:
            return []
        found = shelf.index.search(terms.weighted(_last_lines(prefix)), limit, shelf.of_path.get(place.path, ()))
        return [Hit(shelf.lying[number].hash, shelf.lying[number].path) for number, _ in found]

    async def by_meaning(self, query: Sequence[float], place: Place, limit: int, min_similarity: float) -> list[Hit]:
        """The chunks of other files nearest to an embedding; none where embeddings are not wanted."""
        if not self._by_meaning or not place.project:
            return []
        found = await self._records.nearest(
            query,
            place.project,
            grammars.family(place.language),
            without=place.path,
            limit=limit,
            min_similarity=min_similarity,
        )
        return [Hit(one.hash, one.path) for one in found]

    async def excerpts(self, hits: Sequence[Hit], place: Place, prefix: str) -> dict[bytes, str]:
        """What of each chunk resembles the place most, and what follows there."""
        contents = await self._records.contents([one.hash for one in hits])
        query, shelf = terms.weighted(_last_lines(prefix)), self._shelves.get(_key(place))
        index = shelf.index if shelf is not None else None
        weights = {term: weight * (index.idf(term) if index else 1.0) for term, weight in query.items()}
        return {hash: excerpt(content, weights) for hash, content in contents.items()}

    def changed(self, what: str) -> None:
        """Somebody announced that a project's index is other than it was, or announcements may have been missed."""
        for shelf in self._shelves.values():
            if not what.startswith(ANNOUNCED) or shelf.number is None or what == f"{ANNOUNCED}{shelf.number}":
                shelf.stale = True

    def forget(self) -> None:
        """Load everything again: something was forgotten on purpose."""
        self._shelves.clear()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _shelf(self, place: Place) -> _Shelf:
        key = _key(place)
        shelf = self._shelves.setdefault(key, _Shelf(*key))
        self._shelves.move_to_end(key)
        if len(self._shelves) > SHELVES:
            self._shelves.popitem(last=False)
        return shelf

    async def _load(self, shelf: _Shelf) -> None:
        began = time.monotonic()
        try:
            shelf.number = await self._records.number(shelf.project)
            lying = await self._records.terms(shelf.project, shelf.languages)
            shelf.index, shelf.of_path = await asyncio.to_thread(_indexed, lying)
            shelf.lying = lying
        except NpllmError as error:
            shelf.stale = True
            log.info("the index of %s cannot be read just now: %s", shelf.project, error)
        except Exception:  # a background task: without it less is found, nothing else
            log.exception("the index of %s could not be read", shelf.project)
        finally:
            shelf.loading = None
            took = time.monotonic() - began
            shelf.due = time.monotonic() + max(REST_S, REST_SHARE * took)
        log.info("%s: %d chunks known after %.2f s", shelf.project, len(shelf.lying), took)


class _Shelf:
    """What is known of a project's chunks in some languages."""

    def __init__(self, project: str, languages: tuple[str, ...]) -> None:
        self.project = project
        self.languages = languages
        self.number: int | None = None  # the project's, in the database
        self.index: SparseIndex | None = None
        self.lying: list[Lying] = []
        self.of_path: dict[str, list[int]] = {}
        self.stale = True
        self.due = 0.0  # monotonic
        self.loading: asyncio.Task[None] | None = None


def _key(place: Place) -> tuple[str, tuple[str, ...]]:
    return place.project, grammars.family(place.language)


def _indexed(lying: Sequence[Lying]) -> tuple[SparseIndex, dict[str, list[int]]]:
    from npllm.memory.index.sparse import SparseIndex

    of_path: dict[str, list[int]] = {}
    for number, one in enumerate(lying):
        of_path.setdefault(one.path, []).append(number)
    return SparseIndex([one.terms for one in lying]), of_path


def _last_lines(prefix: str) -> list[str]:
    return [line for line in prefix[-4000:].splitlines() if line.strip()][-QUERY_LINES:]


def fused(lists: Sequence[Sequence[T]]) -> list[tuple[T, float]]:
    """All that stands in some ranked lists, the best first, with its score by reciprocal rank."""
    scores: dict[T, float] = {}
    for one in lists:
        for rank, item in enumerate(one, start=1):
            scores[item] = scores.get(item, 0.0) + 1.0 / (K + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def excerpt(content: str, weights: dict[int, float]) -> str:
    """The lines of a chunk from where it resembles the place most, so that what follows there is seen, too.

    Args:
        weights: of the query's terms.
    """
    lines = content.split("\n")
    found = [set(terms.terms(line)) & weights.keys() for line in lines]

    def resemblance(begin: int) -> float:
        shared = set[int]().union(*found[begin : begin + MATCHED_LINES])
        return sum(weights[term] for term in shared)

    begin = max(range(len(lines)), key=lambda at: (resemblance(at), -at))
    if len(lines) <= SHOWN_LINES and len(content) <= SHOWN_CHARACTERS:
        begin = 0
    shown = lines[begin : begin + SHOWN_LINES]
    while len(shown) > 1 and sum(map(len, shown)) + len(shown) > SHOWN_CHARACTERS:
        shown.pop()
    return "\n".join(shown)

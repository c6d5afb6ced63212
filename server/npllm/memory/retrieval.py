"""What resembles the present place, found ahead of need and kept while the cursor stays near.

A search (embedding, then PostgreSQL) takes longer than a request may wait, so it runs in the background, started by
cursor and edits (`prefetch`) or by a request; what comes too late for one request serves the next. The project's code
is searched by identifiers first, which a request can wait for; when the rest has come, the ranks are fused. What was
found stays the same while the cursor stays near, so that the prompt's beginning, and with it the key-value cache, does.
Knows nothing of prompts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from npllm.config import MemoryConfig
from npllm.ignoring import of_document
from npllm.memory.index.search import CodeSearch, Hit, fused
from npllm.memory.texts import embedding_text
from npllm.types import NpllmError, Place, Snippet

log = logging.getLogger(__name__)

NEAR = 300  # characters; about ten lines: so far a search's result is kept
STILL_USEFUL = 1500  # characters; so far an older result serves while a new search runs
KEEP_S = 120.0  # then search again, even at the same place: more may have been learned
DEBOUNCE_S = 0.05
DOCUMENTS = 64  # of which results are kept
CANDIDATES = 4  # per wanted snippet: what is on the screen already, or twice, falls away
SAME_PROJECT = 0.05  # added to the similarity in ranking


class Searchable(Protocol):
    """The part of `Store` that a search needs."""

    async def similar(
        self,
        embedding: Sequence[float],
        *,
        project: str | None,
        language: str,
        limit: int,
        min_similarity: float,
        exclude: Collection[UUID] = (),
    ) -> list[Snippet]: ...


class Embeds(Protocol):
    """The part of `Embedder` that a search needs."""

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]: ...


@dataclass(frozen=True, slots=True)
class _Found:
    project: str
    offset: int
    at: float  # monotonic
    snippets: tuple[Snippet, ...]
    whole: bool = True  # else more is coming


class Retriever:
    """One per server. Everything on the event loop's thread.

    Args:
        code: the search in the project's code; None where that is off.
    """

    def __init__(
        self, store: Searchable, embedder: Embeds, config: MemoryConfig, code: CodeSearch | None = None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._config = config
        self._code = code
        self._found: OrderedDict[str, _Found] = OrderedDict()
        self._tasks: dict[str, tuple[Place, asyncio.Task[None]]] = {}

    def prefetch(self, place: Place, prefix: str, suffix: str) -> None:
        """Begin a search for a place where a request may come from soon; returns at once."""
        if self._wanted and self._code is not None:
            self._code.look(place)
        if self._wanted and self._fresh(place) is None:
            self._search_soon(place, prefix, suffix, DEBOUNCE_S)

    async def snippets(self, place: Place, prefix: str, suffix: str, wait_ms: float) -> tuple[Snippet, ...]:
        """What is known for this place within `wait_ms`; never raises for want of a database or a model."""
        if not self._wanted:
            return ()
        found = self._fresh(place)
        if found is None or not found.whole:
            task = self._search_soon(place, prefix, suffix, 0.0)
            await asyncio.wait([task], timeout=wait_ms / 1000)
            found = self._fresh(place) or self._useful(place)
        if found is None:
            return ()
        return tuple(s for s in found.snippets if not on_screen(s, prefix, suffix))

    def forget(self, uri: str | None = None) -> None:
        """Drop what was found for a document, or for all (something was avoided or forgotten just now)."""
        if uri is None:
            self._found.clear()
            if self._code is not None:
                self._code.forget()
            for _, task in self._tasks.values():
                task.cancel()  # it may have read before
            self._tasks.clear()
        else:
            self._found.pop(uri, None)

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._code is not None:
            await self._code.close()

    async def loaded(self) -> None:
        """What was found is dropped, and what the index says by now is known; for evaluations."""
        self._found.clear()
        if self._code is not None:
            await self._code.loaded()

    def announced(self, what: str) -> None:
        """What somebody announced (see `Store.listen`)."""
        if self._code is not None:
            self._code.changed(what)

    @property
    def _wanted(self) -> bool:
        return self._config.enabled and self._config.snippets > 0

    def _fresh(self, place: Place) -> _Found | None:
        found = self._found.get(place.uri)
        if found is None or found.project != place.project or time.monotonic() - found.at > KEEP_S:
            return None
        return found if abs(found.offset - place.offset) <= NEAR else None

    def _useful(self, place: Place) -> _Found | None:
        found = self._found.get(place.uri)
        return found if found is not None and abs(found.offset - place.offset) <= STILL_USEFUL else None

    def _search_soon(self, place: Place, prefix: str, suffix: str, delay_s: float) -> asyncio.Task[None]:
        """The running search for this place, or a new one; one at a time per document."""
        running = self._tasks.get(place.uri)
        if running is not None and not running[1].done():
            if delay_s == 0.0 or abs(running[0].offset - place.offset) <= NEAR:
                return running[1]
            running[1].cancel()
        task = asyncio.create_task(self._search(place, prefix, suffix, delay_s), name="npllm-retrieval")
        self._tasks[place.uri] = (place, task)
        return task

    async def _search(self, place: Place, prefix: str, suffix: str, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            snippets = await self._all(place, prefix, suffix)
        except NpllmError as error:
            log.info("nothing is remembered just now: %s", error)
            return
        except Exception:
            log.exception("the search for what resembles %s failed", place.path)
            return
        finally:
            running = self._tasks.get(place.uri)
            if running is not None and running[1] is asyncio.current_task():
                del self._tasks[place.uri]
        self._keep(place, snippets, whole=True)

    async def _all(self, place: Place, prefix: str, suffix: str) -> tuple[Snippet, ...]:
        """By identifiers and by embedding, side by side: neither waits for an index or a model that loads."""
        limit = self._config.snippets * CANDIDATES
        by_code = asyncio.create_task(self._by_code(place, prefix, limit))
        by_embedding = asyncio.create_task(self._by_embedding(place, prefix, limit))
        parts: tuple[asyncio.Task[Any], ...] = by_code, by_embedding
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if not by_code.done() and by_embedding.exception() is None:
                self._keep(place, await self._chosen(by_embedding.result(), place, prefix, suffix), whole=False)
            alike = await by_code
            if alike and (not by_embedding.done() or by_embedding.exception() is not None):
                self._keep(place, await self._chosen([alike], place, prefix, suffix), whole=False)
            remembered, *by_meaning = await by_embedding
            return await self._chosen([remembered, alike, *by_meaning], place, prefix, suffix)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _by_code(self, place: Place, prefix: str, limit: int) -> list[Hit]:
        if self._code is None:
            return []
        await self._code.ready(place)
        return self._code.by_identifiers(place, prefix, limit)

    async def _by_embedding(self, place: Place, prefix: str, limit: int) -> list[Sequence[Snippet | Hit]]:
        """The experiences that resemble a place, and what of the project's code means the like."""
        [query] = await self._embedder.embed([embedding_text(prefix)])
        found: list[Sequence[Snippet | Hit]] = [await self._nearest(query, place, limit)]
        if self._code is not None:
            found.append(await self._code.by_meaning(query, place, limit, self._config.min_similarity))
        return found

    def _keep(self, place: Place, snippets: tuple[Snippet, ...], *, whole: bool) -> None:
        self._found[place.uri] = _Found(place.project, place.offset, time.monotonic(), snippets, whole)
        self._found.move_to_end(place.uri)
        while len(self._found) > DOCUMENTS:
            self._found.popitem(last=False)

    async def _nearest(self, query: Sequence[float], place: Place, limit: int) -> list[Snippet]:
        """The experiences that resemble a place most, of the same project and of all others, best first."""
        ranked: dict[UUID | None, tuple[float, Snippet]] = {}
        for project in (None, place.project) if place.project else (None,):
            found = await self._store.similar(
                query,
                project=project,
                language=place.language,
                limit=limit,
                min_similarity=self._config.min_similarity,
            )
            bonus = SAME_PROJECT if project is not None else 0.0
            for snippet in found:
                ranked[snippet.experience_id] = (snippet.score + bonus, snippet)
        return [snippet for _, snippet in sorted(ranked.values(), key=lambda pair: -pair[0])]

    async def _chosen(
        self, ranked: Sequence[Sequence[Snippet | Hit]], place: Place, prefix: str, suffix: str
    ) -> tuple[Snippet, ...]:
        """The best of some ranked lists, without what is on the screen, and none twice."""
        order = fused(ranked)
        hits = [one for one, _ in order if isinstance(one, Hit)]
        texts = await self._code.excerpts(hits, place, prefix) if self._code is not None and hits else {}
        chosen: list[Snippet] = []
        seen: set[str] = set()
        for one, score in order:
            if isinstance(one, Hit):
                one = Snippet(one.path, texts.get(one.hash, ""), score, project=place.project)
            key = "".join(one.text.split())
            if key and key not in seen and not on_screen(one, prefix, suffix) and not self._ignored(one):
                seen.add(key)
                chosen.append(one)
            if len(chosen) == self._config.snippets:
                break
        return tuple(chosen)

    def _ignored(self, snippet: Snippet) -> bool:
        """Whether a snippet's file is to be left alone by now, where it lies: in this project or in another."""
        return of_document(snippet.project, snippet.path, snippet.uri, self._config.ignore)


def on_screen(snippet: Snippet, prefix: str, suffix: str) -> bool:
    """Whether the model sees all of a snippet's lines anyway."""
    lines = {line.strip() for line in snippet.text.splitlines()} - {""}
    return lines <= {line.strip() for line in f"{prefix}\n{suffix}".splitlines()}

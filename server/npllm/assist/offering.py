"""Makes suggestions: takes a place in a document and gives what is offered there, kept ready or made anew.

Knows nothing of what becomes of them; it hands them to the recorder and the listener when the editor gets them.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from npllm import contexts
from npllm.assist import context, writing
from npllm.assist.library import Shelf, around
from npllm.assist.listening import Listener
from npllm.assist.recorder import Recorder
from npllm.assist.resources import Resources
from npllm.assist.silence import Pacing
from npllm.assist.unwanted import Unwanted
from npllm.assist.working import Working
from npllm.assist.writing import LineScore, Request
from npllm.config import Config
from npllm.memory.cache import CompletionCache
from npllm.memory.retrieval import on_screen
from npllm.types import ModelError, Place, Snippet, Suggestion, new_id

REWRITE_PATIENCE = 5  # times as long as a completion may a rewrite take


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered at a request: a suggestion, and the text to insert (its rest, when typed through)."""

    suggestion: Suggestion
    text: str


class Offering:
    """One per server process.

    Args:
        records: whether what happens at a place is written down.
        on_change: called whenever something that the status shows has changed.
    """

    def __init__(
        self,
        config: Config,
        resources: Resources,
        recorder: Recorder,
        listener: Listener,
        pacing: Pacing,
        cache: CompletionCache,
        unwanted: Unwanted,
        records: Callable[[Place], bool],
        on_change: Callable[[], None],
    ) -> None:
        self.config = config
        self.resources = resources
        self.pacing = pacing
        self.listener = listener
        self.thinking = 0
        self.working = Working(config.memory.working)
        self._recorder = recorder
        self._cache = cache
        self._unwanted = unwanted
        self._records = records
        self._on_change = on_change
        self._model: tuple[str, tuple[UUID, ...]] = ("", ())  # whose suggestions are in the cache
        self._cancel = threading.Event()  # of the newest completion
        self._rewriting: tuple[str, threading.Event] = ("", threading.Event())  # in which document
        self._requests: Counter[tuple[str, str]] = Counter()  # by project and language, since the last suggestion there
        self.generation = 0  # rises with every forgetting; what was begun before it may hold what was forgotten

    def configure(self, config: Config) -> None:
        """Take new settings: what is kept ready was made by the old ones."""
        if config.memory.working != self.config.memory.working:
            self.working.switch(config.memory.working)
        if config != self.config:
            self._cache.clear()
        self.config = config

    def give_up(self) -> None:
        """Drop what is being made."""
        self._cancel.set()
        self._rewriting[1].set()

    def outdate(self) -> None:
        """Whatever is being made now may hold what was forgotten: it is dropped, and so is what is kept ready."""
        self.generation += 1
        self.give_up()
        self.working.forget()
        self._cache.forget()

    def changed(self, uri: str) -> None:
        """A document changed: a rewrite in it would not fit any more."""
        if uri == self._rewriting[0]:
            self._rewriting[1].set()

    async def complete(self, place: Place, text: str, kind: str = "inline", *, asked: bool = False) -> Offer | None:
        """A suggestion for a place, or None.

        Args:
            place: the cursor.
            text: the whole document.
            asked: the person asks by a key of their own: nothing is held back then.
        """
        config = self.config
        info = self.resources.worker.info
        if not config.completion.enabled or info is None or self.resources.leaves_alone(place):
            return None
        if self._model != (info.fingerprint, self.resources.versions):
            self._model = (info.fingerprint, self.resources.versions)
            self._cache.clear()  # another model answers now
        self.working.visited(place, text)
        self._requests[place.project, place.language] += self._records(place)
        prefix, suffix = context.window(text, place.offset)
        if not asked and self.pacing.silence(place, prefix) is not None:
            return None
        hit = self._cache.lookup(place, prefix, suffix)
        if hit is not None and not self._unwanted.avoids(place.language, hit[0].text):
            suggestion, rest = hit
            if not asked and self.pacing.holds(suggestion.id):
                return None
            if not self.listener.follows(suggestion.id):  # settled, or made for a document that had changed meanwhile
                suggestion = replace(
                    suggestion,
                    id=new_id(),
                    place=place,
                    text=rest,
                    prefix=prefix,
                    suffix=suffix,
                    created_at=datetime.now(UTC),
                    source="cache",
                    kind=kind,
                    asked=asked,
                )
                return self._weighed(suggestion, prefix, suffix, asked)
            return Offer(suggestion, rest)
        self._cancel.set()  # the newest request is the one that counts
        cancel = self._cancel = threading.Event()
        started, generation = time.perf_counter(), self.generation
        if not asked:
            await self.pacing.wait()
        if cancel.is_set():
            return None
        snippets, shelf, working = await self._recall(place, prefix, suffix, text)
        if cancel.is_set():
            return None
        timer = asyncio.get_running_loop().call_later(config.completion.timeout_ms / 1000, cancel.set)
        self._think(+1)
        try:
            behind = None if asked else prefix  # by their own key they may have it after all
            unwanted = functools.partial(self._is_unwanted, place, behind)
            request = Request(
                *(place, prefix, suffix, snippets, config, contexts.of(place, text), unwanted),
                document=around(text, place.offset),
                shelf=shelf,
                working=working,
            )
            made = await self.resources.worker.run(lambda desk: writing.suggest(desk, request, cancel, kind), cancel)
        except ModelError as error:
            self.resources.problem("base", str(error))
            return None
        finally:
            timer.cancel()
            self._think(-1)
        if made is None or cancel.is_set() or generation != self.generation:
            return None
        if unwanted(made.text):
            return None
        suggestion = replace(made, latency_ms=(time.perf_counter() - started) * 1000, asked=asked)
        return self._weighed(suggestion, prefix, suffix, asked)

    def _weighed(self, made: Suggestion, prefix: str, suffix: str, asked: bool) -> Offer | None:
        """A new suggestion, unless it is held back; the cache has it in either case."""
        weighed = self.pacing.weigh(made, asked=asked, record=self._records(made.place))
        self._cache.put(made.place, prefix, suffix, weighed or made)
        return None if weighed is None else Offer(weighed, weighed.text)

    def offered(self, offer: Offer) -> None:
        """The editor gets it now: from here on it is followed. What `complete` gave and nobody got leaves no trace."""
        suggestion = offer.suggestion
        where = suggestion.place.project, suggestion.place.language
        if self._recorder.knows(suggestion.id):
            self._requests[where] -= 1  # answered, with what is known already
        elif self._records(suggestion.place):
            suggestion = replace(suggestion, requests=max(1, self._requests.pop(where, 1)))
            self._recorder.suggestion(suggestion)
            self.listener.shown(suggestion)

    async def rewrite(self, start: Place, text: str, end: int) -> Suggestion | None:
        """What the base would write in place of `text[start.offset:end]`, by infilling; None if nothing else.

        Given up when the document changes, when another rewrite is asked for, when something is forgotten, or after
        some time.
        """
        if self.resources.leaves_alone(start):
            return None
        prefix, _ = context.window(text, start.offset)
        _, suffix = context.window(text, end)
        old, generation = text[start.offset : end], self.generation
        snippets, shelf, working = await self._recall(start, prefix, suffix, text)
        if generation != self.generation:
            return None
        belongs = contexts.of(start, text)
        request = Request(start, prefix, suffix, snippets, self.config, belongs, shelf=shelf, working=working)
        self._rewriting[1].set()
        cancel = threading.Event()
        self._rewriting = (start.uri, cancel)
        limit = REWRITE_PATIENCE * self.config.completion.timeout_ms / 1000
        timer = asyncio.get_running_loop().call_later(limit, cancel.set)
        self._think(+1)
        try:
            made = await self.resources.worker.run(lambda desk: writing.rewrite(desk, request, cancel, old), cancel)
        finally:
            timer.cancel()
            self._think(-1)
        if made is None or cancel.is_set() or generation != self.generation:
            return None
        if self._is_unwanted(start, None, made.text):
            return None
        made = replace(made, asked=True)
        if self._records(made.place):
            self._recorder.suggestion(made)
            self.listener.shown(made, replaced=len(old))
        return made

    async def score(self, place: Place, text: str, target: str) -> LineScore:
        """How well serving predicts `target` at a place: same prompt, memory and adapters as `complete`.

        Raises:
            ModelError: no base is loaded.
        """
        prefix, suffix = context.window(text, place.offset)
        snippets, shelf, working = await self._recall(place, prefix, suffix, text)
        belongs, document = contexts.of(place, text), around(text, place.offset)
        request = Request(
            *(place, prefix, suffix, snippets, self.config, belongs), document=document, shelf=shelf, working=working
        )
        cancel = threading.Event()
        return await self.resources.worker.run(lambda desk: writing.score(desk, request, target, cancel), cancel)

    async def _recall(
        self, place: Place, prefix: str, suffix: str, text: str
    ) -> tuple[tuple[Snippet, ...], Shelf | None, tuple[Snippet, ...]]:
        """What is remembered for a place, what the project says there, and what is on the desk; each within
        `memory.wait_ms`."""
        limits = self.resources.library.off_limits  # None: not known yet
        snippets, shelf, working = await asyncio.gather(
            self.resources.recall(place, prefix, suffix),
            self.resources.shelf(place),
            self.working.snippets(place, text, self.config.memory, limits),
        )
        told = "\n".join(snippet.text for snippet in snippets)
        prefix_too = f"{told}\n{prefix}"
        return snippets, shelf, tuple(one for one in working if not on_screen(one, prefix_too, suffix))

    def _is_unwanted(self, place: Place, behind: str | None, text: str) -> bool:
        return self._unwanted.covers(place, text, behind if self.config.feedback.avoid_refused else None)

    def _think(self, step: int) -> None:
        self.thinking += step
        self._on_change()

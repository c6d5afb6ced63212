"""The assistant: takes a place in a document and gives a suggestion; hears what became of it; learns of new adapters.

It knows nothing of LSP and nothing of sleep. All methods are called on the event loop; the model computes
in `EngineWorker`'s thread. A database or a model that is not there (yet) costs suggestions or memory,
never an error in the editor.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from npllm import contexts
from npllm.assist import context, filters, writing
from npllm.assist.feelings import NAME as CLASSIFIER
from npllm.assist.feelings import Feelings
from npllm.assist.library import Shelf, around
from npllm.assist.listening import Listener
from npllm.assist.recorder import Recorder
from npllm.assist.resources import Resources
from npllm.assist.silence import Pacing
from npllm.assist.working import Working
from npllm.assist.writing import LineScore, Request
from npllm.config import Config
from npllm.memory.cache import CompletionCache
from npllm.memory.places import off_limits
from npllm.memory.retrieval import on_screen
from npllm.memory.store import Store
from npllm.types import (
    Decision,
    Experience,
    Feedback,
    ModelError,
    Outcome,
    Place,
    Snippet,
    StoreError,
    Suggestion,
    new_id,
)

log = logging.getLogger(__name__)
REWRITE_PATIENCE = 5  # times as long as a completion may a rewrite take


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered at a request: a suggestion, and the text to insert (its rest, when typed through)."""

    suggestion: Suggestion
    text: str


class Assistant:
    """One per server process.

    Args:
        on_change: called whenever something that the status shows has changed.
        on_problem: called with one sentence (cause and mend) when something is wrong.
    """

    def __init__(
        self,
        config: Config,
        on_change: Callable[[], None] = lambda: None,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config = config
        self.resources = Resources(config, on_change, on_problem, self._connected, self._forgotten, self._outdate)
        self._working = Working(config.memory.working)
        self.thinking = 0
        self._on_change = on_change
        self._cache = CompletionCache()
        self._recorder = Recorder(
            self.resources.journal,
            config.feedback,
            self._experienced,
            functools.partial(self._part_said, "journal"),
        )
        self.listener = Listener(config, self._recorder, self._records, self._told)
        self._feelings = Feelings(self.resources.load, functools.partial(self._part_said, "classifier"))
        self.pacing = Pacing(config, self._recorder)
        self._avoided = filters.Avoided()
        self._model: tuple[str, tuple[UUID, ...]] = ("", ())  # whose suggestions are in the cache
        self._cancel = threading.Event()  # of the newest completion
        self._rewriting: tuple[str, threading.Event] = ("", threading.Event())  # in which document
        self._requests: Counter[tuple[str, str]] = Counter()  # by project and language, since the last suggestion there
        self._generation = 0  # rises with every forgetting; what was begun before it may hold what was forgotten

    # -- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work, in the background."""
        self._recorder.start()
        self.resources.start()
        self.resources.background(self.listener.look_again())

    async def write_down(self) -> None:
        """Settle what is pending; returns when all of it is on disk."""
        self.listener.settle()
        await self._recorder.close()

    def write_now(self) -> None:
        """The same, blocking, when the event loop is gone: the editor has died, or we are told to."""
        self.listener.settle()
        self._recorder.write_now()

    async def close(self) -> None:
        """Write down what is pending, and let go of everything."""
        self._cancel.set()
        self._rewriting[1].set()
        await self.write_down()
        await self.resources.close()

    async def configure(self, config: Config) -> None:
        """Take new settings; a changed base is loaded in the background."""
        old = self.config
        await self.resources.configure(config)
        self.config = self.resources.config
        self._recorder.config = config.feedback
        self.listener.configure(self.config)
        if self.config.memory.working != old.memory.working:
            self._working.switch(self.config.memory.working)
        self.pacing.configure(self.config)
        await self._feelings.configure(config.feedback.classifier)
        if self.config != old:
            self._cache.clear()

    # -- requests -----------------------------------------------------------------------------------

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
        self._working.visited(place, text)
        self._requests[place.project, place.language] += self._records(place)
        prefix, suffix = context.window(text, place.offset)
        if not asked and self.pacing.silence(place, prefix) is not None:
            return None
        hit = self._cache.lookup(place, prefix, suffix)
        if hit is not None and not self._avoided.covers(place.language, hit[0].text):
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
        started, generation = time.perf_counter(), self._generation
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
            unwanted = functools.partial(self._unwanted, place, behind)
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
        if made is None or cancel.is_set() or generation != self._generation:
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
        old, generation = text[start.offset : end], self._generation
        snippets, shelf, working = await self._recall(start, prefix, suffix, text)
        if generation != self._generation:
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
        if made is None or cancel.is_set() or generation != self._generation:
            return None
        if self._unwanted(start, None, made.text):
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
            self._working.snippets(place, text, self.config.memory, limits),
        )
        told = "\n".join(snippet.text for snippet in snippets)
        prefix_too = f"{told}\n{prefix}"
        return snippets, shelf, tuple(one for one in working if not on_screen(one, prefix_too, suffix))

    # -- what became of it ---------------------------------------------------------------------------

    def opened(self, place: Place, text: str) -> None:
        """A document was opened."""
        self._working.opened(place, text)
        self.listener.opened(place.uri, text)

    def changed(self, place: Place, before: str, start: int, end: int, new_text: str, *, several: bool = False) -> None:
        """A document changed: `before[start:end]` became `new_text`, perhaps with several changes at once."""
        if place.uri == self._rewriting[0]:
            self._rewriting[1].set()
        self._working.changed(place, before, start, end, new_text)
        self.pacing.changed(new_text, end - start)
        self.listener.changed(place, before, start, end, new_text, several=several)

    def desk_moved(self, place: Place, text: str) -> None:
        """The person works at this place now: look in memory for what resembles it, in the background."""
        if not self.resources.leaves_alone(place):
            self.resources.prefetch(place, text)

    def closed(self, uri: str) -> None:
        """A document was closed."""
        self._cache.invalidate(uri)
        self._working.closed(uri)
        self.listener.closed(uri)

    async def accepted(self, suggestion_id: UUID) -> None:
        """The item's command ran. Returns when that is on disk."""
        self.listener.accepted(suggestion_id)
        await self.listener.heard()
        await self._recorder.flush()

    async def feedback(self, emoji: str, comment: str, suggestion_id: UUID | None = None) -> Feedback | None:
        """What the person says about a suggestion (default: the last seen). Returns when that is on disk."""
        if suggestion_id is None and (last := self._recorder.last_seen(self.listener.seen)) is not None:
            suggestion_id = last.id
        if suggestion_id is None or not self._recorder.knows(suggestion_id):
            generation = self._generation
            found = await self._remembered(suggestion_id)
            if found is None or generation != self._generation:
                return None
            self._recorder.adopt(found)
            suggestion_id = found.id
        given = self._recorder.feedback(suggestion_id, emoji, comment)
        suggestion = self._recorder.known(suggestion_id)
        if given is not None and suggestion is not None and given.frustration >= self.config.feedback.avoid_frustration:
            self._avoid(suggestion)
        if given is not None and comment.strip() and self.config.feedback.classifier:
            self.resources.background(self._reread(given))
        await self._recorder.flush()
        return given

    async def _reread(self, given: Feedback) -> None:
        """What the classifier makes of a comment, in the background."""
        emotion = await self._feelings.read(given.emoji, given.comment)
        made = None if emotion is None else self._recorder.reread(given, emotion, CLASSIFIER)
        suggestion = self._recorder.known(given.suggestion_id)
        if made is None or suggestion is None:
            return
        if made.frustration >= self.config.feedback.avoid_frustration:
            self._avoid(suggestion)
        elif given.frustration >= self.config.feedback.avoid_frustration:
            self._avoided.withdraw(suggestion.place.language, suggestion.text, suggestion.id)
            if self._recorder.outcome(suggestion.id) not in filters.REFUSED:
                self._cache.allow(suggestion.place, suggestion.text)

    def known(self, suggestion_id: UUID) -> Suggestion | None:
        """A suggestion that was recorded lately."""
        return self._recorder.known(suggestion_id)

    def judged(self, suggestion_id: UUID) -> bool:
        """Whether the person has said how a suggestion was."""
        return self._recorder.heard(suggestion_id)

    async def settle(self) -> None:
        """Treat every pending suggestion as settled now, and carry everything to PostgreSQL; wait for the index."""
        self.listener.settle()
        await self._recorder.flush()
        await self.resources.drain(120.0)
        await self.resources.indexed()

    # -- background ------------------------------------------------------------------------------------

    async def _connected(self, store: Store) -> None:
        try:
            for item in await store.avoided(None, 1000):
                self._avoided.add(item.place.language, item.suggested, item.id)
            for one in reversed(await store.traces(None, limit=filters.MOST_REFUSED)):
                self._avoided.hear(one.place.language, one.prefix, one.suggested, one.outcome, one.final_text)
        except StoreError as error:
            log.warning("avoided suggestions could not be read: %s", error)
        await self.pacing.remember(store)

    def _outdate(self) -> None:
        """Whatever is being made now may hold what was forgotten: it is dropped, and so is what is kept ready."""
        self._generation += 1
        self._cancel.set()
        self._rewriting[1].set()
        if self.resources.retriever is not None:
            self.resources.retriever.forget()
        self._working.forget()
        self._cache.forget()

    async def _forgotten(self, store: Store) -> None:
        """Something was forgotten on purpose: whatever may hold it here goes, and what is being made with it."""
        self._outdate()  # again: something may have begun before the shelves were emptied
        self._avoided = filters.Avoided()
        self._recorder.forget(await store.forgetting.forgotten_among(self._recorder.recorded()))
        await self._connected(store)

    def _records(self, place: Place) -> bool:
        """Whether what happens at a place is written down."""
        wanted = self.config.memory.record and not off_limits(place, self.resources.off_limits)
        return wanted and not self.resources.leaves_alone(place)

    # -- small things -----------------------------------------------------------------------------------

    def _told(self, outcome: Outcome) -> None:
        self.pacing.outcome(outcome)
        suggestion = self._recorder.known(outcome.suggestion_id)
        if suggestion is None:
            return
        if outcome.kind in filters.REFUSED:
            self._cache.reject(suggestion.place, suggestion.text)
        language, prefix = suggestion.place.language, suggestion.prefix
        self._avoided.hear(language, prefix, suggestion.text, outcome.kind, outcome.final_text)

    def _experienced(self, experience: Experience) -> None:
        if experience.decision is Decision.AVOID and (suggestion := self._recorder.known(experience.id)) is not None:
            self._avoid(suggestion)

    def _avoid(self, suggestion: Suggestion) -> None:
        """Never its like again."""
        self._avoided.add(suggestion.place.language, suggestion.text, suggestion.id)
        self._cache.reject(suggestion.place, suggestion.text)
        if self.resources.retriever is not None:
            self.resources.retriever.forget()

    def _unwanted(self, place: Place, behind: str | None, text: str) -> bool:
        if not self.config.feedback.avoid_refused:
            behind = None
        return self._avoided.covers(place.language, text, behind) or self._cache.rejected(place, text)

    async def _remembered(self, suggestion_id: UUID | None) -> Suggestion | None:
        """A suggestion of an earlier server process: this one, or the last."""
        store = self.resources.store
        if store is None:
            return None
        try:
            return await (store.suggestion(suggestion_id) if suggestion_id else store.latest_suggestion())
        except StoreError as error:
            log.warning("an earlier suggestion could not be looked up: %s", error)
            return None

    def _think(self, step: int) -> None:
        self.thinking += step
        self._on_change()

    def _part_said(self, part: str, problem: str) -> None:
        if problem:
            self.resources.problem(part, problem)
        else:
            self.resources.solved(part)

"""The assistant: has suggestions made, hears what became of them and what the person says; learns of new adapters.

It knows nothing of LSP and nothing of sleep. All methods are called on the event loop; the model computes
in `EngineWorker`'s thread. A database or a model that is not there (yet) costs suggestions or memory,
never an error in the editor.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from uuid import UUID

from npllm.assist.feelings import NAME as CLASSIFIER
from npllm.assist.feelings import Feelings
from npllm.assist.listening import Listener
from npllm.assist.offering import Offer, Offering
from npllm.assist.recorder import Recorder
from npllm.assist.resources import Resources
from npllm.assist.silence import Pacing
from npllm.assist.unwanted import Unwanted
from npllm.assist.writing import LineScore
from npllm.config import Config
from npllm.memory.cache import CompletionCache
from npllm.memory.places import off_limits
from npllm.memory.store import Store
from npllm.types import (
    Decision,
    Experience,
    Feedback,
    Outcome,
    Place,
    StoreError,
    Suggestion,
)

log = logging.getLogger(__name__)


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
        self._unwanted = Unwanted(self._cache)
        self._offering = Offering(
            *(config, self.resources, self._recorder, self.listener, self.pacing, self._cache, self._unwanted),
            *(self._records, on_change),
        )

    @property
    def thinking(self) -> int:
        """How many suggestions are being made."""
        return self._offering.thinking

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
        self._offering.give_up()
        await self.write_down()
        await self.resources.close()

    async def configure(self, config: Config) -> None:
        """Take new settings; a changed base is loaded in the background."""
        await self.resources.configure(config)
        self.config = self.resources.config
        self._recorder.config = config.feedback
        self.listener.configure(self.config)
        self._offering.configure(self.config)
        self.pacing.configure(self.config)
        await self._feelings.configure(config.feedback.classifier)

    # -- requests -----------------------------------------------------------------------------------

    async def complete(self, place: Place, text: str, kind: str = "inline", *, asked: bool = False) -> Offer | None:
        """A suggestion for a place, or None (see `Offering.complete`)."""
        return await self._offering.complete(place, text, kind, asked=asked)

    def offered(self, offer: Offer) -> None:
        """The editor gets it now: from here on it is followed. What `complete` gave and nobody got leaves no trace."""
        self._offering.offered(offer)

    async def rewrite(self, start: Place, text: str, end: int) -> Suggestion | None:
        """What the base would write in place of `text[start.offset:end]` (see `Offering.rewrite`)."""
        return await self._offering.rewrite(start, text, end)

    async def score(self, place: Place, text: str, target: str) -> LineScore:
        """How well serving predicts `target` at a place: same prompt, memory and adapters as `complete`.

        Raises:
            ModelError: no base is loaded.
        """
        return await self._offering.score(place, text, target)

    # -- what became of it ---------------------------------------------------------------------------

    def opened(self, place: Place, text: str) -> None:
        """A document was opened."""
        self._offering.working.opened(place, text)
        self.listener.opened(place.uri, text)

    def changed(self, place: Place, before: str, start: int, end: int, new_text: str, *, several: bool = False) -> None:
        """A document changed: `before[start:end]` became `new_text`, perhaps with several changes at once."""
        self._offering.changed(place.uri)
        self._offering.working.changed(place, before, start, end, new_text)
        self.pacing.changed(new_text, end - start)
        self.listener.changed(place, before, start, end, new_text, several=several)

    def desk_moved(self, place: Place, text: str) -> None:
        """The person works at this place now: look in memory for what resembles it, in the background."""
        if not self.resources.leaves_alone(place):
            self.resources.prefetch(place, text)

    def closed(self, uri: str) -> None:
        """A document was closed."""
        self._cache.invalidate(uri)
        self._offering.working.closed(uri)
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
            generation = self._offering.generation
            found = await self._remembered(suggestion_id)
            if found is None or generation != self._offering.generation:
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
            self._unwanted.withdraw(suggestion, self._recorder.outcome(suggestion.id))

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
            await self._unwanted.read(store)
        except StoreError as error:
            log.warning("avoided suggestions could not be read: %s", error)
        await self.pacing.remember(store)

    def _outdate(self) -> None:
        """Whatever is being made now may hold what was forgotten: it is dropped, and so is what is kept ready."""
        self._offering.outdate()
        if self.resources.retriever is not None:
            self.resources.retriever.forget()

    async def _forgotten(self, store: Store) -> None:
        """Something was forgotten on purpose: whatever may hold it here goes, and what is being made with it."""
        self._outdate()  # again: something may have begun before the shelves were emptied
        self._unwanted.forget()
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
        if suggestion is not None:
            self._unwanted.hear(suggestion, outcome)

    def _experienced(self, experience: Experience) -> None:
        if experience.decision is Decision.AVOID and (suggestion := self._recorder.known(experience.id)) is not None:
            self._avoid(suggestion)

    def _avoid(self, suggestion: Suggestion) -> None:
        """Never its like again."""
        self._unwanted.add(suggestion)
        if self.resources.retriever is not None:
            self.resources.retriever.forget()

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

    def _part_said(self, part: str, problem: str) -> None:
        if problem:
            self.resources.problem(part, problem)
        else:
            self.resources.solved(part)

"""Pacing for the assistant: what the person's history says, what the settings say, and what is written down of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from dataclasses import replace
from uuid import UUID

from npllm.assist.comments import in_comment
from npllm.assist.recorder import Recorder
from npllm.config import Config
from npllm.feedback.chance import traits
from npllm.feedback.pacing import REMEMBERED, Pacer, Silence, languages
from npllm.memory.store import Store
from npllm.types import HeldBack, Outcome, Place, StoreError, Suggestion

log = logging.getLogger(__name__)
HISTORY = 2000  # outcomes, the newest, that are counted when the store is there


class Pacing:
    """One per server. Nothing of it concerns a request that the person makes by a key of their own."""

    def __init__(self, config: Config, recorder: Recorder) -> None:
        self._config = config
        self._recorder = recorder
        self._pacer = Pacer(config.pacing)
        self._held: OrderedDict[UUID, None] = OrderedDict()
        self._remembers = False

    def configure(self, config: Config) -> None:
        """Take new settings."""
        self._config = config
        self._pacer.config = config.pacing

    async def remember(self, store: Store) -> None:
        """Count this person's history, once; what was counted meanwhile comes after it."""
        if self._remembers:
            return
        try:
            history = await store.statistics.history(HISTORY)
        except StoreError as error:
            log.warning("what became of earlier suggestions could not be read: %s", error)
            return
        self._remembers = True
        for past in history:
            of = traits(
                text=past.text,
                mean_logprob=past.mean_logprob,
                language=past.language,
                source=past.source,
                prefix=past.prefix,
                suffix=past.suffix,
            )
            self._pacer.chance.count(self._pacer.chance.with_lately(of), past.taken)

    # -- before a suggestion is made ------------------------------------------------------------------

    def silence(self, place: Place, prefix: str) -> Silence | None:
        """Why nothing is suggested here now; None where something may be."""
        config, now = self._config.pacing, time.monotonic()
        if now < self._pacer.snoozed_until:
            return Silence.SNOOZED
        if place.language.lower() in languages(config.languages_off):
            return Silence.LANGUAGE
        if not config.comments and in_comment(place.language, prefix):
            return Silence.COMMENT
        if self._pacer.quiet(now) and not self._sample(place, prefix):
            return Silence.QUIET
        return None

    def _sample(self, place: Place, prefix: str) -> bool:
        """Whether this line is one of the few on which something is shown even while it is quiet."""
        line = place.offset - len(prefix.rpartition("\n")[2])
        draw = random.Random(hash((place.uri, line, self._pacer.refusals)))
        return draw.random() < self._config.pacing.audit_share

    async def wait(self) -> None:
        """Give the next key its time."""
        if (seconds := self._pacer.wait(time.monotonic())) > 0:
            await asyncio.sleep(seconds)

    # -- when it is made ------------------------------------------------------------------------------

    def weigh(self, suggestion: Suggestion, *, asked: bool, record: bool) -> Suggestion | None:
        """The suggestion with its chance, or None where it is held back (and written down so, if `record`)."""
        of = traits(
            text=suggestion.text,
            mean_logprob=suggestion.mean_logprob,
            language=suggestion.place.language,
            source=suggestion.source,
            prefix=suggestion.prefix,
            suffix=suggestion.suffix,
        )
        verdict = self._pacer.weigh(suggestion.id, of)
        if verdict.show or asked or verdict.chance is None:
            return replace(suggestion, chance=verdict.chance, audited=verdict.audited)
        self._held[suggestion.id] = None
        while len(self._held) > REMEMBERED:
            self._held.popitem(last=False)
        log.info("a suggestion was held back: its chance is %.2f", verdict.chance)
        if record:
            self._recorder.note(
                HeldBack(
                    suggestion_id=suggestion.id,
                    place=suggestion.place,
                    chance=verdict.chance,
                    threshold=self._config.pacing.threshold,
                    size=len("".join(suggestion.text.split())),
                    mean_logprob=suggestion.mean_logprob,
                    source=suggestion.source,
                    created_at=suggestion.created_at,
                )
            )
        return None

    def holds(self, id: UUID) -> bool:
        """Whether a suggestion is held back."""
        return id in self._held

    # -- what the person does -------------------------------------------------------------------------

    def outcome(self, outcome: Outcome) -> None:
        """What became of a suggestion."""
        self._pacer.outcome(outcome, time.monotonic())

    def changed(self, inserted: str, removed: int) -> None:
        """The document changed."""
        if len(inserted) == 1 and not removed:
            self._pacer.key(time.monotonic())

    def snooze(self, minutes: float) -> None:
        """No suggestions for so long; 0 ends it, and the quiet after refusals, too."""
        self._pacer.snooze(60 * minutes, time.monotonic())

    @property
    def message(self) -> str:
        """What the status says of it: until when nothing is suggested; "" while something is."""
        left = self._pacer.snoozed_until - time.monotonic()
        return "" if left <= 0 else f"no suggestions until {time.strftime('%H:%M', time.localtime(time.time() + left))}"

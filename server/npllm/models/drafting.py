"""Drafts: tokens guessed cheaply, which the base verifies in one forward. The output is the base's own.

With k tokens drafted and a of them right, a round gives a + 1 tokens for the price of the draft and one forward over k
+ 1 (Leviathan et al., 2211.17192). Against plain steps it pays where

    (E[a] + 1) * t_step > k * t_draft + t_verify(k + 1).

The times are measured when the models are loaded, E[a] is followed while drafting; a source of drafts that does not pay
rests, and is tried again after a while. Two sources: what followed the same tokens earlier in the prompt (it costs
nothing), and the cerebellum, if it has the base's tokens. Used from the engine's thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from npllm.models.engine import Cancel, Engine

log = logging.getLogger(__name__)

DRAFT_TOKENS = 4
RUN = 3  # equal tokens in a row after which the prompt's continuation is a guess
TRIAL = 24  # rounds after which a source is judged
REST = 2000  # rounds that a source which does not pay is left alone
MEMORY = 0.97  # of the running mean of what was right
_PROBE = 64  # tokens that stand in the cache while times are measured
_REPEATS = 3


class Drafter(Protocol):
    """Guesses tokens."""

    def draft(self, prompt_ids: Sequence[int], ids: Sequence[int], count: int, cancel: Cancel) -> Sequence[int]:
        """At most `count` tokens that may follow a prompt and what was generated since. Raises Cancelled."""
        ...


class PromptLookup:
    """What followed the last `RUN` tokens where they stood last before (Saxena 2023, prompt lookup decoding)."""

    def __init__(self) -> None:
        self._prompt: Sequence[int] = ()
        self._after: dict[tuple[int, ...], int] = {}  # a run of tokens -> where what follows it begins
        self._seen = 0

    def draft(self, prompt_ids: Sequence[int], ids: Sequence[int], count: int, cancel: Cancel) -> Sequence[int]:
        if prompt_ids is not self._prompt:
            self._prompt, self._after, self._seen = prompt_ids, {}, RUN
        text = [*prompt_ids, *ids]
        for end in range(self._seen, len(text)):  # every run but the last, which is the one asked for
            self._after[tuple(text[end - RUN : end])] = end
        self._seen = max(self._seen, len(text))
        at = self._after.get(tuple(text[-RUN:]))
        return text[at : at + count] if at is not None else ()


class ModelDrafter:
    """Another model's greedy continuation.

    Args:
        engine: of a model with the base's tokens; used for drafts alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def draft(self, prompt_ids: Sequence[int], ids: Sequence[int], count: int, cancel: Cancel) -> Sequence[int]:
        text = [*prompt_ids, *ids]
        if len(text) + count > self._engine.info.context_tokens:
            return ()
        logits = self._engine.prefill(text, cancel)
        made: list[int] = []
        while True:
            made.append(int(logits.argmax()))
            if len(made) == count:
                return made
            logits = self._engine.step(made[-1])


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, at a short prompt: a token of the base, verifying a draft of `DRAFT_TOKENS`, and making one."""

    step: float
    verify: float
    draft: float

    @property
    def needed(self) -> float:
        """How many tokens of a draft must be right, in the mean, so that it pays."""
        return (self.draft + self.verify) / self.step - 1


@dataclass(slots=True)
class Source:
    """One kind of drafts and how it has fared."""

    name: str
    drafter: Drafter
    costs: Costs
    rounds: int = 0
    agreed: float = 0.0  # running mean of how many tokens were right
    resting: int = field(default=0)

    @property
    def pays(self) -> bool:
        """Whether it is worth a round now: it can pay at all, and is being tried, or has been found to."""
        return self.costs.needed < DRAFT_TOKENS and self.resting == 0

    def judged(self, agreed: int) -> None:
        """A round is over."""
        self.rounds += 1
        keep = min(MEMORY, 1 - 1 / self.rounds)
        self.agreed = keep * self.agreed + (1 - keep) * agreed
        if self.rounds >= TRIAL and self.agreed < self.costs.needed:
            log.info(
                "drafts by %s rest: %.2f tokens of %d are right, %.2f are needed",
                *(self.name, self.agreed, DRAFT_TOKENS, self.costs.needed),
            )
            self.rounds, self.agreed, self.resting = 0, 0.0, REST


class Drafting:
    """Implements `decoding.Drafts`: the first source that pays and has a guess gives it."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self._last: Source | None = None

    def guess(self, prompt_ids: Sequence[int], ids: Sequence[int], room: int, cancel: Cancel) -> Sequence[int]:
        count = min(DRAFT_TOKENS, room - 1)
        if count < 1:
            return ()
        for source in self.sources:
            if source.resting:
                source.resting -= 1
            elif source.pays:
                found = source.drafter.draft(prompt_ids, ids, count, cancel)
                if found:
                    self._last = source
                    return found
        return ()

    def judged(self, guessed: int, agreed: int) -> None:
        if self._last is not None:
            self._last.judged(agreed)


def set_up(engine: Engine, drafter: Engine | None) -> Drafting:
    """Measure, and make what may draft for an engine. The keys and values of both are dropped.

    Args:
        drafter: of the cerebellum, if it has the engine's tokens; used for drafts alone from now on.
    """
    step, verify = _times(engine)
    sources = [Source("prompt lookup", PromptLookup(), Costs(step, verify, 0.0))]
    if drafter is not None:
        each, _ = _times(drafter)
        sources.append(Source("the cerebellum", ModelDrafter(drafter), Costs(step, verify, DRAFT_TOKENS * each)))
    for source in sources:
        log.info(
            "drafts by %s: a token costs the base %.1f ms, a round of %d costs %.1f ms; %.2f right ones are needed",
            *(source.name, 1e3 * step, DRAFT_TOKENS, 1e3 * (source.costs.draft + verify), source.costs.needed),
        )
    return Drafting(sources)


class _Never:
    def is_set(self) -> bool:
        return False


def _times(engine: Engine) -> tuple[float, float]:
    """Seconds of one step, and of verifying `DRAFT_TOKENS` + 1 tokens and taking them back: the best of some."""
    length = min(_PROBE, engine.info.context_tokens // 2)
    engine.forget()
    engine.prefill([1] * length, _Never())
    token = [1] * (DRAFT_TOKENS + 1)

    def verify() -> None:
        engine.verify(token)
        engine.crop(length)

    def step() -> None:
        engine.step(1)
        engine.crop(length)

    times = _best(step), _best(verify)
    engine.forget()
    return times


def _best(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)

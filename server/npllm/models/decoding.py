"""Greedy decoding until a rule says stop, drafts or not, and the likelihood of a text that is given.

Both go through `Engine.prefill`, so they see the same prompt in the same cache. Between any two tokens the
request can be taken back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from npllm.models.engine import Cancel, Cancelled, Engine, Logits
from npllm.models.fim import Span
from npllm.models.stops import StopRules, without_loop

Finish = Literal["stop", "length", "cancelled"]
_SCORED_AT_ONCE = 256  # tokens of a text whose logits are in memory together


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the base wrote."""

    text: str  # trimmed: what may be shown
    token_ids: tuple[int, ...]  # all that were generated
    mean_logprob: float  # nats per token, over the tokens whose text is shown; 0.0 where nothing is
    finished: Finish


@dataclass(frozen=True, slots=True)
class Score:
    """How well the base predicts a given text."""

    nats: float  # negative log-likelihood of the whole text
    tokens: int
    utf8_bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.utf8_bytes if self.utf8_bytes else 0.0


class Drafts(Protocol):
    """Guesses what comes next, and hears what came of it; `drafting.Drafting` is one."""

    def guess(self, prompt_ids: Sequence[int], ids: Sequence[int], room: int, cancel: Cancel) -> Sequence[int]:
        """At most `room` tokens that may follow a prompt and `ids`; none where that does not pay. Raises Cancelled."""
        ...

    def judged(self, guessed: int, agreed: int) -> None:
        """So many of the tokens last guessed were right."""
        ...


class Known(Protocol):
    """What is known at a place beside the model; `continuations.Continuations` is one."""

    def mix(self, logits: Logits, ids: Sequence[int]) -> Logits:
        """Log-probabilities [V] of what follows the place and `ids`, from the model's logits [V] for it."""
        ...


def complete(
    engine: Engine,
    prompt_ids: Sequence[int],
    *,
    stop: StopRules,
    max_new_tokens: int,
    cancel: Cancel,
    spans: Sequence[Span] = (),
    drafts: Drafts | None = None,
    known: Known | None = None,
) -> Decoded:
    """What most likely follows a prompt, greedily.

    Args:
        stop: the place's rules.
        max_new_tokens: no more than this many.
        cancel: asked between prefill chunks and between tokens.
        spans: what of the prompt is remembered.
        drafts: guesses what comes next, for the engine to verify; the text is the same without.
        known: has its say about each token.

    Raises:
        ModelError: the prompt is empty or longer than the base takes.
    """
    try:
        logits = engine.prefill(prompt_ids, cancel, spans)
    except Cancelled:
        return Decoded("", (), 0.0, "cancelled")
    most = min(max_new_tokens, engine.info.context_tokens - len(prompt_ids))
    ids: list[int] = []
    logprobs: list[float] = []
    ends: list[int] = []  # length of the text up to and with each token
    text = ""
    finished: Finish = "length"
    ready = deque([best(known.mix(logits, ()) if known else logits)])  # what comes next, as far as it is known
    while len(ids) < most:
        if cancel.is_set():
            return Decoded("", tuple(ids), 0.0, "cancelled")
        token, logprob = ready.popleft()
        if token in stop.end_ids:
            finished = "stop"
            break
        ids.append(token)
        logprobs.append(logprob)
        text = engine.text(ids)
        ends.append(len(text))
        if stop.check(text) is not None:
            finished = "stop"
            break
        if not ready and len(ids) < most:
            try:
                guess = drafts.guess(prompt_ids, ids, most - len(ids), cancel) if drafts else ()
            except Cancelled:
                return Decoded("", tuple(ids), 0.0, "cancelled")
            ready.extend(following(engine, ids, guess, known))
            if drafts and guess:
                drafts.judged(len(guess), len(ready) - 1)
    if finished == "length":
        text = without_loop(_whole_lines(text))
    shown = stop.trim(text)
    count = sum(1 for before in (0, *ends[:-1]) if before < len(shown)) if ids else 0
    mean = sum(logprobs[:count]) / count if count else 0.0
    return Decoded(shown, tuple(ids), mean, finished)


def following(
    engine: Engine, ids: Sequence[int], guess: Sequence[int], known: Known | None = None
) -> list[tuple[int, float]]:
    """Append the last of `ids` and what of a guess would have been written anyway; what comes then, token by token.

    Greedy speculative decoding (Leviathan et al., 2211.17192): one forward over all of it; the longest prefix of the
    guess that agrees is kept, and the model's own next token comes with it. At least one (token, log-probability in
    nats).
    """
    if not guess:
        logits = engine.step(ids[-1])
        return [best(known.mix(logits, ids) if known else logits)]
    rows: Iterable[Logits] = engine.verify([ids[-1], *guess])
    if known is not None:
        rows = (known.mix(row, [*ids, *guess[:count]]) for count, row in enumerate(rows))
    found = [best(row) for row in rows]
    agreed = 0
    while agreed < len(guess) and found[agreed][0] == guess[agreed]:
        agreed += 1
    if agreed < len(guess):
        engine.crop(engine.length - (len(guess) - agreed))
    return found[: agreed + 1]


def score(
    engine: Engine,
    prompt_ids: Sequence[int],
    target_ids: Sequence[int],
    text: str,
    cancel: Cancel,
    spans: Sequence[Span] = (),
    known: Known | None = None,
) -> Score:
    """The negative log-likelihood of a text after a prompt (teacher forcing).

    Args:
        target_ids: `PromptBuilder.encode_middle(text)`.
        spans: what of the prompt is remembered.
        known: has its say about each token.

    Raises:
        Cancelled: `cancel` was set.
        ModelError: the prompt is empty or too long.
    """
    nats = 0.0
    logits = engine.prefill(prompt_ids, cancel, spans).unsqueeze(0)
    for begin in range(0, len(target_ids), _SCORED_AT_ONCE):
        if cancel.is_set():
            raise Cancelled
        part = target_ids[begin : begin + _SCORED_AT_ONCE]
        rows = torch.cat([logits[-1:], engine.verify(part)]) if len(part) > 0 else logits
        wanted = torch.tensor(part, device=rows.device)
        said = torch.log_softmax(rows[:-1], -1)
        if known is not None and len(part):
            said = torch.stack([known.mix(row, target_ids[: begin + at]) for at, row in enumerate(said)])
        # NLL = -sum_i log softmax(logits_{i-1})[target_i]
        nats -= float(said.gather(1, wanted[:, None]).double().sum())
        logits = rows
    engine.crop(len(prompt_ids))
    return Score(nats, len(target_ids), len(text.encode("utf-8")))


def best(logits: Logits) -> tuple[int, float]:
    """The likeliest token and its log-probability in nats."""
    value, index = logits.max(-1)
    both = torch.stack([index.double(), (value - logits.logsumexp(-1)).double()]).tolist()
    return int(both[0]), both[1]


def _whole_lines(text: str) -> str:
    """Without a last line that was cut off, if there are others."""
    end = text.rfind("\n")
    return text[:end] if end > 0 and text[:end].strip() else text

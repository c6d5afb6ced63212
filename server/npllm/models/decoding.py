"""Greedy decoding until a rule says stop, and the likelihood of a text that is given.

Both go through `Engine.prefill`, so they see the same prompt in the same cache. Between any two tokens the
request can be taken back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


def complete(
    engine: Engine,
    prompt_ids: Sequence[int],
    *,
    stop: StopRules,
    max_new_tokens: int,
    cancel: Cancel,
    spans: Sequence[Span] = (),
) -> Decoded:
    """What most likely follows a prompt, greedily.

    Args:
        stop: the place's rules.
        max_new_tokens: no more than this many.
        cancel: asked between prefill chunks and between tokens.
        spans: what of the prompt is remembered.

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
    while len(ids) < most:
        if cancel.is_set():
            return Decoded("", tuple(ids), 0.0, "cancelled")
        token, logprob = _best(logits)
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
        if len(ids) < most:
            logits = engine.step(token)
    if finished == "length":
        text = without_loop(_whole_lines(text))
    shown = stop.trim(text)
    count = sum(1 for before in (0, *ends[:-1]) if before < len(shown)) if ids else 0
    mean = sum(logprobs[:count]) / count if count else 0.0
    return Decoded(shown, tuple(ids), mean, finished)


def score(
    engine: Engine,
    prompt_ids: Sequence[int],
    target_ids: Sequence[int],
    text: str,
    cancel: Cancel,
    spans: Sequence[Span] = (),
) -> Score:
    """The negative log-likelihood of a text after a prompt (teacher forcing).

    Args:
        target_ids: `PromptBuilder.encode_middle(text)`.
        spans: what of the prompt is remembered.

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
        # NLL = -sum_i log softmax(logits_{i-1})[target_i]
        nats -= float(torch.log_softmax(rows[:-1], -1).gather(1, wanted[:, None]).double().sum())
        logits = rows
    engine.crop(len(prompt_ids))
    return Score(nats, len(target_ids), len(text.encode("utf-8")))


def _best(logits: Logits) -> tuple[int, float]:
    """The likeliest token and its log-probability in nats."""
    value, index = logits.max(-1)
    both = torch.stack([index.double(), (value - logits.logsumexp(-1)).double()]).tolist()
    return int(both[0]), both[1]


def _whole_lines(text: str) -> str:
    """Without a last line that was cut off, if there are others."""
    end = text.rfind("\n")
    return text[:end] if end > 0 and text[:end].strip() else text

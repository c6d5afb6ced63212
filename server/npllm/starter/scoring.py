"""What a model thinks of given tokens, and what it would write: batched likelihoods and greedy completion.

A `Judge` is anything that can be asked both: the network here, the 5-gram baseline in `ngram`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from npllm.starter.tokens import Codec


@dataclass(frozen=True)
class Passage:
    """Token ids of which those from `start` to `stop` are to be judged, the others given. `start` is at least 1."""

    ids: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Written:
    """A completion, and whether it came to an end by itself."""

    text: str
    ended: bool


class Judge(Protocol):
    """A model that is asked."""

    def nats(self, passages: Sequence[Passage]) -> list[float]:
        """For each passage the sum of -log p over its judged tokens, in nats."""

    def write(self, prompt: Sequence[int], most: int, line: bool) -> Written:
        """What greedy decoding writes, at most `most` tokens, up to `<|end|>` or, for a `line`, its line break."""


class Network:
    """A causal language model as a judge."""

    def __init__(self, network: LlamaForCausalLM, codec: Codec) -> None:
        self._network, self._codec = network, codec

    def nats(self, passages: Sequence[Passage]) -> list[float]:
        """See `Judge`."""
        return negative_log_likelihoods(self._network, passages)

    def write(self, prompt: Sequence[int], most: int, line: bool) -> Written:
        """See `Judge`."""
        with torch.inference_mode():
            return until_stop(self._codec, _greedy(self._network, prompt), most, line)


def negative_log_likelihoods(network: LlamaForCausalLM, passages: Sequence[Passage], batch: int = 8) -> list[float]:
    """For each passage the sum of -log p over its judged tokens, in nats."""
    order = sorted(range(len(passages)), key=lambda k: len(passages[k].ids))
    result = [0.0] * len(passages)
    for begin in range(0, len(order), batch):
        group = order[begin : begin + batch]
        width = max(len(passages[k].ids) for k in group)
        rows = torch.tensor([[*passages[k].ids, *[0] * (width - len(passages[k].ids))] for k in group])
        with torch.inference_mode():
            hidden = network.model(input_ids=rows.to(network.device), use_cache=False).last_hidden_state
            for line, k in enumerate(group):
                passage = passages[k]
                logits = network.lm_head(hidden[line, passage.start - 1 : passage.stop - 1]).float()
                targets = rows[line, passage.start : passage.stop].to(logits.device)
                result[k] = float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    return result


def until_stop(codec: Codec, tokens: Iterable[int], most: int, line: bool) -> Written:
    """The text of at most `most` tokens, up to `<|end|>`, a new file or, for a `line`, the line break, without it."""
    written: list[int] = []
    for token in tokens:
        if token in (codec.end, codec.file):
            return Written(codec.decode(written), True)
        written.append(token)
        if line and "\n" in (text := codec.decode(written)):
            return Written(text.split("\n", 1)[0], True)
        if len(written) >= most:
            break
    return Written(codec.decode(written), False)


def _greedy(network: LlamaForCausalLM, prompt: Sequence[int]) -> Iterator[int]:
    cache = DynamicCache(config=network.config)
    ids = torch.tensor([list(prompt)], device=network.device)
    while True:
        hidden = network.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
        ids = cast(Tensor, network.lm_head(hidden[:, -1:])).argmax(-1)
        yield int(ids)

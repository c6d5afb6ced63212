"""What a causal model thinks of given tokens, and what it would write: batched likelihoods and greedy completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

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


def complete_line(network: LlamaForCausalLM, codec: Codec, prompt: Sequence[int], most: int = 40) -> str:
    """What greedy decoding writes after the prompt until the line ends, without the line break."""
    cache = DynamicCache(config=network.config)
    ids = torch.tensor([list(prompt)], device=network.device)
    written: list[int] = []
    with torch.inference_mode():
        for _ in range(most):
            hidden = network.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
            ids = cast(Tensor, network.lm_head(hidden[:, -1:])).argmax(-1)
            token = int(ids)
            if token in (codec.end, codec.file):
                break
            written.append(token)
            text = codec.decode(written)
            if "\n" in text:
                return text.split("\n", 1)[0]
    return codec.decode(written)

"""A bare training loop, by which the sleep's own is measured: forward, backward, AdamW, and nothing else.

It learns the same samples in the same steps and micro-batches with the same objective as `trainer`, but looks at
nobody, keeps no checkpoint and tells nothing. What it has learned is thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from peft import PeftModel

from npllm.sleep import lora
from npllm.sleep.batches import micro_batches, plan
from npllm.sleep.objectives import Nll, Sample
from npllm.sleep.trainer import Recipe


def tokens_per_s(model: PeftModel, samples: Sequence[Sample], recipe: Recipe, objective: Nll) -> float:
    """How fast one pass over the samples goes."""
    parameters = list(lora.trainable(model).values())
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=False)
    lengths = [len(sample.ids) for sample in samples]
    steps, _ = plan(lengths, batch_tokens=recipe.batch_tokens, epochs=1, seed=recipe.seed)
    began = time.monotonic()
    for step in steps:
        chosen = [samples[index] for index in step]
        denominators = objective.denominators(chosen)
        optimizer.zero_grad(set_to_none=True)
        for micro in micro_batches(chosen, recipe.micro_tokens):
            torch.autograd.backward(objective.loss(model, objective.collate(micro, device), denominators))
        optimizer.step()
    return sum(lengths) / (time.monotonic() - began)

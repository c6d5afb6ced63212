"""In which order samples are learned, and which of them together: a function of their lengths and a seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from npllm.sleep.objectives import Sample


def plan(
    lengths: Sequence[int], *, batch_tokens: int, epochs: int, seed: int
) -> tuple[list[list[int]], frozenset[int]]:
    """Which samples make up each optimizer step of all epochs, and after how many steps an epoch ends."""
    steps: list[list[int]] = []
    ends: list[int] = []
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        batch: list[int] = []
        size = 0
        for index in torch.randperm(len(lengths), generator=generator).tolist():
            if batch and size + lengths[index] > batch_tokens:
                steps.append(batch)
                batch, size = [], 0
            batch.append(index)
            size += lengths[index]
        steps.append(batch)
        ends.append(len(steps))
    return steps, frozenset(ends)


def micro_batches(samples: Sequence[Sample], most: int) -> list[list[Sample]]:
    """Samples in groups of at most `most` tokens with padding, at least one in each; like lengths together."""
    groups: list[list[Sample]] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.ids)):
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0].ids) <= most:
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return groups

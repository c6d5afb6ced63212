"""How much what followed the same tokens counts, as a small network that was fitted on other projects' lines.

    lambda = sigmoid(v . tanh(A x + a) + b + log trust)

for each level, that is, for each number of same tokens ("order") in each source (project, document). x is what is known
about the level's match, the longest one, its neighbours (the next shorter and longer one, the other source's), and how
sure the model is. Many that agree count more, and so they do where the model does not know, or expects the same; a
match counts less where a longer one says something else. The numbers lie beside this file: a gating network after
Jacobs et al. 1991, of 961 parameters. Nothing here is trained on the person's code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Numbers = np.ndarray[Any, np.dtype[np.floating[Any]]]
Whole = np.ndarray[Any, np.dtype[np.integer[Any]]]

ORDERS = (1, 2, 3, 4, 6, 8, 12)
SOURCES = ("project", "document")
LEVELS = len(ORDERS) * len(SOURCES)
FILE = Path(__file__).with_name("weighing.safetensors")
_LEAST_UNSURE, _LEAST_EXPECTED = 1e-3, 1e-4
_SHORTER, _LONGER = -len(SOURCES), len(SOURCES)
_OTHER = np.arange(LEVELS) ^ 1  # the other source's match of the same order
_LEVEL = np.concatenate(
    [np.eye(len(ORDERS)).repeat(len(SOURCES), 0), np.tile(np.arange(len(SOURCES)), len(ORDERS))[:, None]], 1
)


@dataclass(frozen=True, slots=True)
class Matches:
    """What followed the last tokens, by level (order, and in it source); each array [..., LEVELS].

    Attributes:
        total: how many tokens followed; 0 where there is no match.
        most: how many of them are the most frequent one.
        distinct: different ones.
        once: those that came once.
        often: the most frequent one's id.
        expected: the model's probability of it.
    """

    total: Whole
    most: Whole
    distinct: Whole
    once: Whole
    often: Whole
    expected: Numbers

    @classmethod
    def none(cls, *shape: int) -> Matches:
        """No match yet, [*shape, LEVELS]."""
        total, most, distinct, once, often = (np.zeros((*shape, LEVELS), dtype=np.int64) for _ in range(5))
        return cls(total, most, distinct, once, often, np.zeros((*shape, LEVELS)))


def features(matches: Matches, surest: Numbers, entropy: Numbers) -> Numbers:
    """x, [..., LEVELS, F]; what stands where there is no match means nothing.

    Args:
        surest, entropy: of the model, [...]: its highest probability, and its entropy in nats.
    """
    found = matches.total > 0
    total = np.maximum(matches.total, 1)
    number = np.log(total)
    others = np.where(found, np.log((total - matches.most + 0.5) / (total + 1.0)), 0.0)
    expected = np.log(np.maximum(matches.expected, _LEAST_EXPECTED))
    longest = np.where(found, np.arange(LEVELS), 0).max(-1, keepdims=True)

    def of_longest(values: Numbers | Whole) -> Numbers:
        return np.broadcast_to(np.take_along_axis(values, longest, -1), found.shape)

    def whole(values: Numbers) -> Numbers:
        return np.broadcast_to(np.asarray(values)[..., None], found.shape)

    columns = [
        number,
        others,
        whole(np.log(np.maximum(1.0 - surest, _LEAST_UNSURE))),
        expected,
        matches.most / total,
        np.log(np.maximum(matches.distinct, 1)),
        np.log((matches.once + 0.5) / (total + 1.0)),
        matches.often == of_longest(matches.often),
        np.broadcast_to(np.where(found.any(-1, keepdims=True), longest + 1, 0) / LEVELS, found.shape),
        *(of_longest(values) for values in (number, others, expected)),
        *(_beside(values, step) for values in (found, others) for step in (_SHORTER, _LONGER)),
        found[..., _OTHER],
        others[..., _OTHER],
        (matches.often == matches.often[..., _OTHER]) & found[..., _OTHER],
        whole(entropy),
    ]
    level = np.broadcast_to(_LEVEL, (*found.shape, _LEVEL.shape[-1]))
    return np.concatenate([np.stack(columns, -1), level], -1)


def _beside(values: np.ndarray[Any, Any], step: int) -> Numbers:
    """Each level's neighbour's, 0 where there is none."""
    moved = np.zeros(values.shape)
    if step < 0:
        moved[..., -step:] = values[..., :step]
    else:
        moved[..., :-step] = values[..., step:]
    return moved


class Weighing:
    """The network.

    Args:
        parts: "A" [H, F], "a" [H], "v" [H], "b" [1].
    """

    def __init__(self, parts: dict[str, Numbers]) -> None:
        self._inner, self._bias, self._outer = parts["A"], parts["a"], parts["v"]
        self._last = float(parts["b"][0])

    def __call__(self, x: Numbers, trust: float = 1.0) -> Numbers:
        """lambda [...] of features [..., F]; the odds are multiplied by `trust`, which is above 0."""
        score = np.tanh(x @ self._inner.T + self._bias) @ self._outer + self._last + math.log(trust)
        return np.asarray(1.0 / (1.0 + np.exp(-score)))


@cache
def shipped() -> Weighing:
    """The one that npllm brings."""
    return Weighing(load_file(FILE))

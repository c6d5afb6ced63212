"""How likely is it that a suggestion is taken? Estimated by counting what became of this person's earlier ones.

Each outcome is counted under each trait of its suggestion (how sure the model was, how long, in which language, where
in the line, how many of the last were taken). With b the share taken of all and b_i that under trait i (both smoothed),

    logit p = logit b + c * sum_i (logit b_i - logit b).

Traits overlap, so the sum says too much; c in [0, 1] is the one under which the outcomes so far, each estimated before
it was counted, would have been likeliest (prequential, Dawid 1984). c = 0 is the plain share. Old outcomes fade, since
both the model and the person change. Only counting: nothing here has a gradient. Knows no clock and no storage.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

FADE = 0.998  # weight of what was known, at each new outcome: half of it after 346
PRIOR = 8.0  # outcomes that a trait's share is smoothed with
WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # what c may be
LATELY = 4  # last outcomes that are a trait
SURE = (-1.5, -1.0, -0.7, -0.45, -0.3, -0.2, -0.1, -0.05)  # nats per token
LONG = (3, 8, 16, 32, 64)  # characters

Traits = Mapping[str, str]


def traits(*, text: str, mean_logprob: float, language: str, source: str, prefix: str, suffix: str) -> dict[str, str]:
    """What a suggestion is counted under, except for what became of the last ones."""
    size = len("".join(text.split()))
    line = prefix.rpartition("\n")[2]
    return {
        "sure": str(sum(mean_logprob > edge for edge in SURE)),
        "long": "lines" if "\n" in text.strip("\r\n") else str(sum(size > edge for edge in LONG)),
        "language": language,
        "source": source,
        "before": _kind(line),
        "behind": "end" if not suffix.partition("\n")[0].strip(" \t\r)]}\"',:;") else "middle",
    }


def _kind(line: str) -> str:
    """What stands right before the cursor."""
    if not line.strip():
        return "indent"
    last = line[-1]
    return "word" if last.isalnum() or last == "_" else "space" if last.isspace() else last if last in ".([{,=" else "?"


@dataclass(slots=True)
class _Count:
    taken: float = 0.0
    all: float = 0.0


class Chance:
    """One person's history, counted."""

    def __init__(self) -> None:
        self.outcomes = 0  # counted so far
        self._all = _Count()
        self._by: dict[tuple[str, str], _Count] = {}
        self._lately: deque[bool] = deque(maxlen=LATELY)
        self._losses = [0.0] * len(WEIGHTS)  # nats, faded, of the outcomes so far under each c

    def with_lately(self, of: Traits) -> dict[str, str]:
        """The traits, with how many of the last outcomes were taken as it is now."""
        return {**of, "lately": str(sum(self._lately))}

    @property
    def weight(self) -> float:
        """c, as it is now."""
        return WEIGHTS[min(range(len(WEIGHTS)), key=lambda index: self._losses[index])]

    def estimate(self, of: Traits) -> float:
        """The chance that a suggestion with these traits (`with_lately`) is taken, in (0, 1)."""
        base, surplus = self._parts(of)
        return _logistic(base + self.weight * surplus)

    def count(self, of: Traits, taken: bool) -> None:
        """What became of a suggestion with these traits (as they were when it was shown)."""
        base, surplus = self._parts(of)
        for index, weight in enumerate(WEIGHTS):
            chance = _logistic(base + weight * surplus)
            self._losses[index] = FADE * self._losses[index] - math.log(chance if taken else 1.0 - chance)
        for found in (self._all, *self._by.values()):
            found.all *= FADE
            found.taken *= FADE
        for found in (self._all, *(self._by.setdefault(trait, _Count()) for trait in of.items())):
            found.all += 1.0
            found.taken += taken
        self._lately.append(taken)
        self.outcomes += 1

    def _parts(self, of: Traits) -> tuple[float, float]:
        """logit b, and the sum of what the traits say beyond it."""
        base = (self._all.taken + 1.0) / (self._all.all + 2.0)
        surplus = 0.0
        for trait in of.items():
            found = self._by.get(trait)
            if found is not None:
                surplus += _logit((found.taken + PRIOR * base) / (found.all + PRIOR)) - _logit(base)
        return _logit(base), surplus


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


def _logistic(value: float) -> float:
    return min(1.0 - 1e-6, max(1e-6, 1.0 / (1.0 + math.exp(-value))))

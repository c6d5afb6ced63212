"""The gate: is the new adapter better than what is in use, on texts that it has not seen?

Both score the same held-out texts at the same places, in nats per UTF-8 byte (the sum over texts, not the mean of
means). The interval is a paired bootstrap (Efron 1979) that draws files, where there are enough of them, since texts of
one file are no independent evidence. It is published if it is lower. Knows nothing of how either was made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from npllm.sleep.report import LEVEL

RESAMPLES = 2000
MIN_FILES = 5  # fewer files than this: single texts are drawn


@dataclass(frozen=True, slots=True)
class Scored:
    """One held-out text: what it costs under the version in use and under the new one."""

    file: str
    utf8_bytes: int
    before: float  # nats
    after: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's word. Gains are relative: (before - after) / before, with their `LEVEL` interval."""

    passed: bool
    reason: str
    nll_before: float  # nats per byte
    nll_after: float
    gain: float
    gain_low: float
    gain_high: float


def judge(scored: Sequence[Scored], *, min_held_out: int, seed: int = 0) -> Judgement:
    """Decide. Too few texts, or numbers that are none, never pass."""
    total = sum(item.utf8_bytes for item in scored)
    if len(scored) < min_held_out or total == 0:
        reason = f"Only {len(scored)} held-out texts, {min_held_out} are needed to judge."
        return Judgement(False, reason, 0.0, 0.0, 0.0, 0.0, 0.0)
    before = sum(item.before for item in scored) / total
    after = sum(item.after for item in scored) / total
    if not (math.isfinite(before) and math.isfinite(after)):
        return Judgement(False, "The new version's numbers are not finite.", before, math.inf, 0.0, 0.0, 0.0)
    gain = (before - after) / before if before > 0 else 0.0
    low, high = interval(scored, seed)
    if after < before:
        reason = "The held-out texts are likelier than before."
        return Judgement(True, reason, before, after, gain, low, high)
    reason = "The held-out texts are not likelier than before; what is in use stays."
    return Judgement(False, reason, before, after, gain, low, high)


def interval(scored: Sequence[Scored], seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval of the gain."""
    files = sorted({item.file for item in scored})
    by_file = len(files) >= MIN_FILES
    names = files if by_file else [str(number) for number in range(len(scored))]
    sums = {name: [0.0, 0.0] for name in names}
    for number, item in enumerate(scored):
        found = sums[item.file if by_file else str(number)]
        found[0] += item.before
        found[1] += item.after
    table = numpy.array([sums[name] for name in names])  # [clusters, 2]
    chance = numpy.random.default_rng(seed)
    drawn = table[chance.integers(0, len(names), (RESAMPLES, len(names)))].sum(axis=1)  # [resamples, 2]
    gains = (drawn[:, 0] - drawn[:, 1]) / numpy.maximum(drawn[:, 0], 1e-12)
    low, high = numpy.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

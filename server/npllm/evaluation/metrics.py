"""The numbers by which suggestions are judged, and how sure one may be of them.

Definitions, for a line with true rest t (from the cursor to the end of the line) and offered text o:
  exact            o = t, trailing blanks aside
  edit similarity  1 - levenshtein(o, t) / max(|o|, |t|)                         0 if nothing is offered
  characters saved |t| if exact; |t| - (characters typed + characters removed) if o was taken and edited, at
                   least 0; else 0. Reported as a share of all characters
  bits per byte    sum of -log2 p(t) / sum of utf8_bytes(t): a ratio of sums, so long lines weigh more
Intervals: percentile bootstrap over files (Efron), because lines of one file resemble each other; a difference
between two columns is taken within each resample (paired).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CLOSE = 0.6  # edit similarity from which the developer takes a suggestion and mends it
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class LineResult:
    """One held-out line in one column.

    Attributes:
        cluster: what the bootstrap resamples: the file, with the seed of its run.
        offered: None when nothing was offered.
        nats: negative log-likelihood of `truth`.
        memories: remembered pieces in the prompt.
        seen: the same line stood somewhere before: it was written in the morning, or is in the older state.
    """

    cluster: str
    path: str
    number: int
    column: int
    truth: str
    offered: str | None
    nats: float
    utf8_bytes: int
    memories: int
    latency_ms: float
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One column's numbers over a set of lines."""

    lines: int
    files: int
    offered: float  # share of lines with a suggestion
    exact: Interval
    similarity: Interval
    saved: Interval
    bits_per_byte: Interval
    latency_p50_ms: float
    latency_p95_ms: float
    memories: float  # pieces in the prompt, on average


Statistic = Callable[[LineResult], tuple[float, float]]  # of one line: numerator, denominator


def levenshtein(one: str, other: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn `one` into `other`."""
    if len(one) < len(other):
        one, other = other, one
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def similarity(offered: str | None, truth: str) -> float:
    """Edit similarity in [0, 1]."""
    if offered is None:
        return 0.0
    offered, truth = offered.rstrip(), truth.rstrip()
    longest = max(len(offered), len(truth))
    return 1.0 - levenshtein(offered, truth) / longest if longest else 1.0


def is_exact(offered: str | None, truth: str) -> bool:
    """Whether the offered text is the true one, trailing blanks aside."""
    return offered is not None and offered.rstrip() == truth.rstrip()


def saved(offered: str | None, truth: str) -> int:
    """Characters of `truth` that the developer needs not type."""
    if offered is None:
        return 0
    if is_exact(offered, truth):
        return len(truth)
    if similarity(offered, truth) < CLOSE:
        return 0
    head = _common(offered, truth)
    tail = _common(offered[head:][::-1], truth[head:][::-1])
    typed, removed = len(truth) - head - tail, len(offered) - head - tail
    return max(0, len(truth) - typed - removed)


def exact_share(line: LineResult) -> tuple[float, float]:
    """Share of lines."""
    return float(is_exact(line.offered, line.truth)), 1.0


def mean_similarity(line: LineResult) -> tuple[float, float]:
    """Mean over lines."""
    return similarity(line.offered, line.truth), 1.0


def saved_share(line: LineResult) -> tuple[float, float]:
    """Share of characters."""
    return float(saved(line.offered, line.truth)), float(len(line.truth))


def bits_per_byte(line: LineResult) -> tuple[float, float]:
    """Negative log-likelihood of the true lines, in bits per UTF-8 byte."""
    return line.nats / math.log(2), float(line.utf8_bytes)


def overall(lines: Sequence[LineResult], statistic: Statistic) -> float:
    """A statistic over lines: the sum of what they give, over the sum of what it is a share of."""
    parts = [statistic(line) for line in lines]
    return sum(part[0] for part in parts) / sum(part[1] for part in parts)


STATISTICS: dict[str, Statistic] = {
    "exact": exact_share,
    "similarity": mean_similarity,
    "saved": saved_share,
    "bits_per_byte": bits_per_byte,
}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarise(lines: Sequence[LineResult], *, seed: int = 0, resamples: int = RESAMPLES) -> Summary:
    """One column's numbers.

    Raises:
        ValueError: no lines.
    """
    if not lines:
        raise ValueError("no lines to summarise")
    intervals = {
        name: bootstrap(lines, statistic, seed=seed, resamples=resamples) for name, statistic in STATISTICS.items()
    }
    latencies = [line.latency_ms for line in lines]
    return Summary(
        lines=len(lines),
        files=len({line.cluster for line in lines}),
        offered=sum(line.offered is not None for line in lines) / len(lines),
        latency_p50_ms=percentile(latencies, 0.5),
        latency_p95_ms=percentile(latencies, 0.95),
        memories=sum(line.memories for line in lines) / len(lines),
        **intervals,
    )


def bootstrap(
    lines: Sequence[LineResult], statistic: Statistic, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """95 % percentile interval of a statistic, resampling whole files."""
    sums = list(_sums(lines, statistic).values())
    draws = [_ratio(sums, picks) for picks in _picks(len(sums), resamples, seed)]
    return Interval(overall(lines, statistic), percentile(draws, 0.025), percentile(draws, 0.975))


def difference(
    later: Sequence[LineResult],
    earlier: Sequence[LineResult],
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """`later` minus `earlier` on the same lines, with a paired bootstrap over files.

    Raises:
        ValueError: the two do not hold the same lines.
    """
    if sorted(map(_key, later)) != sorted(map(_key, earlier)):
        raise ValueError("columns that are compared must hold the same lines")
    one, other = _sums(later, statistic), _sums(earlier, statistic)
    two = [other[name] for name in one]
    draws = [_ratio(list(one.values()), picks) - _ratio(two, picks) for picks in _picks(len(one), resamples, seed)]
    gain = overall(later, statistic) - overall(earlier, statistic)
    return Interval(gain, percentile(draws, 0.025), percentile(draws, 0.975))


def _key(line: LineResult) -> tuple[str, int, int]:
    return line.cluster, line.number, line.column


def _sums(lines: Sequence[LineResult], statistic: Statistic) -> dict[str, tuple[float, float]]:
    """Numerator and denominator per cluster."""
    sums: dict[str, tuple[float, float]] = {}
    for line in lines:
        above, below = statistic(line)
        before = sums.get(line.cluster, (0.0, 0.0))
        sums[line.cluster] = (before[0] + above, before[1] + below)
    return sums


def _ratio(sums: Sequence[tuple[float, float]], picks: Sequence[int]) -> float:
    return sum(sums[pick][0] for pick in picks) / sum(sums[pick][1] for pick in picks)


def _picks(groups: int, resamples: int, seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [chance.choices(range(groups), k=groups) for _ in range(resamples)]


def _common(one: str, other: str) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length

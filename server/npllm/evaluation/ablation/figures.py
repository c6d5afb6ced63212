"""The figures of an arm over its finished cells, each with bootstrap intervals that draw whole commits (or files).

With N(a, k, S) the nats that arm a spends on the lines S after its k-th sleep, and base its frozen base:

    gain               1 - N(a, k, S) / N(base, k, S)           S: day k's whole slice, summed over days and seeds
    step               (N(before, k, S) - N(a, k, S)) / N(base, k, S), against the arm before
    forgetting         sum_i (max_k G(i, k) - G(i, T)) / sum_i max_k G(i, k)
                       G(i, k) = N(base, S_i) - N(a, k, S_i) on the apart lines S_i of day i < T, k from i to T
    beyond             the same, less what an arm that never sleeps loses there, as the project itself goes on
    backward transfer  mean over i < T of gain(T, S_i) - gain(i, S_i)      (Lopez-Paz & Ranzato 2017, 1706.08840)
    general code       N(a, T, general) / N(base, T, general) - 1
    displaced          N(a, T, general) / N(s, T, general) - 1, s an arm that never sleeps: what else likens code to its
                       own document is in both

The base reads a line the same on every day. The same line under several seeds is one cluster. The largest of several
noisy gains is a little too large by chance, so forgetting errs on the severe side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from npllm.evaluation.ablation.exam import Row
from npllm.evaluation.ablation.life import Lived

RESAMPLES = 2000
Found = Mapping[tuple[int, int], Lived]  # (seed, day) -> cell of one arm


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95 % and 90 % intervals."""

    value: float
    low: float
    high: float
    low90: float
    high90: float

    @property
    def told(self) -> bool:
        """Whether the 95 % interval leaves out zero."""
        return self.low > 0 or self.high < 0


class Sums:
    """Numbers of lines, summed by cluster; resampled together, so that everything in a figure is paired."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[Any, float]] = {}

    def add(self, cluster: str, **values: float) -> None:
        """Add to a cluster's sums."""
        self.put(cluster, values)

    def put(self, cluster: str, values: Mapping[Any, float]) -> None:
        """The same, with names that are no words."""
        found = self._sums.setdefault(cluster, {})
        for name, value in values.items():
            found[name] = found.get(name, 0.0) + value

    def figure(self, statistic: Callable[[Callable[[Any], Any]], Any], seed: int = 0) -> Figure | None:
        """`statistic` of the sums over clusters, which it asks for by name; None where it is no number.

        A name that nothing was added to has the sum 0. Percentile bootstrap (Efron 1979).
        """
        if not self._sums:
            return None
        names = sorted({name for sums in self._sums.values() for name in sums}, key=str)
        table = numpy.array([[sums.get(name, 0.0) for name in names] for sums in self._sums.values()])
        column = {name: number for number, name in enumerate(names)}

        def asked(drawn: Any) -> Any:
            def of(name: Any) -> Any:
                return drawn[:, column[name]] if name in column else numpy.zeros(len(drawn))

            with numpy.errstate(divide="ignore", invalid="ignore"):
                return statistic(of)

        value = float(asked(table.sum(axis=0, keepdims=True))[0])
        if not math.isfinite(value):
            return None
        chance = numpy.random.default_rng(seed)
        drawn = table[chance.integers(0, len(table), (RESAMPLES, len(table)))].sum(axis=1)
        draws = asked(drawn)
        draws = draws[numpy.isfinite(draws)]
        if not len(draws):
            return None
        low, low90, high90, high = numpy.quantile(draws, [0.025, 0.05, 0.95, 0.975])
        return Figure(value, float(low), float(high), float(low90), float(high90))


@dataclass(frozen=True, slots=True)
class Figures:
    """One arm's; None where there is nothing to tell."""

    cells: int
    lines: int
    bits_per_byte: Figure | None
    gain: Figure | None  # over all days
    gain_last: Figure | None  # on the last day
    step: Figure | None
    exact: Figure | None
    exact_times: Figure | None  # the base's
    exact_times_last: Figure | None
    forgetting: Figure | None
    backward: Figure | None
    general: Figure | None
    again: Figure | None  # share of rejected suggestions that are made again
    cerebellum: Figure | None  # the cerebellum alone: its gain over the frozen base on the same lines
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    sleep_minutes: float | None  # a sleep, on average
    tokens_per_s: float | None
    published: int
    rejected: int


def figures(arm: Found, base: Found, before: Found | None, last: int) -> Figures:
    """All figures over the cells that an arm and its base both have.

    Args:
        before: the arm that it is compared with.
        last: the number of the last day that was wanted.
    """
    both = {key: lived for key, lived in arm.items() if key in base}
    new, final, general, again = Sums(), Sums(), Sums(), Sums()
    steps, small = Sums(), Sums()
    lines = 0
    for (seed, day), lived in both.items():
        frozen = _rows(base[seed, day])
        earlier = _rows(before[seed, day]) if before is not None and (seed, day) in before else {}
        for key, row in _rows(lived).items():
            if row.part == "general":
                if day == last:
                    general.add(row.cluster, arm=row.nats, base=frozen[key].nats)
                continue
            if row.slice != day:
                continue
            lines += 1
            told = _told(row, frozen[key])
            new.put(row.cluster, told)
            if day == last:
                final.put(row.cluster, told)
            if key in earlier:
                steps.add(row.cluster, arm=row.nats, before=earlier[key].nats, base=frozen[key].nats)
        for key, row in _rows(lived, "cerebellum").items():
            small.add(row.cluster, arm=row.nats, base=frozen[key].nats)
        again.add(f"{seed}:{day}", met=lived.facts.get("met_again", 0), made=lived.facts.get("made_again", 0))
    older = _older(both, base, last)
    latencies = [row.latency_ms for lived in both.values() for row in lived.rows if row.latency_ms is not None]
    sleeps = [lived.facts["sleep"] for lived in both.values() if lived.facts.get("sleep")]
    contexts = [context for sleep in sleeps for context in sleep["report"].get("contexts", ())]
    trained = [context for context in contexts if context.get("tokens")]
    seconds = sum(context["tokens"] / max(context["tokens_per_s"], 1e-9) for context in trained)
    return Figures(
        cells=len(both),
        lines=lines,
        bits_per_byte=new.figure(lambda of: of("arm") / math.log(2) / of("bytes")),
        gain=new.figure(lambda of: 1 - of("arm") / of("base")),
        gain_last=final.figure(lambda of: 1 - of("arm") / of("base")),
        step=steps.figure(lambda of: (of("before") - of("arm")) / of("base")),
        exact=new.figure(lambda of: of("exact") / of("lines")),
        exact_times=new.figure(lambda of: of("exact") / of("exact_base")),
        exact_times_last=final.figure(lambda of: of("exact") / of("exact_base")),
        forgetting=older.figure(lambda of: _forgetting(of, last)),
        backward=older.figure(lambda of: _backward(of, last)),
        general=general.figure(lambda of: of("arm") / of("base") - 1),
        again=again.figure(lambda of: of("made") / of("met")),
        cerebellum=small.figure(lambda of: 1 - of("arm") / of("base")),
        latency_p50_ms=float(numpy.quantile(latencies, 0.5)) if latencies else None,
        latency_p95_ms=float(numpy.quantile(latencies, 0.95)) if latencies else None,
        sleep_minutes=sum(sleep["seconds"] for sleep in sleeps) / len(sleeps) / 60 if sleeps else None,
        tokens_per_s=sum(context["tokens"] for context in trained) / seconds if seconds else None,
        published=sum(context["verdict"] == "published" for context in contexts),
        rejected=sum(context["verdict"] == "rejected" for context in contexts),
    )


def difference(one: Found, other: Found, base: Found) -> Figure | None:
    """Gain of `one` minus gain of `other` on the same new slices, paired."""
    sums = Sums()
    for key in one.keys() & other.keys() & base.keys():
        others, frozen = _rows(other[key]), _rows(base[key])
        for name, row in _rows(one[key]).items():
            if row.slice == key[1]:
                sums.add(row.cluster, one=row.nats, other=others[name].nats, base=frozen[name].nats)
    return sums.figure(lambda of: (of("other") - of("one")) / of("base"))


def recovered(chain: Found, base: Found, swapped: Mapping[int, Lived], last: int) -> Figure | None:
    """Gain on another base after one sleep, as a share of the gain on the first base after the last day.

    Args:
        swapped: by seed, with the columns "frozen" and "" of the other base.
    """
    sums = Sums()
    for seed, lived in swapped.items():
        if (seed, last) not in chain or (seed, last) not in base:
            continue
        old, frozen, new_frozen = _rows(chain[seed, last]), _rows(base[seed, last]), _rows(lived, "frozen")
        for key, row in _rows(lived).items():
            if row.part != "general" and key in old:
                sums.add(
                    row.cluster, new=row.nats, new_base=new_frozen[key].nats, old=old[key].nats, base=frozen[key].nats
                )
    return sums.figure(lambda of: (1 - of("new") / of("new_base")) / (1 - of("old") / of("base")))


def beyond(arm: Found, still: Found, base: Found, last: int) -> Figure | None:
    """What an arm has forgotten, as a share of its best gain, beyond what is lost by one that has not slept."""
    whole = {seed for seed, _ in arm if all((seed, day) in both for both in (arm, still) for day in range(1, last + 1))}
    arm, still = ({key: cell for key, cell in cells.items() if key[0] in whole} for cells in (arm, still))
    sums = _older(still, base, last, "still", _older(arm, base, last))

    def statistic(of: Callable[[Any], Any]) -> Any:
        best, lost = _lost(of, last, "arm")
        return numpy.where(numpy.asarray(best) > 0, (lost - _lost(of, last, "still")[1]) / best, numpy.nan)

    return sums.figure(statistic)


def displaced(arm: Found, still: Found, last: int) -> Figure | None:
    """How many more nats general code costs after the last sleep than under an arm that has not slept; paired."""
    sums = Sums()
    for seed in sorted({seed for seed, day in arm if day == last and (seed, last) in still}):
        others = _rows(still[seed, last])
        for key, row in _rows(arm[seed, last]).items():
            if row.part == "general" and key in others:
                sums.add(row.cluster, arm=row.nats, still=others[key].nats)
    return sums.figure(lambda of: of("arm") / of("still") - 1)


def _rows(lived: Lived, column: str = "") -> dict[tuple[str, int, str, int], Row]:
    return {row.key: row for row in lived.rows if row.column == column}


def _told(row: Row, frozen: Row) -> dict[str, float]:
    exact = {"exact": float(bool(row.exact)), "exact_base": float(bool(frozen.exact))}
    return {"arm": row.nats, "base": frozen.nats, "bytes": float(row.utf8_bytes), "lines": 1.0, **exact}


def _older(arm: Found, base: Found, last: int, name: str = "arm", sums: Sums | None = None) -> Sums:
    """Of the apart lines of each day i before the last: the base's nats, and the arm's after each sleep k >= i.

    Args:
        name: the arm's, in the sums.
        sums: to which the arm's are added, where the base's are already.
    """
    alone = sums is None
    sums = Sums() if sums is None else sums
    seeds = {seed for seed, _ in arm}
    for seed in sorted(seeds):
        if not all((seed, day) in arm for day in range(1, last + 1)):
            continue  # an unfinished chain has no final state
        for day in range(1, last + 1):
            for row in _rows(arm[seed, day]).values():
                if row.part == "apart" and 0 < row.slice < last:
                    sums.put(row.cluster, {(name, row.slice, day): row.nats})
                    if alone and day == row.slice:
                        frozen = _rows(base[seed, day])[row.key]
                        sums.put(row.cluster, {("base", row.slice): frozen.nats})
    return sums


def _forgetting(of: Callable[[Any], Any], last: int) -> Any:
    best, lost = _lost(of, last, "arm")
    return numpy.where(numpy.asarray(best) > 0, lost / best, numpy.nan)


def _lost(of: Callable[[Any], Any], last: int, name: str) -> tuple[Any, Any]:
    """Nats: the best gains on the older slices, and how much of them is gone in the end."""
    best, final = 0.0, 0.0
    for slice in range(1, last):
        gains = [of(("base", slice)) - of((name, slice, day)) for day in range(slice, last + 1)]
        best = best + numpy.max(gains, axis=0)
        final = final + gains[-1]
    return best, best - final


def _backward(of: Callable[[Any], Any], last: int) -> Any:
    total: Any = 0.0
    count: Any = 0.0
    for slice in range(1, last):
        frozen = of(("base", slice))
        change = (of(("arm", slice, slice)) - of(("arm", slice, last))) / frozen
        total = total + numpy.where(frozen > 0, change, 0.0)  # a day may have no apart lines
        count = count + (frozen > 0)
    return total / count

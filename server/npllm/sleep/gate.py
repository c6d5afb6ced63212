"""The gate: is the new adapter better than what is in use on texts that it has not seen, and has it forgotten nothing?

Old and new score the same texts at the same places, in nats per UTF-8 byte (the sum over texts, not the mean of means).
Three kinds of texts: the new ones that this sleep held out; those that earlier sleeps held out, which nothing has
learned since, slice by slice; and general code. The intervals are a paired bootstrap (Efron 1979) that draws files,
where there are enough of them, since texts of one file are no independent evidence.

What decides, and why:

- *Better on the new* is a claim, and must be shown: the lower bound of the `LEVEL` (80 %) interval must be above zero,
  which an adapter that is no better passes one time in ten. With 40 texts the bound lies 1 to 3 % below the estimate,
  so a true gain of 3 % mostly passes and one of 1 % mostly waits. Waiting costs a day: what is rejected stays new.
- *Not worse on the old, and on general code* is a margin, and the estimate decides. To demand the lower bound above the
  margin would reject most adapters that forget nothing, as long as the slices are small (its interval alone is wider
  than 2 %); to demand only that the upper bound be above it would let through whatever has too few texts. The estimate
  errs to either side alike, and its error shrinks as slices are added. All older slices are taken together: a limit for
  each would be broken by chance as soon as there are many.
  To that comes a limit for each that chance seldom breaks: a slice of `MIN_OLD` texts objects by itself where all of
  its interval lies above the margin, so that what one day taught is not traded for what another did. The interval is
  wider (`SURE`), since there are several slices (Bonferroni); it is counted from the version in use, which can always
  be met.
- Forgetting is counted from the best that any version of the lineage had on a slice, where that is known, else from
  the version in use: ten sleeps must not lose the margin ten times. General code likewise: from the best of the bare
  base and the versions since (`general_marks`). A best counts for the same texts, read within as many tokens, alone:
  else what a setting made dearer could never be published again.

Knows nothing of how the adapters were made.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import numpy

from npllm.sleep.report import LEVEL, SliceKind, SliceReport

RESAMPLES = 2000
MIN_FILES = 5  # fewer files than this: single texts are drawn
MAX_FORGETTING = 0.02
MAX_GENERAL_LOSS = 0.01
MIN_OLD = 10  # older texts; fewer say nothing about forgetting
PER_SLICE = 20  # texts of an older slice that are judged: always the same ones
GENERAL = "general"  # the name of that slice
MOST_SLICES = 5  # older slices that are judged in one sleep
SURE = 1 - (1 - LEVEL) / MOST_SLICES  # of the interval of one of so many

Named = TypeVar("Named")


@dataclass(frozen=True, slots=True)
class Scored:
    """One held-out text: what it costs under the version in use and under the new one."""

    file: str
    utf8_bytes: int
    before: float  # nats
    after: float


@dataclass(frozen=True, slots=True)
class Old:
    """An older slice.

    Attributes:
        name: the version that was judged by it first; `date` is the day of that.
        best: the lowest nats per byte that a version had on these very texts; None: not known.
    """

    name: str
    date: str
    scored: tuple[Scored, ...]
    best: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's word. The figures are those of the new texts: gains are relative, (before - after) / before."""

    passed: bool
    reason: str
    nll_before: float  # nats per byte
    nll_after: float
    gain: float
    gain_low: float
    gain_high: float
    slices: tuple[SliceReport, ...] = ()
    harm: str = ""  # what it loses of what was there, beyond the margins; whatever it gains


def judge(
    scored: Sequence[Scored],
    *,
    min_held_out: int,
    old: Sequence[Old] = (),
    general: Sequence[Scored] = (),
    general_best: float | None = None,
    max_forgetting: float = MAX_FORGETTING,
    max_general_loss: float = MAX_GENERAL_LOSS,
    seed: int = 0,
) -> Judgement:
    """Decide. Too few texts, or numbers that are none, never pass.

    Args:
        general_best: the lowest nats per byte on these very passages so far; None: not known.
        max_forgetting, max_general_loss: relative.
    """
    if len(scored) < min_held_out or not _bytes(scored):
        reason = f"Only {len(scored)} held-out texts, {min_held_out} are needed to judge."
        return Judgement(False, reason, 0.0, 0.0, 0.0, 0.0, 0.0)
    new = _slice(SliceKind.NEW, "new", scored, seed)
    older = [_slice(SliceKind.OLD, one.name, one.scored, seed, one.date, one.best) for one in old if _bytes(one.scored)]
    parts = (new, *older)
    if _bytes(general):
        parts += (_slice(SliceKind.GENERAL, GENERAL, general, seed, best=general_best),)
    finite = all(math.isfinite(part.nll_before) and math.isfinite(part.nll_after) for part in parts)
    harm = ""
    if finite:
        harm = _harm(parts, max_forgetting, max_general_loss) or _lost_for_sure(old, max_forgetting, seed)
    reason = _objection(new, harm) if finite else "The new version's numbers are not finite."
    return Judgement(
        not reason,
        reason or "The held-out texts are likelier than before.",
        new.nll_before,
        new.nll_after,
        new.gain,
        new.gain_low,
        new.gain_high,
        parts,
        harm,
    )


def _objection(new: SliceReport, harm: str) -> str:
    """Why the new version is not published; "" where nothing speaks against it."""
    if new.gain <= 0:
        return "The held-out texts are not likelier than before; what is in use stays."
    if new.gain_low <= 0:
        return (
            f"The held-out texts are {new.gain:.1%} likelier than before, which {new.texts} texts in {new.files} files "
            "cannot tell from chance; what is in use stays."
        )
    return f"It gains {new.gain:.1%} on the new texts, but {harm}; what is in use stays." if harm else ""


def _harm(parts: Sequence[SliceReport], max_forgetting: float, max_general_loss: float) -> str:
    """What the new version loses of what was there, however much it gains; "" where that is within the margins."""
    older = [part for part in parts if part.kind is SliceKind.OLD]
    lost = forgotten(older)
    if sum(part.texts for part in older) >= MIN_OLD and lost > max_forgetting:
        worst = max(older, key=lambda part: part.nll_after / max(part.nll_best, 1e-12))
        return (
            f"forgets: older ones cost {lost:.1%} more than at their best ({max_forgetting:.1%} is allowed), most so "
            f"those of {worst.date or worst.name}"
        )
    general = [part for part in parts if part.kind is SliceKind.GENERAL]
    if (lost := forgotten(general)) > max_general_loss:
        return f"general code costs {lost:.1%} more than at its best ({max_general_loss:.1%} is allowed)"
    return ""


def _lost_for_sure(old: Sequence[Old], max_forgetting: float, seed: int) -> str:
    """That one older slice alone costs too much, by all of its interval; "" where none does."""
    for one in old:
        if len(one.scored) < MIN_OLD or not _bytes(one.scored):
            continue
        low, high = interval(one.scored, seed, SURE)
        if -high > max_forgetting:
            return (
                f"forgets those of {one.date or one.name}: they cost more than in use ({SURE:.0%} interval "
                f"{-high:.1%} to {-low:.1%}, {max_forgetting:.1%} is allowed)"
            )
    return ""


def forgotten(older: Sequence[SliceReport]) -> float:
    """How much more all these texts together cost than at their best, relative; each text counts alike."""
    best = sum(part.texts * part.nll_best for part in older)
    after = sum(part.texts * part.nll_after for part in older)
    return (after - best) / best if best > 0 else 0.0


def same_ones(ids: Sequence[UUID], most: int = PER_SLICE) -> list[UUID]:
    """Those of a slice that are judged in every later sleep; the database chooses alike (queries/replay.sql)."""
    return sorted(ids, key=lambda id: hashlib.sha256(id.bytes).digest())[:most]


def watched(slices: Sequence[Named], seed: str, most: int = MOST_SLICES) -> list[Named]:
    """Which older slices are judged: the newest ones, and as many of the others by chance, another time others.

    Args:
        slices: newest first.
    """
    newest = list(slices[: -(-most // 2)])
    rest = list(enumerate(slices))[len(newest) :]
    rest.sort(key=lambda pair: hashlib.sha256(f"{seed}|{len(slices) - pair[0]}".encode()).digest())
    return newest + [item for _, item in sorted(rest[: most - len(newest)], key=lambda pair: pair[0])]


def nll_key(slice_name: str) -> str:
    """Under which name a version's metrics hold what it made of a slice, in nats per byte."""
    return f"slice.{slice_name}.nll"


def best_key(slice_name: str) -> str:
    """The same, of the best version so far."""
    return f"slice.{slice_name}.best"


def bytes_key(slice_name: str) -> str:
    """How many bytes those texts had: with another number they are others."""
    return f"slice.{slice_name}.bytes"


def tokens_key(slice_name: str) -> str:
    """Within how many tokens of context they were read."""
    return f"slice.{slice_name}.tokens"


def alike(metrics: Mapping[str, float], name: str, utf8_bytes: float, tokens: int) -> bool:
    """Whether a version was judged by the same texts of a slice, within as many tokens (older versions do not say)."""
    return metrics.get(bytes_key(name)) == utf8_bytes and metrics.get(tokens_key(name), tokens) == tokens


def marks(name: str, scored: Sequence[Scored], tokens: int) -> dict[str, float]:
    """What a later sleep compares with: how the new version fares on a slice, read within so many tokens."""
    return {nll_key(name): nats_per_byte(scored), **_circumstances(name, scored, tokens)}


def best_of(lineage: Sequence[Mapping[str, float]], name: str, utf8_bytes: int, tokens: int) -> float | None:
    """The lowest nats per byte that a version had on a slice, if it was judged `alike`; None: not known.

    Args:
        lineage: the metrics of each version.
    """
    known = [
        metrics[nll_key(name)]
        for metrics in lineage
        if alike(metrics, name, utf8_bytes, tokens) and nll_key(name) in metrics
    ]
    return min(known, default=None)


def _circumstances(name: str, scored: Sequence[Scored], tokens: int) -> dict[str, float]:
    return {bytes_key(name): float(_bytes(scored)), tokens_key(name): float(tokens)}


def general_marks(scored: Sequence[Scored], best: float | None, tokens: int) -> dict[str, float]:
    """What a later sleep compares general code with: the lowest nats per byte so far, this version's among them."""
    if not _bytes(scored):
        return {}
    before = sum(item.before for item in scored) / _bytes(scored)
    known = [before, nats_per_byte(scored), *(() if best is None else (best,))]
    return {best_key(GENERAL): min(known), **_circumstances(GENERAL, scored, tokens)}


def nats_per_byte(scored: Sequence[Scored]) -> float:
    """Under the new version."""
    return sum(item.after for item in scored) / max(1, _bytes(scored))


def _slice(
    kind: SliceKind, name: str, scored: Sequence[Scored], seed: int, date: str = "", best: float | None = None
) -> SliceReport:
    total = _bytes(scored)
    before, after = sum(item.before for item in scored) / total, nats_per_byte(scored)
    finite = math.isfinite(before) and math.isfinite(after)
    low, high = interval(scored, seed) if finite else (0.0, 0.0)
    return SliceReport(
        kind=kind,
        name=name,
        date=date,
        texts=len(scored),
        files=len({item.file for item in scored}),
        nll_before=before,
        nll_after=after,
        nll_best=before if best is None else min(best, before),
        gain=(before - after) / before if finite and before > 0 else 0.0,
        gain_low=low,
        gain_high=high,
    )


def _bytes(scored: Sequence[Scored]) -> int:
    return sum(item.utf8_bytes for item in scored)


def interval(scored: Sequence[Scored], seed: int = 0, level: float = LEVEL) -> tuple[float, float]:
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
    low, high = numpy.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

"""What is written and what is asked on each day, by a seed, so that later days never show what older slices ask.

For the whole history, files are dealt once: in some the developer works in the mornings, the others lie apart. A day's
slice has two halves, as in `evaluation.plan`: lines that follow the morning's in the same files (*going on*), and lines
of files that lie apart (*apart*). Files that lie apart are never opened in a morning and never lie on the disk, on no
day; so an apart line of day 1 is still unseen on day 5. A line that went on may be seen from the next day on, as
part of the person's own project: it counts for its own day alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from npllm.evaluation import plan
from npllm.evaluation.ablation.history import History
from npllm.evaluation.lines import split_lines
from npllm.evaluation.plan import Visit
from npllm.evaluation.sources import EvaluationError

APART_SHARE = 0.35  # of the added lines lie in files that lie apart
ANYBODY = frozenset({"__init__", "__main__", "main", "utils", "util", "conftest", "index", "mod", "lib"})


@dataclass(frozen=True)
class Day:
    """One day of a history.

    Attributes:
        number: from 1.
        disk: the project as it lies on the disk in the morning, path -> text.
        clusters: of each (path, line number) that is asked in the slice, what the bootstrap resamples.
    """

    number: int
    morning: tuple[Visit, ...]
    going_on: tuple[Visit, ...]
    apart: tuple[Visit, ...]
    disk: Mapping[str, str]
    old: Mapping[str, str]
    clusters: Mapping[tuple[str, int], str]

    @cached_property
    def known(self) -> frozenset[str]:
        """Every line (stripped) that stood anywhere before the slice: on the disk, apart, or in the morning."""
        before = {line.strip() for text in self.old.values() for line in split_lines(text)}
        for visit in self.morning:
            stretch = range(visit.asks[0].number, visit.asks[-1].number + 1)
            before |= {visit.change.new[number].strip() for number in stretch}
        return frozenset(before)


def make(history: History, *, days: int, morning: int, held_out: int, seed: int) -> list[Day]:
    """The first `days` days of a history (all, if it has fewer).

    Raises:
        EvaluationError: a day has nothing to write, or nothing to ask.
    """
    apart = _dealt(history, morning, held_out, seed)
    made = []
    for number, changes in enumerate(history.changes[:days], start=1):
        chance = random.Random(f"{seed}:{number}")
        files = list(changes)
        chance.shuffle(files)
        here = [change for change in files if _key(change.path) not in apart]
        there = [change for change in files if _key(change.path) in apart]
        going_on = round(plan.GOING_ON * held_out)
        stretches = plan.choose(here, morning + going_on, plan.MORNING_FILES, chance)
        today, tomorrow = plan.cut(stretches, morning / max(1, morning + going_on))
        other = plan.choose(there, held_out - going_on, plan.HELD_OUT_FILES, chance)
        if not today or not (tomorrow or other):
            old, new = history.states[number - 1].revision, history.states[number].revision
            raise EvaluationError(
                f"{history.project}: too little was added between {old} and {new} for a day. Choose states that lie "
                "further apart."
            )
        before = history.states[number - 1].files
        made.append(
            Day(
                number=number,
                morning=tuple(today),
                going_on=tuple(tomorrow),
                apart=tuple(other),
                disk={path: text for path, text in before.items() if _key(path) not in apart},
                old=before,
                clusters={
                    (visit.path, ask.number): history.cluster(number, visit.path, ask.number)
                    for visit in (*tomorrow, *other)
                    for ask in visit.asks
                },
            )
        )
    return made


def _dealt(history: History, morning: int, held_out: int, seed: int) -> frozenset[str]:
    """The keys of the files that lie apart: about `APART_SHARE` of what counts, in a seeded order."""
    most = max(3, (morning + held_out) // plan.MORNING_FILES)  # so many lines of a file count on one day
    weights: dict[str, int] = {}
    for changes in history.changes:
        for change in changes:
            key = _key(change.path)
            weights[key] = weights.get(key, 0) + min(len(change.candidates), most)
    keys = sorted(weights)
    random.Random(f"{seed}:apart").shuffle(keys)
    apart: set[str] = set()
    here = there = 0.0
    for key in keys:
        if there / APART_SHARE < here / (1 - APART_SHARE):
            apart.add(key)
            there += weights[key]
        else:
            here += weights[key]
    return frozenset(apart)


def _key(path: str) -> str:
    """A file by its name, so that one that moves to another folder stays where it was dealt to."""
    parts = PurePosixPath(path)
    return "/".join(parts.parts[-2:]) if parts.stem in ANYBODY else parts.name


def asked(day: Day) -> Iterator[tuple[str, Visit]]:
    """A day's slice: "going on" or "apart", and the visit."""
    for visit in day.going_on:
        yield "going on", visit
    for visit in day.apart:
        yield "apart", visit

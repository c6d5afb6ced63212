"""Which lines are written in the morning and which are held out for the next morning, by a seed.

The next morning the person goes on where they stopped, and begins new things: half of the held-out lines follow the
morning's in the same files, half lie in files that the morning never opens. Nothing held out can be seen in the
morning: below the cursor a document is the older state. Within a file a stretch of consecutive candidates is taken.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from npllm.evaluation.lines import FileChange, content, indentation
from npllm.evaluation.sources import EvaluationError

INSIDE_SHARE = 0.25  # of the lines, asked after their first characters
MORNING_FILES = 12  # about so many files a morning, so that one file does not rule it
HELD_OUT_FILES = 20
GOING_ON = 0.5  # of the held-out lines, those that follow the morning's in the same files
_FIRST_WORD = re.compile(r"\s*\W*\w+\W?")


@dataclass(frozen=True, slots=True)
class Ask:
    """A completion is asked for on line `number` (of the newer file) when `column` characters stand there."""

    number: int
    column: int


@dataclass(frozen=True, slots=True)
class Visit:
    """A stretch of one file that is typed forward."""

    change: FileChange
    asks: tuple[Ask, ...]

    @property
    def path(self) -> str:
        return self.change.path

    def truth(self, ask: Ask) -> str:
        """What the developer is about to write from the cursor to the end of the line."""
        return content(self.change.new[ask.number])[ask.column :].rstrip()


@dataclass(frozen=True, slots=True)
class Plan:
    """The morning's lines and the held-out ones: behind them in their files, and in other files."""

    morning: tuple[Visit, ...]
    held_out: tuple[Visit, ...]


def make(changes: Sequence[FileChange], *, morning: int, held_out: int, seed: int) -> Plan:
    """Choose `morning` and `held_out` lines.

    Raises:
        EvaluationError: there is too little for both parts.
    """
    random_files = random.Random(f"{seed}:files")
    files = sorted(changes, key=lambda change: change.path)
    random_files.shuffle(files)
    going_on = round(GOING_ON * held_out)
    parts = _deal(files, (morning + going_on, held_out - going_on), (MORNING_FILES, HELD_OUT_FILES))
    stretches = choose(parts[0], morning + going_on, MORNING_FILES, random.Random(f"{seed}:morning"))
    today, tomorrow = cut(stretches, morning / max(1, morning + going_on))
    other = choose(parts[1], held_out - going_on, HELD_OUT_FILES, random.Random(f"{seed}:held-out"))
    made = Plan(tuple(today), (*tomorrow, *other))
    for name, part, wanted in (("morning", made.morning, morning), ("held-out", made.held_out, held_out)):
        if sum(len(visit.asks) for visit in part) < max(1, wanted // 2):
            raise EvaluationError(
                f"There are too few added lines for the {name} part ({wanted} wanted, "
                f"{sum(len(change.candidates) for change in changes)} in all in {len(changes)} files). "
                "Choose releases that lie further apart, or ask for fewer lines."
            )
    return made


def cut(visits: Sequence[Visit], share: float) -> tuple[list[Visit], list[Visit]]:
    """Each stretch cut in two, so that the first parts together hold `share` of the lines."""
    first, second = [], []
    done = taken = 0
    for visit in visits:
        done += len(visit.asks)
        count = min(len(visit.asks), max(0, round(share * done) - taken))
        taken += count
        if count:
            first.append(Visit(visit.change, visit.asks[:count]))
        if count < len(visit.asks):
            second.append(Visit(visit.change, visit.asks[count:]))
    return first, second


def _deal(
    files: Sequence[FileChange], wanted: tuple[int, int], spread: tuple[int, int]
) -> tuple[list[FileChange], list[FileChange]]:
    """Deal the files out, each to the part that is further from having enough."""
    parts: tuple[list[FileChange], list[FileChange]] = ([], [])
    filled = [0.0, 0.0]
    for change in files:
        part = 0 if filled[0] <= filled[1] else 1
        parts[part].append(change)
        share = min(len(change.candidates), _per_file(wanted[part], spread[part]))
        filled[part] += share / max(wanted[part], 1)
    return parts


def _per_file(wanted: int, spread: int) -> int:
    return max(3, math.ceil(wanted / spread))


def choose(files: Sequence[FileChange], wanted: int, spread: int, chance: random.Random) -> list[Visit]:
    """A stretch of lines from each file in turn; longer stretches if short ones are not enough."""
    limit = _per_file(wanted, spread)
    longest = max((len(change.candidates) for change in files), default=0)
    while limit < longest and sum(min(len(change.candidates), limit) for change in files) < wanted:
        limit += 1
    visits = []
    left = wanted
    for change in files:
        count = min(len(change.candidates), limit, left)
        if count == 0:
            continue
        start = chance.randrange(len(change.candidates) - count + 1)
        numbers = change.candidates[start : start + count]
        visits.append(Visit(change, tuple(Ask(n, _column(change.new[n], chance)) for n in numbers)))
        left -= count
    return visits


def _column(line: str, chance: random.Random) -> int:
    """Where the cursor stands: behind the indentation, or sometimes behind the first word."""
    start = indentation(line)
    inside = chance.random() < INSIDE_SHARE
    word = _FIRST_WORD.match(line)
    if inside and word and len(content(line).rstrip()) - word.end() >= 4:
        return word.end()
    return start

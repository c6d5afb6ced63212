"""Which lines are written in the morning and which are held out: split by file, by a seed.

A file belongs to one part only, and the documents opened in a part are that part's files, so no held-out line
can be seen through a morning document. Within a file a stretch of consecutive candidate lines is taken.
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
    """The morning's lines and the held-out ones, which lie in other files."""

    morning: tuple[Visit, ...]
    held_out: tuple[Visit, ...]


def make(changes: Sequence[FileChange], *, morning: int, held_out: int, seed: int) -> Plan:
    """Split by file and choose `morning` and `held_out` lines.

    Raises:
        EvaluationError: there is too little for both parts.
    """
    random_files = random.Random(f"{seed}:files")
    files = sorted(changes, key=lambda change: change.path)
    random_files.shuffle(files)
    parts = _deal(files, (morning, held_out), (MORNING_FILES, HELD_OUT_FILES))
    visits = []
    for name, part, wanted, spread in (
        ("morning", parts[0], morning, MORNING_FILES),
        ("held-out", parts[1], held_out, HELD_OUT_FILES),
    ):
        chosen = _choose(part, wanted, spread, random.Random(f"{seed}:{name}"))
        if sum(len(visit.asks) for visit in chosen) < max(1, wanted // 2):
            raise EvaluationError(
                f"There are too few added lines for the {name} part ({wanted} wanted, "
                f"{sum(len(change.candidates) for change in changes)} in all in {len(changes)} files). "
                "Choose releases that lie further apart, or ask for fewer lines."
            )
        visits.append(tuple(chosen))
    return Plan(*visits)


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


def _choose(files: Sequence[FileChange], wanted: int, spread: int, chance: random.Random) -> list[Visit]:
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

"""One large replacement as the several small changes it consists of: formatters and some editors send whole texts.

Lines that occur once on both sides are the fixed points (Bram Cohen's patience diff); between them, tokens are
compared where a followed range lies, so that a formatter leaves the range around the same code. Not for keystrokes:
costs in proportion to what is replaced.
"""

from __future__ import annotations

import bisect
import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from npllm.feedback.tracking import Change, TrackedRange, minimal

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
MOST_TOKENS = 3000  # on one side; more between two fixed points count as one change


def refine(before: str, change: Change, ranges: Sequence[TrackedRange]) -> list[Change]:
    """`change` as several that do the same, the last in the text first; fine around `ranges`, coarse elsewhere.

    They can be applied one after the other to `before`: each leaves the offsets of those that follow as they are.
    """
    near = _Near(ranges)
    fine: list[Change] = []
    for block in _blocks(before, change, near):
        fine += _by_tokens(before, block) if near(block.start, block.end) else [block]
    return _merged(before, fine, near)[::-1]


def needs_refining(change: Change, ranges: Iterable[TrackedRange]) -> bool:
    """Whether a minimal change is to be taken apart: a replacement at a range that also reaches beyond it."""
    if change.inserts or not change.new_text:
        return False
    return any(span.touches(change) and not (span.start <= change.start and change.end <= span.end) for span in ranges)


class _Near:
    """Whether a piece of the text touches one of the ranges."""

    def __init__(self, ranges: Sequence[TrackedRange]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # the furthest of all that start no later
        for span in sorted(ranges, key=lambda span: span.start):
            self._starts.append(span.start)
            self._ends.append(max([span.end, *self._ends[-1:]]))

    def __call__(self, start: int, end: int) -> bool:
        index = bisect.bisect_right(self._starts, end) - 1
        return index >= 0 and self._ends[index] >= start


def _blocks(before: str, change: Change, near: _Near) -> Iterable[Change]:
    """What differs between lines that are the same, as minimal changes in order; one for many lines without a range."""
    old = _lines(before[change.start : change.end], change.start)
    new = _lines(change.new_text, 0)
    starts = [*(line.start for line in old), change.end]
    at_old = at_new = told_old = told_new = 0
    for index_old, index_new in (*_anchors(old, new), (len(old), len(new))):
        start, end, last = starts[at_old], starts[index_old], index_old == len(old)
        if last or near(start, end + len(old[index_old].text)):
            yield from _differing(before, Change(starts[told_old], start, _joined(new[told_new:at_new])))
            yield from _differing(before, Change(start, end, _joined(new[at_new:index_new])))
            told_old, told_new = index_old + 1, index_new + 1
            if not last:
                line = old[index_old]  # the same but for white space
                yield from _differing(before, Change(end, end + len(line.text), new[index_new].text))
        at_old, at_new = index_old + 1, index_new + 1


def _joined(lines: Sequence[_Line]) -> str:
    return "".join(line.text for line in lines)


class _Line(NamedTuple):
    start: int
    text: str
    key: str


def _lines(text: str, offset: int) -> list[_Line]:
    return [_Line(offset + match.start(), match[0], "".join(match[0].split())) for match in _LINE.finditer(text)]


def _anchors(old: Sequence[_Line], new: Sequence[_Line]) -> list[tuple[int, int]]:
    """Pairs of lines that occur once on both sides, in the same order on both (longest increasing subsequence)."""
    counts_old, counts_new = Counter(line.key for line in old), Counter(line.key for line in new)
    where = {line.key: index for index, line in enumerate(new)}
    pairs = [
        (index, where[line.key])
        for index, line in enumerate(old)
        if line.key and counts_old[line.key] == 1 and counts_new[line.key] == 1
    ]
    ends: list[int] = []  # smallest last element of an increasing run, by its length
    chosen: list[int] = []  # index into pairs of that element
    previous = [-1] * len(pairs)
    for number, (_, target) in enumerate(pairs):
        length = bisect.bisect_left(ends, target)
        if length:
            previous[number] = chosen[length - 1]
        ends[length : length + 1] = [target]
        chosen[length : length + 1] = [number]
    run: list[tuple[int, int]] = []
    number = chosen[-1] if chosen else -1
    while number >= 0:
        run.append(pairs[number])
        number = previous[number]
    return run[::-1]


def _differing(before: str, change: Change) -> list[Change]:
    small = minimal(before, change)
    return [small] if small.start < small.end or small.new_text else []


def _by_tokens(before: str, change: Change) -> list[Change]:
    old, new = _TOKEN.findall(before[change.start : change.end]), _TOKEN.findall(change.new_text)
    if not old or not new or max(len(old), len(new)) > MOST_TOKENS:
        return [change]
    starts = [change.start]
    for token in old:
        starts.append(starts[-1] + len(token))
    # White space counts as equal while comparing: it must not decide which words belong together.
    blank_old = [" " if token.isspace() else token for token in old]
    blank_new = [" " if token.isspace() else token for token in new]
    found: list[Change] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, blank_old, blank_new, autojunk=False).get_opcodes():
        if kind != "equal":
            found.append(Change(starts[a], starts[b], "".join(new[c:d])))
            continue
        for left, right in zip(range(a, b), range(c, d), strict=True):
            found += _differing(before, Change(starts[left], starts[left + 1], new[right]))
    return found


def _merged(before: str, changes: Sequence[Change], near: _Near) -> list[Change]:
    """Neighbours put together where no range lies at or between them."""
    groups: list[list[Change]] = []
    for change in changes:
        start = groups[-1][0].start if groups else change.start
        if groups and not near(start, change.end):
            groups[-1].append(change)
        else:
            groups.append([change])
    return [_as_one(before, group) for group in groups]


def _as_one(before: str, group: Sequence[Change]) -> Change:
    if len(group) == 1:
        return group[0]
    parts = [group[0].new_text]
    for left, right in itertools.pairwise(group):
        parts += before[left.end : right.start], right.new_text
    return Change(group[0].start, group[-1].end, "".join(parts))

"""One large replacement as the several small changes it consists of: formatters and some editors send whole texts.

Lines that occur once on both sides are the fixed points (Bram Cohen's patience diff); between them, tokens are
compared where a followed range lies, so that a formatter leaves the range around the same code. Costs in proportion to
what is replaced, so it can be done in steps, between which keystrokes are heard.
"""

from __future__ import annotations

import bisect
import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from npllm.feedback.tracking import Change, TrackedRange, minimal

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_BLANK = re.compile(r"[^\S\n]+")
MOST_TOKENS = 3000  # on one side; more between two fixed points count as one change
AT_ONCE = 500  # lines that are looked at in one step
CHARACTERS = 25_000  # or characters


def refining(before: str, change: Change, ranges: Sequence[TrackedRange]) -> Iterator[Change | None]:
    """`change` as several that do the same, the last in the text first; fine around `ranges`, coarse elsewhere.

    They can be applied one after the other to `before`: each leaves the offsets of those that follow as they are. In
    steps of less than a millisecond or so: None where there is more to do, then the changes.
    """
    near = _Near(ranges)
    fine: list[Change] = []
    for block in _blocks(before, change, near):
        if block is not None:
            fine += _by_tokens(before, block) if near(block.start, block.end) else [block]
        yield None
    yield from _merged(before, fine, near)[::-1]


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


def _blocks(before: str, change: Change, near: _Near) -> Iterator[Change | None]:
    """What differs between lines that are the same, as minimal changes in order; one for many lines without a range.

    None where a step ends.
    """
    old, new = _Lines(before[change.start : change.end], change.start), _Lines(change.new_text, 0)
    yield from old.read()
    yield from new.read()
    anchors = _Anchors(old.keys, new.keys)
    yield from anchors.find()
    at_old = at_new = told_old = told_new = 0  # lines
    anchors.old.append(len(old.keys))
    anchors.new.append(len(new.keys))
    for number, (index_old, index_new) in enumerate(zip(anchors.old, anchors.new)):
        if number % AT_ONCE == AT_ONCE - 1:
            yield None
        start, end, last = old.starts[at_old], old.starts[index_old], index_old == len(old.keys)
        if last or near(start, old.starts[index_old + 1]):
            yield from _differing(before, Change(old.starts[told_old], start, new.text(told_new, at_new)))
            yield from _differing(before, Change(start, end, new.text(at_new, index_new)))
            told_old, told_new = index_old + 1, index_new + 1
            if not last:  # the same but for white space
                same = Change(end, old.starts[index_old + 1], new.text(index_new, index_new + 1))
                yield from _differing(before, same)
        at_old, at_new = index_old + 1, index_new + 1


class _Lines:
    """A text by lines, their ends with them. `starts` has one more: where the last one ends; all count from `offset`.

    A line's key is what it says, white space aside.
    """

    def __init__(self, text: str, offset: int) -> None:
        self._text = text
        self._offset = offset
        self.starts: list[int] = []
        self.keys: list[str] = []

    def read(self) -> Iterator[None]:
        """Fill `starts` and `keys`."""
        text, at, sizes = self._text, 0, [self._offset]
        while at < len(text):
            stop = text.find("\n", at + CHARACTERS) + 1 or len(text)
            some = text[at:stop]
            ended = some.endswith("\n")
            sizes += [len(line) + 1 for line in some.split("\n")]
            self.keys += _squeezed(some).split("\n")
            if ended:  # what comes behind the last line end is no line
                sizes.pop()
                self.keys.pop()
            else:
                sizes[-1] -= 1
            at = stop
            yield None
        self.starts = list(itertools.accumulate(sizes))
        yield None

    def text(self, first: int, last: int) -> str:
        """Lines `first` up to `last`."""
        return self._text[self.starts[first] - self._offset : self.starts[last] - self._offset]


def _squeezed(text: str) -> str:
    """Without white space, except for line ends."""
    if not text.isascii():
        return _BLANK.sub("", text)
    for blank in " \t\r\f\v":
        text = text.replace(blank, "")
    return text


class _Anchors:
    """Pairs of lines that occur once on both sides, in the same order on both (longest increasing subsequence)."""

    def __init__(self, old: Sequence[str], new: Sequence[str]) -> None:
        self._old = old
        self._new = new
        self.old: list[int] = []
        self.new: list[int] = []

    def find(self) -> Iterator[None]:
        """Fill `old` and `new`, the lines of each pair."""
        counts_old: Counter[str] = Counter()
        counts_new: Counter[str] = Counter()
        where: dict[str, int] = {}
        for counts, keys in ((counts_old, self._old), (counts_new, self._new)):
            for at in range(0, len(keys), AT_ONCE):
                counts.update(keys[at : at + AT_ONCE])
                if counts is counts_new:
                    where.update(zip(keys[at : at + AT_ONCE], itertools.count(at)))
                yield None
        old: list[int] = []  # indices of lines; plain numbers, since many small tuples set off the garbage collector
        for at in range(0, len(self._old), AT_ONCE):
            once = [i for i, key in enumerate(self._old[at : at + AT_ONCE], at) if counts_old[key] == 1 and key]
            old += [i for i in once if counts_new[self._old[i]] == 1]
            yield None
        new = [where[self._old[i]] for i in old]
        yield from self._rising(old, new)

    def _rising(self, old: Sequence[int], new: Sequence[int]) -> Iterator[None]:
        ends: list[int] = []  # smallest last element of an increasing run, by its length
        chosen: list[int] = []  # index into `new` of that element
        previous = [-1] * len(new)
        for number, target in enumerate(new):
            if number % AT_ONCE == AT_ONCE - 1:
                yield None
            length = bisect.bisect_left(ends, target) if ends and target <= ends[-1] else len(ends)
            if length:
                previous[number] = chosen[length - 1]
            ends[length : length + 1] = [target]
            chosen[length : length + 1] = [number]
        run: list[int] = []
        number = chosen[-1] if chosen else -1
        while number >= 0:
            run.append(number)
            number = previous[number]
        run.reverse()
        self.old, self.new = [old[number] for number in run], [new[number] for number in run]
        yield None


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

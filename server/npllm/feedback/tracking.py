"""A text range that is followed through edits, by offsets alone.

Following one edit costs the same in any document: nothing is copied or compared. Only `minimal` and `localise` look
at text, and only at what the edit replaces.
"""

from __future__ import annotations

from dataclasses import dataclass

REACH = 200  # characters over which the same edit may be told at another place (see `localise`)


@dataclass(frozen=True, slots=True)
class Change:
    """`before[start:end]` became `new_text`."""

    start: int
    end: int
    new_text: str

    @property
    def shift(self) -> int:
        """By how many characters what lies behind it moves."""
        return len(self.new_text) - (self.end - self.start)

    @property
    def inserts(self) -> bool:
        """Whether it takes nothing away."""
        return self.start == self.end

    def splice(self, before: str) -> str:
        """The text after it; copies the text."""
        return before[: self.start] + self.new_text + before[self.end :]


@dataclass(slots=True)
class TrackedRange:
    """`text[start:end]`, through whatever happens around and in it; what is written at either border belongs to it."""

    start: int
    end: int

    def apply(self, change: Change) -> None:
        """Follow one change."""
        if change.start > self.end:
            return
        if change.end < self.start:
            self.start += change.shift
            self.end += change.shift
        else:
            self.end = max(self.end, change.end) + change.shift
            self.start = min(self.start, change.start)

    def touches(self, change: Change) -> bool:
        """Whether a change is in the range or at one of its borders."""
        return change.start <= self.end and change.end >= self.start

    def meets(self, other: TrackedRange) -> bool:
        """Whether two ranges have a place in common, be it a border."""
        return other.start <= self.end and other.end >= self.start


def minimal(before: str, change: Change) -> Change:
    """The same change without what it replaces by itself: editors may send a whole line, or the whole document.

    A pure insertion or deletion comes back as it is.
    """
    if change.inserts or not change.new_text:
        return change
    old, new = before[change.start : change.end], change.new_text
    head = common_head(old, new)
    tail = common_tail(old, new, min(len(old), len(new)) - head)
    return Change(change.start + head, change.end - tail, new[head : len(new) - tail])


def localise(before: str, change: Change, low: int, high: int) -> tuple[str, int] | None:
    """A change as seen from a region `before[low:high]`: (new text, end), so that `before[low:end]` became new text.

    `end` is as near to `high` as it can be, and not less. The same edit can often be told at several places (in "aab"
    becoming "aaab", which "a" is new?), and editors that compare texts tell another one than the person made;
    where the change can be told at the region, it is. None if it cannot, or changes what lies before the region.
    """
    start, end, new = change.start, change.end, change.new_text
    reach = max(REACH, len(new))
    if start - high > reach or low - end > reach:
        return None
    if start > low:
        new, start = before[low:start] + new, low
    if end < high:
        new, end = new + before[end:high], high
    if start < low:
        head = before[start:low]
        if not new.startswith(head):
            return None
        new = new[len(head) :]
    tail = common_tail(before[high:end], new)
    return new[: len(new) - tail], end - tail


def drawn(before: str, change: Change, low: int, high: int) -> Change:
    """An insertion told a little behind the region, or a deletion that crosses its border, told in it if it can be."""
    size = change.end - change.start
    if change.inserts and 0 < change.start - high <= REACH:
        return _slid(before, change, high)
    if not change.new_text and 0 < size <= high - low and change.start < high and change.end > low:
        return _slid(before, change, min(max(change.start, low), high - size))
    return change


def _slid(before: str, change: Change, start: int) -> Change:
    """The same pure insertion or deletion told at `start`; as it is where that would be another one."""
    size = change.end - change.start
    if start == change.start or abs(start - change.start) > REACH:
        return change
    first, last = min(start, change.start), max(start, change.start) + size
    after = before[first : change.start] + change.new_text + before[change.end : last]
    moved = Change(start, start + size, after[start - first :][: len(change.new_text)])
    return moved if before[first:start] + moved.new_text + before[moved.end : last] == after else change


def common_head(a: str, b: str) -> int:
    """Length of the common beginning; halving, so that long texts are compared in C, and hardly copied."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a.startswith(b[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def common_tail(a: str, b: str, most: int | None = None) -> int:
    """Length of the common end, `most` at most."""
    low, high = 0, min(len(a), len(b)) if most is None else most
    while low < high:
        middle = (low + high + 1) // 2
        if a.endswith(b[len(b) - middle : len(b) - low], 0, len(a) - low):
            low = middle
        else:
            high = middle - 1
    return low


def plain(text: str) -> str:
    """The text with "\n" for every line end."""
    return text.replace("\r\n", "\n")

"""A text range that is followed through edits, by offsets alone.

Cost per edit is constant: no text is copied or compared, except by `minimal`, which looks at the replaced part.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """`before[start:end]` became `new_text`."""

    start: int
    end: int
    new_text: str

    @property
    def shift(self) -> int:
        return len(self.new_text) - (self.end - self.start)


@dataclass(slots=True)
class TrackedRange:
    """`text[start:end]`, through whatever happens around and in it.

    Text inserted at its end belongs to it (the person goes on writing there); text inserted at its start does
    not, unless the range is empty.
    """

    start: int
    end: int

    def apply(self, change: Change) -> None:
        """Follow one change."""
        size = len(change.new_text)
        if change.start > self.end:
            return
        if change.start == self.end:
            self.end += size
        elif change.end <= self.start:
            self.start += change.shift
            self.end += change.shift
        else:  # they overlap: new text that replaces a border lies before the range at its start, inside at its end
            end = self.end + change.shift if change.end <= self.end else change.start + size
            if change.start < self.start:
                self.start = change.start + size
            self.end = max(self.start, end)

    def touches(self, change: Change) -> bool:
        """Whether a change is in the range or at one of its ends."""
        return change.start <= self.end and change.end >= self.start


def minimal(before: str, change: Change) -> Change:
    """The same change without what it replaces by itself: editors may send a whole line, or the whole document.

    A pure insertion or deletion comes back as it is.
    """
    if change.start == change.end or not change.new_text:
        return change
    old, new = before[change.start : change.end], change.new_text
    head = _common(old, new)
    old, new = old[head:], new[head:]
    tail = _common(old[::-1], new[::-1])
    return Change(change.start + head, change.end - tail, new[: len(new) - tail])


def _common(a: str, b: str) -> int:
    """Length of the common prefix; halving, so that long equal texts are compared in C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low

"""Short-term memory: suggestions just made, served again while the person types through them.

A suggestion fits when the text before the cursor is what it was, plus a beginning of the suggestion, and the text
behind is what it was; then the rest of it is the answer. Taking back characters typed through makes the rest longer
again; taking back more than that ends it. What was rejected at a place is not offered there again.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from npllm.types import Place, Suggestion

EXPIRES_S = 120.0
PER_DOCUMENT = 8
DOCUMENTS = 32
REJECTED = 200  # remembered, newest
BEFORE = 400  # characters that must be the same before the cursor
BEHIND = 100  # and behind it


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    before: str  # last characters of the prefix
    behind: str  # first characters of the suffix
    suggestion: Suggestion
    at: float


class CompletionCache:
    """Not for several threads."""

    def __init__(self, *, expires_s: float = EXPIRES_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._expires_s = expires_s
        self._clock = clock
        self._entries: OrderedDict[str, deque[_Entry]] = OrderedDict()
        self._rejected: OrderedDict[tuple[str, int, str], None] = OrderedDict()

    def put(self, place: Place, prefix: str, suffix: str, suggestion: Suggestion) -> None:
        """Remember what was suggested at `place`, between `prefix` and `suffix`."""
        entries = self._entries.setdefault(place.uri, deque(maxlen=PER_DOCUMENT))
        self._entries.move_to_end(place.uri)
        entry = _Entry(place.offset, prefix[-BEFORE:], suffix[:BEHIND], suggestion, self._clock())
        entries.appendleft(entry)
        while len(self._entries) > DOCUMENTS:
            self._entries.popitem(last=False)

    def lookup(self, place: Place, prefix: str, suffix: str) -> tuple[Suggestion, str] | None:
        """The newest suggestion that fits here, and the rest of it (never empty); else None."""
        for entry in self._entries.get(place.uri, ()):
            if self._clock() - entry.at > self._expires_s:
                continue
            typed_length = place.offset - entry.offset
            if not 0 <= typed_length < len(entry.suggestion.text):
                continue
            typed = entry.suggestion.text[:typed_length]
            if not (entry.before + typed).endswith(prefix[-BEFORE:]) or not prefix.endswith(typed):
                continue
            if suffix[:BEHIND] != entry.behind:
                continue
            rest = entry.suggestion.text[typed_length:]
            if rest and not self.rejected(place, rest):
                return entry.suggestion, rest
        return None

    def invalidate(self, uri: str) -> None:
        """Forget the suggestions of a document (closed, or changed as a whole)."""
        self._entries.pop(uri, None)

    def clear(self) -> None:
        """Forget all suggestions (a new model answers now)."""
        self._entries.clear()

    def forget(self) -> None:
        """Forget everything, also what was rejected."""
        self.clear()
        self._rejected.clear()

    def reject(self, place: Place, text: str) -> None:
        """Do not offer `text` at this place again."""
        self._rejected[_rejection(place, text)] = None
        self._rejected.move_to_end(_rejection(place, text))
        while len(self._rejected) > REJECTED:
            self._rejected.popitem(last=False)

    def allow(self, place: Place, text: str) -> None:
        """`text` may be offered at this place after all."""
        self._rejected.pop(_rejection(place, text), None)

    def rejected(self, place: Place, text: str) -> bool:
        """Whether `text` was rejected at this place."""
        return _rejection(place, text) in self._rejected


def _rejection(place: Place, text: str) -> tuple[str, int, str]:
    return place.uri, place.offset, text.strip()

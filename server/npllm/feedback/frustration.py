"""Signs of frustration in what a person does: refusals in a row, storms of undoing. Kept apart from what they say.

An undo is told from changes alone: one that takes back the last change as a whole, or the end of what was just typed,
two characters or more at once. Knows no clock and no storage; time (seconds, monotonic) is passed in.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from npllm.feedback.tracking import Change
from npllm.types import Outcome, OutcomeKind, Place, Sign, SignKind, new_id

REFUSED = (OutcomeKind.REJECTED, OutcomeKind.DISMISSED)
TAKEN = (OutcomeKind.ACCEPTED, OutcomeKind.PARTIALLY_ACCEPTED, OutcomeKind.EDITED)
IN_A_ROW = 5  # refusals
STORM = 5  # undos ...
STORM_S = 10.0  # ... within this
FULL = 10  # of either: the greatest strength
KEPT = 50  # changes that may be taken back
LONGEST = 2000  # characters of one; what is longer is not compared
DOCUMENTS = 32
TOLD = 500  # suggestions whose refusal was counted


@dataclass(slots=True)
class _Edit:
    start: int
    old: str
    new: str


class Signs:
    """One per server."""

    def __init__(self) -> None:
        self._edits: OrderedDict[str, deque[_Edit]] = OrderedDict()
        self._undos: deque[float] = deque()
        self._refusals = 0
        self._counted: OrderedDict[UUID, None] = OrderedDict()
        self._last: OrderedDict[str, UUID] = OrderedDict()  # the last suggestion, by document

    def offered(self, uri: str, suggestion_id: UUID) -> None:
        """A suggestion is on screen: what is done next may be about it."""
        self._last[uri] = suggestion_id
        self._last.move_to_end(uri)
        while len(self._last) > DOCUMENTS:
            self._last.popitem(last=False)

    def outcome(self, outcome: Outcome, place: Place) -> Sign | None:
        """What became of a suggestion; each is counted once."""
        if outcome.kind in TAKEN:
            self._refusals = 0
        elif outcome.kind in REFUSED and outcome.suggestion_id not in self._counted:
            self._counted[outcome.suggestion_id] = None
            while len(self._counted) > TOLD:
                self._counted.popitem(last=False)
            self._refusals += 1
            if self._refusals % IN_A_ROW == 0:
                return self._sign(SignKind.REFUSALS, self._refusals, place, outcome.suggestion_id)
        return None

    def changed(self, place: Place, before: str, change: Change, now: float) -> Sign | None:
        """A document changed: `before[start:end]` became `new_text`."""
        edits = self._edits.setdefault(place.uri, deque(maxlen=KEPT))
        self._edits.move_to_end(place.uri)
        while len(self._edits) > DOCUMENTS:
            self._edits.popitem(last=False)
        if max(change.end - change.start, len(change.new_text)) > LONGEST:
            edits.clear()
            return None
        if not _undoes(edits, _Edit(change.start, before[change.start : change.end], change.new_text)):
            return None
        self._undos.append(now)
        while now - self._undos[0] > STORM_S:
            self._undos.popleft()
        if len(self._undos) < STORM:
            return None
        self._undos.clear()
        return self._sign(SignKind.UNDO_STORM, STORM, place, self._last.get(place.uri))

    def _sign(self, kind: SignKind, count: int, place: Place, about: UUID | None) -> Sign:
        id = new_id()
        return Sign(id, about or id, kind, min(1.0, count / FULL), place, datetime.now(UTC))


def _undoes(edits: deque[_Edit], edit: _Edit) -> bool:
    """Whether `edit` takes back the last one; either way it is remembered or has taken that away."""
    last = edits[-1] if edits else None
    if last is not None and (edit.start, edit.old, edit.new) == (last.start, last.new, last.old):
        edits.pop()
        return max(len(edit.old), len(edit.new)) > 1  # a letter typed and taken back is a slip
    if last is not None and not last.old:
        end = last.start + len(last.new)
        if not edit.old and edit.start == end and len(edit.new) == 1:  # typing on
            last.new = (last.new + edit.new)[-LONGEST:]
            last.start = end + 1 - len(last.new)
            return False
        if edit.old and not edit.new and edit.start + len(edit.old) == end and last.new.endswith(edit.old):
            last.new = last.new[: -len(edit.old)]
            return len(edit.old) > 1
    edits.append(edit)
    return False

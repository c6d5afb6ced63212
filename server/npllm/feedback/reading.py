"""What one change is to a suggestion on screen: typed through, accepted whole, something else, or elsewhere.

Sees the text around the change only. From changes alone a key that takes the suggestion is told from typing by how
much one change inserts; a line end is a line end ("\\n" may come back as "\\r\\n"), and white space at the end is not
needed.
"""

from __future__ import annotations

import enum

from npllm.feedback.case import Case
from npllm.feedback.survival import survival
from npllm.feedback.tracking import Change, TrackedRange, common_head, localise, plain

PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}


class Reading(enum.Enum):
    """What a change is to a suggestion on screen."""

    ALONG = enum.auto()  # typed through, or taken back
    WHOLE = enum.auto()  # all of it stands there now, by a key that takes it
    OTHER = enum.auto()  # something else is written at its place
    ELSEWHERE = enum.auto()


def read(case: Case, before: str, raw: Change, small: Change, now: float) -> Reading:
    """A change while it is on screen. ALONG and WHOLE are followed here; OTHER and ELSEWHERE with `follow`.

    Args:
        raw: the change as the editor sent it.
        small: the same without what it replaces by itself.
    """
    low, cursor = case.span.start, case.span.end
    high = cursor + case.replaced
    if small.inserts and not small.new_text:
        if raw.start != cursor or not case.text.startswith(plain(raw.new_text), case.typed):
            return Reading.ALONG
        new, end = before[low:cursor] + raw.new_text, raw.end  # typed over: the editor had closed a bracket
        case.closed = case.closed[len(raw.new_text) :]
    else:
        local = localise(before, small, low, high)
        if local is None:
            return Reading.OTHER if case.cuts(before, small) else Reading.ELSEWHERE
        new, end = local
        if end > high and common_head(before[low:end], new) > high - low:
            return Reading.ELSEWHERE
    expected, case.expected = case.expected, False
    if case.replaced:
        if plain(new).rstrip() == case.goal:
            return _whole(case, low, new, now)
        old = before[cursor:high]
        if not new.endswith(old):
            return Reading.OTHER
        new = new[: len(new) - len(old)]
    written = plain(new)
    added = written[case.typed :].strip() if len(written) > case.typed else ""
    at_once = len(added) > 1 and PAIRS.get(added[:1]) != added[1:]  # not a bracket that the editor closes
    by_key = expected or (at_once and not case.reported)  # else the editor will say so in a moment
    if expected and added and survival(added, case.text) > 0.5:
        return _whole(case, low, new, now)
    if added and (by_key or at_once or case.taken) and len(case.goal) > 1:
        there = new + before[end : end + len(case.text) + case.text.count("\n")]
        if plain(there).startswith(case.goal):
            if expected or case.taken or not case.reported:
                return _whole(case, low, new, now, max(0, len(case.goal) - len(written)))
            case.inserted = True
    whole = case.text.startswith(written)
    if not whole and len(written) == case.typed + 2 and PAIRS.get(written[-2]) == written[-1]:
        case.closed = written[-1] + case.closed
        new, written = new[:-1], written[:-1]  # the editor has closed it; typing goes on in between
        whole = case.text.startswith(written)
    if not whole:
        return Reading.OTHER
    taken = len(written) if by_key and added else min(case.taken, len(written))
    case.part_undone |= bool(case.taken > 1 and not taken)
    case.taken = taken
    case.closed = case.closed if len(written) >= case.typed else ""
    if at_once and case.reported:
        case.at_once += len(written) - case.typed
    case.typed = len(written)
    case.by_hand = max(case.by_hand, case.typed - (case.at_once if case.reported else case.taken))
    case.span.end = low + len(new)
    case.since, case.left, case.left_at, case.blurred = now, False, None, False
    return Reading.ALONG


def _whole(case: Case, low: int, new: str, now: float, shared: int = 0) -> Reading:
    if "\n" in new[len(new.rstrip()) :]:
        new = new.rstrip()  # what comes on the next line is not it
    case.span = TrackedRange(low, low + len(new))
    case.accept(now, shared)
    return Reading.WHOLE

"""One suggestion and what becomes of it: a state machine over document changes.

SHOWN (on screen, perhaps typed through in part) -> ACCEPTED, or -> DIVERGED (something else is written there); then
followed. Typing a suggestion out by hand leaves it SHOWN: it was right, but saved nothing. Line ends count as equal
("\\n" may come back as "\\r\\n"). Knows nothing of documents but the text around each change, and no clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import timedelta

from npllm.feedback import reward
from npllm.feedback.detail import detail
from npllm.feedback.looks import LAST_LOOK_S, MILESTONES, waits
from npllm.feedback.survival import Survival, begins
from npllm.feedback.tracking import Change, TrackedRange, drawn, plain
from npllm.types import Outcome, OutcomeKind, Suggestion, new_id

COMMAND_S = 5.0  # an acceptance that arrives this long after a change that did not look like one, explains it
CHECKED = 64  # characters around the cursor by which an offer that came too late is known


class State(enum.Enum):
    SHOWN = enum.auto()
    DIVERGED = enum.auto()
    ACCEPTED = enum.auto()


@dataclass(slots=True)
class Case:
    """What is known about one suggestion. Times are seconds on one monotonic scale."""

    suggestion: Suggestion
    span: TrackedRange  # what stands in the document for it: typed, accepted, or written instead
    text: str  # the suggestion, with "\n" for every line end
    replaced: int  # characters behind the cursor that it replaces (a rewritten selection)
    offered_at: float
    shown_at: float  # from when on it is on screen
    since: float  # when it was accepted, when something else was last written, or when it was last typed through
    reported: bool = False  # the editor says when its keys take it, as a whole or in part
    state: State = State.SHOWN
    typed: int = 0  # characters of `text` that stand in the document
    taken: int = 0  # of them, put there by a key that takes them
    by_hand: int = 0  # the most of them that were typed while it was on screen
    at_once: int = 0  # characters of it that came several at once, where the editor says which of these it took
    inserted: bool = False  # all of it was put there at once, and the editor did not say that it took it
    part_undone: bool = False  # a part was taken, and removed in one go
    closed: str = ""  # brackets and quotes behind what is typed through, which the editor has closed by itself
    expected: bool = False  # the command came; its change is still to come
    dismissed: bool = False
    superseded: bool = False
    hidden: bool = False  # another one was on screen in its place
    checked: bool = False  # the document was what it was made for
    left: bool = False  # the person is on another line
    left_at: float | None = None  # since when it is off the screen
    ended_at: float | None = None  # since when it is accepted, or something else is written there
    cut: bool = False  # characters before its place were taken back
    shared: int = 0  # characters behind the range that stood there before and complete the suggestion
    broken: bool = False  # nothing can be said about what stands there
    by_key: bool = False  # all of it was taken by a key
    removed: str = ""  # it was removed as a whole, in one go: what stood there
    redone: bool = False  # and that was put back in one go
    put_back: bool = False  # all of it stands there, because what an older one had put there was put back
    overwritten: bool = False  # most of it was replaced in one go by something else (a paste)
    moved: bool = False  # the person went on elsewhere
    blurred: bool = False  # the person looked at something else while it was on screen
    late: bool = False  # the document had changed before it could be shown
    until_commit: bool = False  # followed until it is committed
    milestones: frozenset[str] = frozenset()  # occasions that were told whether or not anything had changed
    looks: int = 0
    revision: int = 0
    told: tuple[OutcomeKind, str, float] | None = None
    standing: Survival = field(default_factory=Survival)  # how much of it stands, as last compared

    @classmethod
    def of(cls, suggestion: Suggestion, now: float, replaced: int, reported: bool = False) -> Case:
        offset = suggestion.place.offset
        span = TrackedRange(offset, offset)
        return cls(suggestion, span, plain(suggestion.text), replaced, now, now, now, reported)

    @property
    def goal(self) -> str:
        """The suggestion without white space at its end, which editors and people leave out."""
        return self.text.rstrip() or self.text

    @property
    def reach(self) -> TrackedRange:
        """What it stands for or would replace."""
        return TrackedRange(self.span.start, self.span.end + (self.replaced if self.state is State.SHOWN else 0))

    # -- changes --------------------------------------------------------------------------------------

    def too_late(self, before: str) -> bool:
        """Whether the document had changed under the request: then the editor never showed it."""
        if self.checked:
            return False
        self.checked = True
        made, start = self.suggestion, self.span.start
        head, tail, behind = made.prefix[-CHECKED:], made.suffix[:CHECKED], start + self.replaced
        self.late = before[max(0, start - len(head)) : start] != head or before[behind : behind + len(tail)] != tail
        return self.late

    def stands(self, text: str) -> bool:
        """Whether all of it stands there: typed out, perhaps with what stood behind the cursor before."""
        there = text[self.span.start : self.span.start + 2 * len(self.text)]
        return self.typed > 0 and plain(there).startswith(self.goal)

    def accept(self, now: float, shared: int = 0) -> None:
        """All of it was taken by a key; its last `shared` characters stood behind the cursor before."""
        self.shared = shared
        self.state, self.since, self.looks, self.by_key = State.ACCEPTED, now, 0, True
        self.ended_at = now if self.ended_at is None else self.ended_at
        self.superseded = self.dismissed = self.left = self.put_back = False

    def diverge(self, now: float, min_visible_ms: int, before: str = "") -> None:
        """Something else is written there from now on: in `before`, in which it does not stand yet."""
        if (self.left_at if self.left_at is not None else now) - self.shown_at < min_visible_ms / 1000:
            self.hidden = True
        self.span = self.reach if self.replaced else self.span
        if self.closed and before.startswith(self.closed, self.span.end):
            self.span.end += len(self.closed)
        self.state, self.since = State.DIVERGED, now
        self.ended_at = now if self.left_at is None else self.left_at

    def goes_on(self, before: str, change: Change) -> bool:
        """Whether a change shows that the person has gone on to another line. True once per going on."""
        if self.left:
            return False
        start, end = self.span.start, self.span.end
        if change.start > end:
            self.left = before.find("\n", end, change.start) >= 0
        elif change.end < start:
            self.left = before.rfind("\n", change.end, start) >= 0
        else:
            self.left = self._breaks_line(before, change)
        return self.left

    def follow(self, before: str, change: Change, now: float) -> None:
        """Keep the range around what stands there for it."""
        span = self.span
        change = drawn(before, change, span.start, span.end)
        if not span.touches(change):
            span.apply(change)
            return
        if self._breaks_line(before, change):
            return  # what comes on the next lines is not it
        if (
            change.new_text.endswith("\n")
            and change.inserts
            and change.start == span.start < span.end
            and (span.start == 0 or before[span.start - 1] == "\n")
        ):
            span.start += change.shift  # whole lines above it
            span.end += change.shift
            return
        if self.state is State.ACCEPTED and change.end == span.start > change.start:
            span.start += change.shift  # right before it
            span.end += change.shift
            return
        if self.cuts(before, change):
            self.cut = True
            self.broken |= "\n" in before[change.start : span.start]
        start, end = span.start, span.end
        if start < end:
            undone = (change.start, change.end, change.new_text) == (start, end, "")
            self.removed, self.redone = before[start:end] if undone else "", False
        else:
            self.redone = self.redoes(change)
        span.apply(change)
        self.left = False
        if self.state is State.DIVERGED:
            self.since = now
            if not (self.cut or self.dismissed or self.replaced or self.taken):
                self._come_back(before[start : change.start] + change.new_text + before[change.end : end], now)

    def _come_back(self, written: str, now: float) -> None:
        """Be shown again if what was written is a beginning of it after all."""
        written = plain(written)
        if self.text.startswith(written):
            self.state, self.typed, self.hidden = State.SHOWN, len(written), False
            self.shown_at, self.left_at, self.ended_at = now, None, None

    def _breaks_line(self, before: str, change: Change) -> bool:
        """Whether it begins the next line behind what is written."""
        if not change.inserts or change.start != self.span.end:
            return False
        if not change.new_text.lstrip(" \t\r").startswith("\n"):
            return False
        return bool(before[self.span.start : self.span.end].strip())

    def cuts(self, before: str, change: Change) -> bool:
        """Whether it takes away characters of the line right before its place."""
        start = self.span.start
        return change.start < start <= change.end and (change.end > start or before[start - 1] != "\n")

    def redoes(self, change: Change) -> bool:
        """Whether it puts back what was removed as a whole."""
        if self.state is not State.ACCEPTED or not self.removed or self.span.start < self.span.end:
            return False
        return change.inserts and (change.start, change.new_text) == (self.span.start, self.removed)

    def loses_most_to(self, change: Change) -> bool:
        """Whether a change replaces more than half of what was taken."""
        if self.state is not State.ACCEPTED:
            return False
        both = min(self.span.end, change.end) - max(self.span.start, change.start)
        return 2 * both > self.span.end - self.span.start

    def thrown_away_by(self, change: Change) -> bool:
        """Whether a change removes all of what was taken, and puts nothing in its place."""
        gone = change.start <= self.span.start < self.span.end <= change.end
        return self.state is State.ACCEPTED and gone and not change.new_text

    def overwrite(self, text: str) -> None:
        """Most of it has just been replaced, be it by the same (a formatter)."""
        self.overwritten = self.standing.of(self.text, text[self.span.start : self.span.end]) < reward.REPLACED_BELOW

    def undo(self) -> None:
        """What was put back there is another one's: this one stays removed."""
        self.span, self.redone = TrackedRange(self.span.start, self.span.start), False

    # -- looks ----------------------------------------------------------------------------------------

    def look(
        self, text: str, now: float, min_visible_ms: int, *, final: bool = False, occasion: str = ""
    ) -> Outcome | None:
        """What is known now; None if that was told before (a final look is always told, and the first of a milestone).

        Args:
            text: the document.
            occasion: what makes us look.
        """
        if self.superseded:
            return None
        if self.put_back:
            return self.supersede(now)
        written = self._written(text)
        kind, survived = self._judge(text, now, min_visible_ms)
        base = reward.base(kind, survived)
        if kind is OutcomeKind.ACCEPTED and self.state is not State.ACCEPTED and not self.taken:
            base = reward.TYPED_OUT
        weight = reward.weight(base, survived * reward.size(self.text))
        signal = base * weight
        milestone = occasion in MILESTONES and occasion not in self.milestones
        if self.told == (kind, written, signal) and not (final or milestone):
            return None
        self.told = (kind, written, signal)
        self.milestones |= {occasion}
        return self._outcome(kind, written, survived, signal, now, final, occasion, weight)

    def continued_by(self, newer: Suggestion, text: str) -> bool:
        """Whether a newer suggestion leaves nothing to say about this one: it offers the same, or nothing was typed.

        Args:
            text: the document, as far as it is known; only what was written since is looked at.
        """
        offset = newer.place.offset
        if self.superseded or self.dismissed or self.replaced or self.state is State.ACCEPTED:
            return False
        if self.state is State.SHOWN and offset == self.span.end:
            whole = self.text[: self.typed] + plain(newer.text)
        elif self.state is State.DIVERGED and self.span.start <= offset <= self.span.end:
            whole = plain(text[self.span.start : offset] + newer.text)
        else:
            return False
        if self.state is State.SHOWN and not self.typed:
            return True
        return whole.startswith(self.text) or self.text.startswith(whole)

    def supersede(self, now: float) -> Outcome:
        """Another one takes its place: no label. If it turns out to have been on screen all the same, it comes back."""
        self.superseded, self.since, self.told = True, now, None
        return self._outcome(OutcomeKind.SUPERSEDED, "", 0.0, 0.0, now, True, "")

    def seen_s(self, now: float) -> float:
        """How long it has been on screen, until something became of it or it went off the screen."""
        if self.hidden:
            return 0.0
        until = self.ended_at if self.ended_at is not None else self.left_at if self.left_at is not None else now
        return max(0.0, until - self.shown_at)

    def _outcome(
        self,
        kind: OutcomeKind,
        written: str,
        survived: float,
        signal: float,
        now: float,
        final: bool,
        occasion: str,
        weight: float = 1.0,
    ) -> Outcome:
        self.revision += 1
        return Outcome(
            id=new_id(),
            suggestion_id=self.suggestion.id,
            kind=kind,
            suggested=self.suggestion.text,
            final_text=written,
            survival=survived,
            implicit=signal,
            created_at=self.suggestion.created_at + timedelta(seconds=now - self.offered_at),
            revision=self.revision - 1,
            final=final,
            occasion=occasion,
            detail=detail(self, kind),
            weight=weight,
            typed=self.by_hand,
            seen_s=round(self.seen_s(now), 3),
        )

    def _judge(self, text: str, now: float, min_visible_ms: int) -> tuple[OutcomeKind, float]:
        """What became of it, and how much of it survives."""
        written = text[self.span.start : self.span.end]
        if self.state is State.ACCEPTED:
            written += text[self.span.end : self.span.end + self.shared]
            survived = self.standing.of(self.text, written)
            if not written.strip() or survived < (reward.REPLACED_BELOW if self.overwritten else reward.DELETED_BELOW):
                return OutcomeKind.DELETED, survived
            return (OutcomeKind.ACCEPTED if survived >= 1.0 else OutcomeKind.EDITED), survived
        if self.taken:
            part = self.text[: self.taken].strip()
            survived = self.standing.of(part, written)
            if survived < reward.DELETED_BELOW:
                return OutcomeKind.DELETED, 0.0
            return OutcomeKind.PARTIALLY_ACCEPTED, survived * len(part) / max(1, len(self.goal.strip()))
        stands = begins(self.text, written) if self.state is State.DIVERGED else self.stands(text)
        if self.part_undone and not stands:
            return OutcomeKind.DELETED, 0.0
        if self.hidden:
            return OutcomeKind.UNSEEN, 0.0
        if stands:
            return OutcomeKind.ACCEPTED, 1.0
        if self.state is State.DIVERGED:
            if self.blurred and not self.dismissed:
                return OutcomeKind.IGNORED, 0.0
            return (OutcomeKind.DISMISSED if self.dismissed else OutcomeKind.REJECTED), 0.0
        seen_until = now if self.left_at is None else self.left_at
        seen = seen_until - self.shown_at >= min_visible_ms / 1000
        return (OutcomeKind.IGNORED if seen else OutcomeKind.UNSEEN), 0.0

    def _written(self, text: str) -> str:
        """What stands behind the suggestion's prefix; "" where the prefix does not stand there any more."""
        start, end = self.span.start, self.span.end
        if self.state is State.SHOWN and self.replaced:
            return ""
        if not self.cut:
            return text[start:end]
        if self.broken:
            return ""
        line = text[text.rfind("\n", 0, start) + 1 : end]
        kept = self.suggestion.prefix.rpartition("\n")[2]
        return line[len(kept) :] if line.startswith(kept) else ""

    def due(self, settle_s: float) -> tuple[float, bool]:
        """When to look next, and whether that look is the last."""
        if self.superseded:
            return self.since + settle_s, True
        if self.state is State.ACCEPTED:
            times = waits(settle_s, self.until_commit)
            index = min(self.looks, len(times) - 1)
            return self.since + times[index], index == len(times) - 1
        if self.state is State.DIVERGED:
            return self.since + settle_s, True
        if self.left_at is not None and self.looks == 0 and settle_s < LAST_LOOK_S:
            return self.left_at + settle_s, False
        return self.since + max(settle_s, LAST_LOOK_S), True

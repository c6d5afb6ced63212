"""What became of each suggestion, told from document changes alone; other signals only sharpen it.

One `_Case` per suggestion: shown -> typed through -> accepted | diverged, and then followed until it is settled.
Two moments settle a case: the person goes on to another line, or `settle_s` has passed. An accepted text is looked at
again at 120, 300 and 600 s. Knows nothing of LSP, rewards' weights or storage; time (seconds, monotonic) is passed in.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from npllm.config import FeedbackConfig
from npllm.feedback import reward
from npllm.feedback.tracking import Change, TrackedRange, minimal
from npllm.types import Outcome, OutcomeKind, Suggestion, new_id

LOOKS_S = (120.0, 300.0, 600.0)  # after the first look, at settle_s
PER_DOCUMENT = 64  # cases followed at once; the oldest is settled first
PAIRS = {"(": ")", "[": "]", "{": "}", '"': '"', "'": "'", "`": "`"}


class _State(enum.Enum):
    SHOWN = enum.auto()  # on screen, perhaps typed through in part
    DIVERGED = enum.auto()  # something else is being written there
    ACCEPTED = enum.auto()


@dataclass(slots=True)
class _Case:
    suggestion: Suggestion
    span: TrackedRange  # where it stands, or what is written instead
    at: float  # shown, accepted or diverged: what the next look counts from
    shown_at: float
    replaced: int  # characters the suggestion replaces (a rewritten selection)
    state: _State = _State.SHOWN
    typed: int = 0  # characters of the suggestion that stand in the document
    taken: int = 0  # of them, inserted by a key that takes them (accept word), not typed
    by_hand: bool = True  # every character of it was typed
    dismissed: bool = False
    seen: bool = True
    looks: int = 0
    revision: int = 0
    told: tuple[OutcomeKind, str] | None = None


@dataclass(slots=True)
class _Document:
    cases: OrderedDict[UUID, _Case] = field(default_factory=OrderedDict)
    before: str = ""
    change: Change | None = None  # the last one; the text is put together only when it is looked at

    def text(self) -> str:
        if self.change is None:
            return self.before
        change = self.change
        self.before = self.before[: change.start] + change.new_text + self.before[change.end :]
        self.change = None
        return self.before


class ImplicitFeedback:
    """One per server; everything is called from one thread."""

    def __init__(self, config: FeedbackConfig) -> None:
        self.config = config
        self._documents: dict[str, _Document] = {}

    # -- signals --------------------------------------------------------------------------------------

    def shown(self, suggestion: Suggestion, now: float, *, replaced: int = 0) -> list[Outcome]:
        """A suggestion is offered at its place, to replace the next `replaced` characters."""
        place = suggestion.place
        document = self._documents.setdefault(place.uri, _Document())
        outcomes = self._supersede(document, suggestion, now)
        span = TrackedRange(place.offset, place.offset + replaced)
        document.cases[suggestion.id] = _Case(suggestion, span, at=now, shown_at=now, replaced=replaced)
        while len(document.cases) > PER_DOCUMENT:
            oldest = next(iter(document.cases.values()))
            outcomes += self._settle(document, oldest, now, last=True)
        return outcomes

    def visible(self, suggestion_id: UUID, now: float) -> None:
        """The editor says that it is on screen from now on."""
        found = self._find(suggestion_id)
        if found is not None and found[1].state is _State.SHOWN and found[1].typed == 0:
            found[1].shown_at = now

    def accepted_command(self, suggestion_id: UUID, now: float) -> list[Outcome]:
        """The item's command ran. With the change that inserted it, in either order, this is one acceptance."""
        found = self._find(suggestion_id)
        if found is None:
            return []
        document, case = found
        case.by_hand = False
        if case.state is not _State.SHOWN:
            return self._tell(document, case, now) if case.state is _State.ACCEPTED else []
        case.taken = len(case.suggestion.text)  # the change is still to come: it completes the acceptance
        return []

    def partially_accepted(self, suggestion_id: UUID, length: int, now: float) -> list[Outcome]:
        """The editor says that the first `length` characters were taken."""
        found = self._find(suggestion_id)
        if found is not None:
            found[1].taken = max(found[1].taken, min(length, len(found[1].suggestion.text)))
            found[1].by_hand = False
        return []

    def dismissed(self, uri: str, now: float) -> list[Outcome]:
        """Escape: the suggestion on screen was sent away."""
        document = self._documents.get(uri)
        for case in reversed(document.cases.values() if document else ()):
            if case.state is _State.SHOWN:
                case.dismissed = True
                self._diverge(case, now)
                break
        return []

    def changed(self, uri: str, before: str, start: int, end: int, new_text: str, now: float) -> list[Outcome]:
        """`before[start:end]` became `new_text` (one content change)."""
        document = self._documents.get(uri)
        if document is None or not document.cases:
            return []
        change = minimal(before, Change(start, end, new_text))
        document.before, document.change = before, None
        outcomes: list[Outcome] = []
        for case in list(document.cases.values()):
            if case.state is not _State.SHOWN and _goes_on(before, case.span, change):
                outcomes += self._settle(document, case, now)
        document.change = change
        for case in list(document.cases.values()):
            if case.state is _State.SHOWN:
                outcomes += self._watch(document, case, before, change, now)
            else:
                case.span.apply(change)
        return outcomes

    def closed(self, uri: str, now: float) -> list[Outcome]:
        """The document is closed: what is known now is final."""
        document = self._documents.pop(uri, None)
        if document is None:
            return []
        cases = list(document.cases.values())
        return [outcome for case in cases for outcome in self._settle(document, case, now, last=True)]

    def close_all(self, now: float) -> list[Outcome]:
        """Everything that is known now is final."""
        return [outcome for uri in list(self._documents) for outcome in self.closed(uri, now)]

    def tick(self, now: float) -> list[Outcome]:
        """The looks that are due."""
        outcomes: list[Outcome] = []
        for uri, document in list(self._documents.items()):
            for case in list(document.cases.values()):
                waits = (self.config.settle_s, *LOOKS_S) if case.state is _State.ACCEPTED else (self.config.settle_s,)
                if now - case.at >= waits[min(case.looks, len(waits) - 1)]:
                    case.looks += 1
                    outcomes += self._settle(document, case, now, last=case.looks >= len(waits))
            if not document.cases:
                del self._documents[uri]
        return outcomes

    # -- one case -------------------------------------------------------------------------------------

    def _watch(self, document: _Document, case: _Case, before: str, change: Change, now: float) -> list[Outcome]:
        """A change while a suggestion is on screen: typed through, accepted, or something else?"""
        cursor = case.span.start + case.typed
        rest = case.suggestion.text[case.typed :]
        new = change.new_text
        replaces = case.replaced > 0 and case.typed == 0
        if replaces:
            old = before[case.span.start : case.span.end]
            wanted = minimal(old, Change(0, len(old), case.suggestion.text))
            at = case.span.start
            if change == Change(at + wanted.start, at + wanted.end, wanted.new_text):
                return self._accept(document, case, change, now)
        elif change.start == change.end == cursor:
            if new == rest or new.rstrip() == rest.rstrip() != "":
                return self._accept(document, case, change, now)
            if new and rest.startswith(new):
                case.typed += len(new)
                if len(new.strip()) > 1:
                    case.taken, case.by_hand = max(case.taken, case.typed), False
                return []
            if len(new) == 2 and PAIRS.get(new[0]) == new[1] and rest.startswith(new[0]):  # the editor closed it
                case.typed += 1
                return []
        elif not new and change.end == cursor and change.start >= case.span.start:  # taken back
            case.typed -= change.end - change.start
            return []
        elif case.typed and not new and change.start == cursor and change.end - change.start == 1:
            return []  # the closing bracket that the editor had put there goes
        if change.end < case.span.start or (change.end == case.span.start and change.start < change.end):
            case.span.apply(change)  # above
            return []
        if change.start > cursor and "\n" in before[cursor : change.start]:
            return []  # further down
        self._diverge(case, now)
        if cursor < change.start or change.start < case.span.start:  # elsewhere in the line
            case.span = TrackedRange(case.span.start, max(cursor, case.span.start))
        case.span.apply(change)
        return []

    def _accept(self, document: _Document, case: _Case, change: Change, now: float) -> list[Outcome]:
        typed = len(change.new_text) == 1 and case.by_hand and len(case.suggestion.text) > 1 and case.taken == 0
        case.by_hand = typed
        case.typed = len(case.suggestion.text)
        if case.replaced:
            case.span = TrackedRange(case.span.start, case.span.end + change.shift)
        else:
            case.span = TrackedRange(case.span.start, change.start + len(change.new_text))
        case.state, case.at, case.looks = _State.ACCEPTED, now, 0
        return self._tell(document, case, now)

    def _diverge(self, case: _Case, now: float) -> None:
        """Something else is written there: from now on the range is what is written since the suggestion came."""
        case.state, case.at = _State.DIVERGED, now
        case.seen = (now - case.shown_at) * 1000 >= self.config.min_visible_ms
        end = case.span.end if case.replaced and case.typed == 0 else case.span.start + case.typed
        case.span = TrackedRange(case.span.start, end)

    def _settle(self, document: _Document, case: _Case, now: float, *, last: bool = False) -> list[Outcome]:
        """A look: tell what is known; an accepted case is followed on, unless this is the last look."""
        outcomes = self._tell(document, case, now, final=last or case.state is not _State.ACCEPTED)
        if last or case.state is not _State.ACCEPTED:
            document.cases.pop(case.suggestion.id, None)
        return outcomes

    def _tell(self, document: _Document, case: _Case, now: float, *, final: bool = False) -> list[Outcome]:
        suggested = case.suggestion.text
        written = document.text()[case.span.start : case.span.end]
        survived = 0.0
        if case.state is _State.ACCEPTED:
            survived = reward.survival(suggested, written)
            if not written.strip() or survived < reward.DELETED_BELOW:
                kind = OutcomeKind.DELETED
            else:
                kind = OutcomeKind.ACCEPTED if survived >= 1.0 else OutcomeKind.EDITED
        elif case.state is _State.DIVERGED:
            kind, survived = self._diverged_kind(case)
        else:
            long_enough = (now - case.shown_at) * 1000 >= self.config.min_visible_ms
            kind = OutcomeKind.IGNORED if long_enough else OutcomeKind.UNSEEN
            written = suggested[: case.typed]
        if case.told == (kind, written) and not final:
            return []
        signal = reward.implicit(kind, survived)
        if kind is OutcomeKind.ACCEPTED and case.by_hand:
            signal = reward.TYPED_OUT
        outcome = Outcome(
            id=new_id(),
            suggestion_id=case.suggestion.id,
            kind=kind,
            suggested=suggested,
            final_text=written,
            survival=survived,
            implicit=signal,
            created_at=datetime.now(UTC),
            revision=case.revision,
            final=final,
        )
        case.revision += 1
        case.told = (kind, written)
        return [outcome]

    def _diverged_kind(self, case: _Case) -> tuple[OutcomeKind, float]:
        taken = len(case.suggestion.text[: case.taken].strip())
        if taken and case.taken < len(case.suggestion.text):
            return OutcomeKind.PARTIALLY_ACCEPTED, taken / max(1, len(case.suggestion.text.strip()))
        if case.dismissed:
            return OutcomeKind.DISMISSED, 0.0
        return (OutcomeKind.REJECTED if case.seen else OutcomeKind.UNSEEN), 0.0

    def _supersede(self, document: _Document, newer: Suggestion, now: float) -> list[Outcome]:
        """Older suggestions that the newer one continues or replaces unread carry no label."""
        outcomes: list[Outcome] = []
        for case in list(document.cases.values()):
            if case.state is _State.ACCEPTED or not case.span.start <= newer.place.offset:
                continue
            if case.state is _State.SHOWN:
                cursor = case.span.start + case.typed
                if newer.place.offset != cursor:
                    continue
                whole = case.suggestion.text[: case.typed] + newer.text
                same_place = case.typed == 0
            else:
                if newer.place.offset > case.span.end:
                    continue
                whole = document.text()[case.span.start : newer.place.offset] + newer.text
                same_place = False
            if same_place or whole.startswith(case.suggestion.text) or case.suggestion.text.startswith(whole):
                document.cases.pop(case.suggestion.id)
                outcomes.append(
                    Outcome(
                        id=new_id(),
                        suggestion_id=case.suggestion.id,
                        kind=OutcomeKind.SUPERSEDED,
                        suggested=case.suggestion.text,
                        final_text="",
                        survival=0.0,
                        implicit=0.0,
                        created_at=datetime.now(UTC),
                        revision=case.revision,
                        final=True,
                    )
                )
        return outcomes

    def _find(self, suggestion_id: UUID) -> tuple[_Document, _Case] | None:
        for document in self._documents.values():
            if suggestion_id in document.cases:
                return document, document.cases[suggestion_id]
        return None


def _goes_on(before: str, span: TrackedRange, change: Change) -> bool:
    """Whether a change shows that the person has gone on to another line than the one `span` ends (or begins) in."""
    if change.start == change.end == span.end:
        return "\n" in change.new_text and not change.new_text.strip() and bool(before[span.start : span.end].strip())
    if change.start > span.end:
        return before.find("\n", span.end, change.start) >= 0
    if change.end < span.start:
        return before.find("\n", change.end, span.start) >= 0
    return False

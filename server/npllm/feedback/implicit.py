"""What became of each suggestion, told from document changes alone; other signals only sharpen it.

Keeps one `Case` per suggestion and document. Told at once: an acceptance. Told when the person goes on to another
line, and once more when it has settled (`settle_s` after the last change there): what was written instead. An
accepted text is looked at again at 15 s, `settle_s`, 120, 300 and 600 s, when its document is saved and when it is
committed. Knows nothing of LSP, of weights or of storage;
time (seconds, monotonic) is passed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from npllm.config import FeedbackConfig
from npllm.feedback.case import COMMAND_S, Case, State
from npllm.feedback.diffing import needs_refining, refining
from npllm.feedback.document import Document
from npllm.feedback.looks import looked
from npllm.feedback.reading import Reading, read
from npllm.feedback.tracking import Change, TrackedRange, minimal
from npllm.types import Outcome, Suggestion

PER_DOCUMENT = 64  # cases followed at once; the oldest is settled first
PARKED_S = 5.0  # a document that was closed and is open again so soon is the same one


class ImplicitFeedback:
    """One per server; everything is called from one thread."""

    def __init__(self, config: FeedbackConfig) -> None:
        self.config = config
        self.reported = False  # the editor says when its keys take a suggestion or a part; else changes alone tell
        self._documents: dict[str, Document] = {}
        self._parked: dict[str, tuple[Document, float]] = {}  # closed just now

    # -- signals --------------------------------------------------------------------------------------

    def shown(
        self, suggestion: Suggestion, now: float, *, replaced: int = 0, until_commit: bool = False
    ) -> list[Outcome]:
        """A suggestion is offered at its place, to replace the next `replaced` characters.

        Its `suffix` is what lies behind those. Whatever was on screen before is not any more. With `until_commit` an
        accepted one is followed for longer than ten minutes, until `committed` is called.
        """
        document = self._documents.setdefault(suggestion.place.uri, Document())
        outcomes = self._supersede(document, suggestion, now)
        for _, other in self._all():
            if other.state is State.SHOWN and other.left_at is None:
                other.left_at = now
        document.cases[suggestion.id] = case = Case.of(suggestion, now, replaced, self.reported)
        case.until_commit = until_commit
        while len(document.cases) > PER_DOCUMENT:
            outcomes += self._settle(document, next(iter(document.cases.values())), now)
        return outcomes

    def visible(self, suggestion_id: UUID, now: float) -> list[Outcome]:
        """The editor says that it is on screen from now on."""
        found = self._find(suggestion_id)
        if found is None or found[1].state is not State.SHOWN:
            return []
        case = found[1]
        if case.left_at is not None or (case.shown_at == case.offered_at and not case.typed):
            case.shown_at, case.left_at, case.blurred = now, None, False
        return []

    def hidden(self, uri: str, now: float) -> list[Outcome]:
        """The person looks at something else: what was on screen there is not any more, and was not refused by that."""
        document = self._documents.get(uri)
        for case in document.cases.values() if document else ():
            if case.state is State.SHOWN and case.left_at is None and not case.superseded:
                case.left_at, case.blurred = now, True
        return []

    def accepted_command(self, suggestion_id: UUID, now: float) -> list[Outcome]:
        """The item's command ran. With the change that inserted it, in either order, this is one acceptance."""
        found = self._find(suggestion_id)
        if found is None:
            return []
        document, case = found
        if case.state is State.SHOWN and case.stands(document.text()):
            case.accept(now, max(0, len(case.goal) - case.typed))
            return self._drop_twins(document, case, now) + self._look(document, case, now)
        elif case.state is State.SHOWN:
            case.superseded, case.expected = False, True
            return []
        elif case.state is State.DIVERGED and now - case.since <= COMMAND_S:
            case.accept(now)
        return self._look(document, case, now)

    def partially_accepted(self, suggestion_id: UUID, length: int, now: float) -> list[Outcome]:
        """The editor says that the first `length` characters were taken."""
        found = self._find(suggestion_id)
        if found is None or found[1].state is State.ACCEPTED:
            return []
        document, case = found
        case.taken = max(case.taken, min(length, len(case.text)))
        if case.state is State.SHOWN and case.taken >= len(case.goal) and case.stands(document.text()):
            return self.accepted_command(suggestion_id, now)
        return []

    def dismissed(self, uri: str, now: float) -> list[Outcome]:
        """Escape: the suggestion on screen was sent away."""
        document = self._documents.get(uri)
        for case in reversed(document.cases.values() if document else ()):
            if case.state is State.SHOWN and case.left_at is None and not case.superseded:
                case.dismissed = True
                case.diverge(now, self.config.min_visible_ms)
                break
        return []

    def changing(
        self,
        uri: str,
        before: str,
        start: int,
        end: int,
        new_text: str,
        now: float,
        *,
        several: bool = False,
        foreign: bool = False,
    ) -> Iterator[list[Outcome]]:
        """`before[start:end]` became `new_text` (one content change): what comes of that, in steps.

        A step takes less than a millisecond or so. Nothing else may be told before the last of them.

        Args:
            several: it is one of several at once (more than one cursor, a formatter): it says nothing about where the
                person is.
            foreign: another program made it: what was known of the suggestions that it touches is final.
        """
        document = self._documents.get(uri)
        if document is None or not document.cases:
            return
        raw = Change(start, end, new_text)
        small = minimal(before, raw)
        ranges = [case.reach for case in document.cases.values()]
        replaces = small.new_text and not small.inserts
        losing = [case for case in document.cases.values() if case.loses_most_to(small)] if replaces else []
        if not needs_refining(small, ranges):
            if foreign:
                yield self._end_at(document, before, small, now)
            yield self._change(document, before, raw, small, now, several)
        else:  # a formatter, or an editor that sends the whole text: told piece by piece
            for piece in refining(before, small, ranges):
                if piece is None:
                    yield []
                    continue
                if foreign:
                    yield self._end_at(document, before, piece, now)
                yield self._change(document, before, piece, piece, now, several)
                before = document.text()
        for case in losing:
            case.overwrite(document.text())

    def saved(self, uri: str, now: float) -> list[Outcome]:
        """The document was saved, formatted or not: how much stands there?"""
        document = self._documents.get(uri)
        return [] if document is None else self._look_at_written(document, now, "save", final=False)

    def committed(self, project: str, now: float) -> list[Outcome]:
        """A commit was made in a project: what stands there is what went into it. Older than ten minutes is final."""
        outcomes: list[Outcome] = []
        for document in self._documents.values():
            for case in list(document.cases.values()):
                if case.suggestion.place.project == project:
                    late = looked(case.until_commit, now - case.since)
                    outcomes += self._look_at_written(document, now, "commit", final=late, only=case)
        return outcomes

    def closed(self, uri: str, now: float) -> list[Outcome]:
        """The document is closed. What is known is told; it is final unless the document is open again in a moment.

        A renamed file is closed, and opened with the same text under another name.
        """
        document = self._documents.pop(uri, None)
        if document is None or not document.cases:
            return []
        older = self._parked.pop(uri, None)  # closed just now, and opened with another text since
        self._parked[uri] = (document, now)
        outcomes = [] if older is None else self._settle_all(older[0], now, "close")
        for case in document.cases.values():
            outcomes += self._look(document, case, now, occasion="close")
        return outcomes

    def opened(self, uri: str, text: str, now: float) -> list[Outcome]:
        """A document is open. If one with this very text was closed just now, it is that one, renamed or reloaded."""
        for old, (document, at) in list(self._parked.items()):
            if now - at <= PARKED_S and uri not in self._documents and document.text() == text:
                del self._parked[old]
                self._documents[uri] = document
                return []
        return []

    def replaced(self, uri: str, now: float) -> list[Outcome]:
        """The document is about to be replaced by somebody else (git checkout): what is known now is final."""
        document = self._documents.pop(uri, None)
        return [] if document is None else self._settle_all(document, now, "replaced")

    def close_all(self, now: float) -> list[Outcome]:
        """Everything that is known now is final."""
        documents = [*(document for document, _ in self._parked.values()), *self._documents.values()]
        self._parked.clear()
        self._documents.clear()
        return [outcome for document in documents for outcome in self._settle_all(document, now, "close")]

    def tick(self, now: float) -> list[Outcome]:
        """The looks that are due."""
        outcomes: list[Outcome] = []
        for uri, document in list(self._documents.items()):
            for case in list(document.cases.values()):
                when, last = case.due(self.config.settle_s)
                if when > now:
                    continue
                case.looks += 1
                while not last and (later := case.due(self.config.settle_s))[0] <= now:
                    (when, last), case.looks = later, case.looks + 1
                occasion = f"{max(0.0, when - case.since):.0f} s"
                outcomes += self._look(document, case, now, final=last, occasion=occasion)
            if not document.cases:
                del self._documents[uri]
        for uri, (document, at) in list(self._parked.items()):
            if now - at > PARKED_S:
                del self._parked[uri]
                outcomes += self._settle_all(document, now, "close")
        return outcomes

    def follows(self, suggestion_id: UUID) -> bool:
        """Whether changes still say something about this suggestion."""
        return self._find(suggestion_id) is not None

    def seen(self, suggestion_id: UUID, now: float) -> bool | None:
        """Whether the person has seen it, as far as is known now; None where it is not followed."""
        found = self._find(suggestion_id)
        if found is None:
            return None
        case = found[1]
        if case.superseded or case.hidden:
            return False
        return case.state is not State.SHOWN or 1000 * case.seen_s(now) >= self.config.min_visible_ms

    def at(self, uri: str, start: int, end: int) -> UUID | None:
        """The newest suggestion of a document that stands in, or is offered at, these offsets; None where none is."""
        document = self._documents.get(uri)
        cases = reversed(document.cases.values()) if document else ()
        here = TrackedRange(start, end)
        return next((one.suggestion.id for one in cases if here.meets(one.span) and not one.superseded), None)

    def taken(self, uri: str) -> list[tuple[Suggestion, TrackedRange]]:
        """What was taken in a document, stands there and is followed; the newest first."""
        document = self._documents.get(uri)
        cases = reversed(document.cases.values()) if document else ()
        taken = (one for one in cases if one.state is State.ACCEPTED or one.taken)
        return [(one.suggestion, one.span) for one in taken if one.span.start < one.span.end]

    # -- cases ----------------------------------------------------------------------------------------

    def _end_at(self, document: Document, before: str, change: Change, now: float) -> list[Outcome]:
        """What is known of the suggestions that a change is about to touch is final.

        One that was taken, and of which nothing is left and nothing put in its place, was thrown away (git restore).
        """
        document.before, document.change = before, None
        cases = document.cases.values()
        touched = [case for case in cases if case.reach.touches(change) and not case.thrown_away_by(change)]
        return [one for case in touched for one in self._look(document, case, now, final=True, occasion="replaced")]

    def _change(
        self, document: Document, before: str, raw: Change, small: Change, now: float, several: bool
    ) -> list[Outcome]:
        document.before, document.change = before, None
        outcomes: list[Outcome] = []
        whole: Case | None = None
        newer: list[Case] = []
        redone = len(small.new_text) > 1 and any(case.redoes(small) for case in document.cases.values())
        for case in reversed(list(document.cases.values())):  # the newest first: it is the one on screen
            if case.too_late(before):
                case.hidden = True
                outcomes += self._settle(document, case, now)
                continue
            if case.state is State.SHOWN:
                told = case.superseded
                reading = read(case, before, raw, small, now)
                if redone and reading is Reading.WHOLE:
                    del document.cases[case.suggestion.id]  # an older one was put back: this one was not taken
                    outcomes += [] if told else [case.supersede(now)]
                elif redone and case.inserted:
                    case.put_back = True  # unless the editor says in a moment that it was taken
                elif reading is Reading.WHOLE and whole is None:
                    whole = case
                elif reading is Reading.WHOLE or (reading is Reading.OTHER and told):
                    del document.cases[case.suggestion.id]  # the same, offered twice, is one acceptance
                    outcomes += [] if told else [case.supersede(now)]
                elif reading is Reading.OTHER:
                    case.diverge(now, self.config.min_visible_ms, before)
                    if whole is None:
                        newer.append(case)
                elif reading is Reading.ELSEWHERE and case.left_at is None and not several:
                    case.left_at, case.moved = now, True
                if reading in (Reading.WHOLE, Reading.ALONG):
                    continue
            if not several and case.goes_on(before, small) and (case.typed or case.state is not State.SHOWN):
                outcomes += self._look(document, case, now)
            case.follow(before, small, now)
        document.change = small
        if whole is not None:
            for case in newer:  # they were never on screen: the older one still was
                case.hidden = True
            outcomes += self._look(document, whole, now)
        return outcomes

    def _look(
        self, document: Document, case: Case, now: float, *, final: bool = False, occasion: str = ""
    ) -> list[Outcome]:
        if final:
            document.cases.pop(case.suggestion.id, None)
        outcome = case.look(document.text(), now, self.config.min_visible_ms, final=final, occasion=occasion)
        return [] if outcome is None else [outcome]

    def _settle(self, document: Document, case: Case, now: float) -> list[Outcome]:
        """The last look."""
        return self._look(document, case, now, final=True)

    def _settle_all(self, document: Document, now: float, occasion: str) -> list[Outcome]:
        cases = list(document.cases.values())
        return [one for case in cases for one in self._look(document, case, now, final=True, occasion=occasion)]

    def _look_at_written(
        self, document: Document, now: float, occasion: str, *, final: bool, only: Case | None = None
    ) -> list[Outcome]:
        """Look at what was taken, or written instead; what is on screen still waits for its verdict."""
        cases = list(document.cases.values()) if only is None else [only]
        written = [case for case in cases if case.state is not State.SHOWN or case.taken]
        return [one for case in written for one in self._look(document, case, now, final=final, occasion=occasion)]

    def _supersede(self, document: Document, suggestion: Suggestion, now: float) -> list[Outcome]:
        """Older suggestions that a new one continues, or replaces untouched, carry no label."""
        outcomes: list[Outcome] = []
        for case in list(document.cases.values()):
            if not case.continued_by(suggestion, document.text()):
                continue
            if case.taken or case.part_undone:
                outcomes += self._settle(document, case, now)  # a part of it was taken: that is what it was
                continue
            outcomes.append(case.supersede(now))
            if case.state is State.DIVERGED:
                del document.cases[case.suggestion.id]
        return outcomes

    def _drop_twins(self, document: Document, taken: Case, now: float) -> list[Outcome]:
        """The same, offered twice, is one acceptance."""
        text, outcomes = document.text(), list[Outcome]()
        for case in list(document.cases.values()):
            if case is taken or case.span.start != taken.span.start:
                continue
            if case.state is State.SHOWN and case.stands(text):
                del document.cases[case.suggestion.id]
                outcomes += [] if case.superseded else [case.supersede(now)]
            elif case.redone:
                case.undo()
                outcomes += self._settle(document, case, now)
        return outcomes

    def _all(self) -> Iterator[tuple[Document, Case]]:
        for document in self._documents.values():
            for case in document.cases.values():
                yield document, case

    def _find(self, suggestion_id: UUID) -> tuple[Document, Case] | None:
        for document in self._documents.values():
            if suggestion_id in document.cases:
                return document, document.cases[suggestion_id]
        return None

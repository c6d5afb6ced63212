"""Writes down what happens: suggestions, outcomes, feedback and the experiences they make.

Records go to the journal (fsync) in order, off the event loop; the journal's pump carries them to
PostgreSQL. An experience is written again, with a higher revision, whenever more is known about it. Where no more can
be kept, in the journal or in memory, recording stops until it can: that is told, and how much was left out is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from npllm.config import FeedbackConfig
from npllm.feedback.emotional import Emotion, interpret
from npllm.feedback.experience import experience
from npllm.memory.journal import Journal, JournalFull
from npllm.types import (
    Experience,
    Feedback,
    HeldBack,
    JournalRecord,
    Outcome,
    OutcomeKind,
    Sign,
    StoreError,
    Suggestion,
    new_id,
)

log = logging.getLogger(__name__)
REMEMBERED = 2000  # suggestions whose later outcomes and feedback can still be tied to them

NO_LABEL = (OutcomeKind.UNSEEN, OutcomeKind.SUPERSEDED)
MOST_WAITING = 5000  # records in memory, while the journal cannot be written


@dataclass(slots=True)
class _Case:
    suggestion: Suggestion
    outcome: Outcome | None = None
    feedback: Feedback | None = None
    revision: int = -1


class Recorder:
    """One per server.

    Args:
        on_experience: told of every experience as it is written.
        on_problem: told in one sentence when the journal cannot be written, and "" when it can.
    """

    def __init__(
        self,
        journal: Journal,
        config: FeedbackConfig,
        on_experience: Callable[[Experience], None],
        on_problem: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self.config = config
        self._on_experience = on_experience
        self._on_problem = on_problem
        self._cases: OrderedDict[UUID, _Case] = OrderedDict()
        self._forgotten: frozenset[UUID] = frozenset()
        self._queue: asyncio.Queue[JournalRecord] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._left_out = 0  # records since recording stopped

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write(), name="recorder")

    async def close(self) -> None:
        """Write what is queued and stop; what comes after that is written by `write_now`."""
        if self._writer is None:
            self.write_now()
            return
        await self.flush()
        self._writer.cancel()
        self._writer = None

    async def flush(self) -> None:
        """Return when all that was recorded so far is on disk."""
        await self._queue.join()

    def suggestion(self, suggestion: Suggestion) -> None:
        self._cases[suggestion.id] = _Case(suggestion)
        while len(self._cases) > REMEMBERED:
            self._cases.popitem(last=False)
        self._put(suggestion)

    def outcomes(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.suggestion_id in self._forgotten:
                continue
            self._put(outcome)
            case = self._cases.get(outcome.suggestion_id)
            if case is not None:
                case.outcome = outcome
                self._experience(case)

    def feedback(self, suggestion_id: UUID, emoji: str, comment: str) -> Feedback | None:
        """What the person said; None when the suggestion is not known (any more)."""
        case = self._cases.get(suggestion_id)
        if case is None:
            return None
        emotion = interpret(emoji, comment)
        case.feedback = Feedback(
            id=new_id(),
            suggestion_id=suggestion_id,
            emoji=emoji,
            comment=comment,
            satisfaction=emotion.satisfaction,
            confidence=emotion.confidence,
            frustration=emotion.frustration,
            reward=emotion.reward,
            created_at=datetime.now(UTC),
        )
        self._put(case.feedback)
        if case.outcome is not None:
            self._experience(case)
        return case.feedback

    def reread(self, given: Feedback, emotion: Emotion, by: str) -> Feedback | None:
        """What the person said means this after all; None when they have said something else since."""
        case = self._cases.get(given.suggestion_id)
        if case is None or case.feedback is None or case.feedback.id != given.id:
            return None
        case.feedback = replace(
            given,
            satisfaction=emotion.satisfaction,
            confidence=emotion.confidence,
            frustration=emotion.frustration,
            reward=emotion.reward,
            read_by=by,
        )
        self._put(case.feedback)
        if case.outcome is not None:
            self._experience(case)
        return case.feedback

    def note(self, record: HeldBack | Sign) -> None:
        """A suggestion was made and not shown; or a sign of frustration."""
        if record.suggestion_id not in self._forgotten:
            self._put(record)

    def adopt(self, suggestion: Suggestion) -> None:
        """Know a suggestion of an earlier server process, which is recorded already."""
        self._cases.setdefault(suggestion.id, _Case(suggestion))

    def recorded(self) -> tuple[UUID, ...]:
        """Ids of the suggestions that are known."""
        return tuple(self._cases)

    def forget(self, ids: frozenset[UUID]) -> None:
        """Know nothing of these suggestions any more, and write down nothing that still comes of them."""
        self._forgotten |= ids
        for id in ids:
            self._cases.pop(id, None)

    def write_now(self) -> None:
        """Write what is queued, blocking; for the end of a process whose event loop is gone."""
        records: list[JournalRecord] = []
        while not self._queue.empty():
            records.append(self._queue.get_nowait())
        if records:
            try:
                self._journal.append(records)
            except JournalFull as error:
                log.error("%d records were not written down: %s", len(records), error)

    def known(self, suggestion_id: UUID) -> Suggestion | None:
        """A suggestion that was recorded lately, or None."""
        case = self._cases.get(suggestion_id)
        return case.suggestion if case else None

    def knows(self, suggestion_id: UUID) -> bool:
        """Whether a suggestion was recorded lately."""
        return suggestion_id in self._cases

    def heard(self, suggestion_id: UUID) -> bool:
        """Whether the person has said something about a suggestion."""
        case = self._cases.get(suggestion_id)
        return case is not None and case.feedback is not None

    def outcome(self, suggestion_id: UUID) -> OutcomeKind | None:
        """What became of a suggestion, as far as that is known."""
        case = self._cases.get(suggestion_id)
        return None if case is None or case.outcome is None else case.outcome.kind

    def last_seen(self, seen: Callable[[UUID], bool | None]) -> Suggestion | None:
        """The suggestion that the person saw last; where they saw none, the one made last.

        Args:
            seen: whether it was; None where that is to be told by what became of it.
        """
        for id, case in reversed(self._cases.items()):
            known = seen(id)
            if known is None:
                known = case.outcome is not None and case.outcome.kind not in NO_LABEL
            if known:
                return case.suggestion
        return next(reversed(self._cases.values())).suggestion if self._cases else None

    def _experience(self, case: _Case) -> None:
        assert case.outcome is not None
        made = experience(case.suggestion, case.outcome, case.feedback, self.config)
        if made is None:
            return
        case.revision += 1
        made = replace(made, revision=case.revision)
        self._put(made)
        self._on_experience(made)

    def _put(self, record: JournalRecord) -> None:
        if self._queue.qsize() < MOST_WAITING:
            self._queue.put_nowait(record)
            return
        self._leave_out(1)
        self._on_problem(
            "The journal cannot be written, and too much waits in memory: what happens now is not remembered."
        )

    def _leave_out(self, count: int) -> None:
        if self._left_out == 0:
            log.error("recording stops: no more can be kept")
        self._left_out += count

    def _kept(self) -> None:
        """The journal takes records (again)."""
        if self._left_out:
            log.warning("recording goes on; %d records were not written down", self._left_out)
            self._left_out = 0
        self._on_problem("")

    async def _write(self) -> None:
        while True:
            records: list[JournalRecord] = [await self._queue.get()]
            while not self._queue.empty() and len(records) < 500:
                records.append(self._queue.get_nowait())
            try:
                await self._append(records)
            finally:
                for _ in records:
                    self._queue.task_done()

    async def _append(self, records: Sequence[JournalRecord]) -> None:
        # Retried until it succeeds: a full disk or a lost folder costs time, not knowledge.
        delay = 0.5
        while True:
            try:
                await asyncio.to_thread(self._journal.append, records)
                self._kept()
                return
            except JournalFull as error:
                self._leave_out(len(records))
                self._on_problem(str(error))
                return
            except (OSError, StoreError) as error:
                self._on_problem(f"The journal cannot be written ({error}). What is learned waits in memory.")
                await asyncio.sleep(delay)
                delay = min(delay * 2, 30.0)

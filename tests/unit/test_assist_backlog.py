"""What an editor does while something long is read is heard afterwards, in order, and no keystroke waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from npllm.assist.backlog import Backlog
from npllm.config import FeedbackConfig
from npllm.feedback.implicit import ImplicitFeedback
from npllm.types import Outcome, OutcomeKind, Place, Suggestion, new_id
from tests.unit.test_feedback_implicit import become

URI = "file:///w/a.py"


class Desk:
    """A long document, the tracker behind a backlog, and the same tracker told everything at once."""

    def __init__(self, lines: int = 3000) -> None:
        self.text = "".join(f"value_{number} = compute({number})\n" for number in range(lines))
        self.now = 0.0
        self.told: list[Outcome] = []
        self.expected: list[Outcome] = []
        self.tracker, self.reference = ImplicitFeedback(FeedbackConfig()), ImplicitFeedback(FeedbackConfig())
        self.backlog = Backlog(self.told.extend)

    def hear(self, tell: Callable[[ImplicitFeedback, float], list[Outcome]]) -> None:
        self.now += 1.0
        now = self.now
        self.expected += tell(self.reference, now)
        self.backlog.hear(lambda: [tell(self.tracker, now)])

    def offer(self, text: str, offset: int) -> Suggestion:
        made = Suggestion(
            new_id(), Place(URI, "a.py", "python", "/w", offset), text, self.text[:offset][-6000:],
            self.text[offset:][:2000], "language:python", "f", (), (), -1.0, 1.0, datetime.now(UTC),
        )  # fmt: skip
        self.hear(lambda tracker, now: tracker.shown(made, now))
        return made

    def edit(self, start: int, end: int, new: str, *, long: bool = False) -> None:
        before, self.text = self.text, self.text[:start] + new + self.text[end:]
        self.now += 1.0
        now = self.now
        self.expected += become(self.reference, URI, before, start, end, new, now)
        self.backlog.hear(lambda: self.tracker.changing(URI, before, start, end, new, now), long=long)


def plain(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    return [(o.suggestion_id, o.kind, o.final_text, o.survival, o.revision, o.final, o.occasion) for o in outcomes]


async def test_what_happens_while_a_formatter_s_work_is_read_is_heard_afterwards_in_order():
    desk = Desk()
    taken = desk.offer("extra(1)", desk.text.index("value_1500"))
    desk.edit(taken.place.offset, taken.place.offset, "extra(1)\n")
    desk.edit(0, len(desk.text), desk.text.replace("(", "( "), long=True)
    assert [o.kind for o in desk.told] == [OutcomeKind.ACCEPTED], "the format is not read yet"
    at = desk.text.index("extra( 1)")
    desk.edit(at, at + len("extra( 1)"), "")  # heard before the format is read
    desk.hear(lambda tracker, now: tracker.saved(URI, now))
    later = desk.offer("other()", len(desk.text))
    desk.edit(len(desk.text), len(desk.text), "something")
    assert len(desk.told) == 1
    await desk.backlog.done()
    assert plain(desk.told) == plain(desk.expected)
    assert desk.told[-1].kind is OutcomeKind.DELETED and len(desk.told) > 1
    desk.hear(lambda tracker, now: tracker.close_all(now))  # nothing waits any more: at once
    assert plain(desk.told) == plain(desk.expected)
    assert {o.suggestion_id for o in desk.told} == {taken.id, later.id}


async def test_the_event_loop_is_free_while_it_is_read():
    desk = Desk(20_000)
    for line in range(0, 20_000, 400):
        desk.offer("compute(1)", desk.text.index(f"value_{line} ") + 8)
    turns = 0
    desk.edit(0, len(desk.text), desk.text.replace("(", "( "), long=True)
    while desk.backlog._waiting or desk.backlog._steps is not None:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 20, "in many steps"
    assert plain(desk.told) == plain(desk.expected)


async def test_what_waits_is_done_at_once_where_there_is_no_time_left():
    desk = Desk()
    taken = desk.offer("extra(1)", 0)
    desk.edit(0, 0, "extra(1)")
    desk.edit(0, len(desk.text), desk.text.replace("(", "( "), long=True)
    desk.hear(lambda tracker, now: tracker.close_all(now))
    desk.backlog.finish()
    assert plain(desk.told) == plain(desk.expected)
    assert desk.told[-1].suggestion_id == taken.id and desk.told[-1].final


async def test_what_cannot_be_followed_is_logged_and_the_rest_is_heard(caplog: pytest.LogCaptureFixture):
    told: list[Outcome] = []
    backlog = Backlog(told.extend)

    def broken() -> list[list[Outcome]]:
        raise ZeroDivisionError

    heard = []
    backlog.hear(broken, long=True)
    backlog.hear(lambda: [heard.append(time.monotonic()) or []])
    await backlog.done()
    assert len(heard) == 1
    assert "could not be followed" in caplog.text

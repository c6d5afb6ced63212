"""Streams of document changes as editors send them, and what each says about the suggestion."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from npllm.config import FeedbackConfig
from npllm.feedback.implicit import ImplicitFeedback
from npllm.types import OutcomeKind, Place, Suggestion, new_id

URI = "file:///w/a.py"
K = OutcomeKind


class Desk:
    """A document, a clock and the tracker."""

    def __init__(self, text: str = "x = \ny = 2\n", **config: float) -> None:
        self.text = text
        self.now = 100.0
        self.tracker = ImplicitFeedback(FeedbackConfig(**config))
        self.outcomes = []

    def show(self, offset: int, text: str, replaced: int = 0) -> Suggestion:
        place = Place(URI, "a.py", "python", "/w", offset)
        made = Suggestion(
            new_id(), place, text, self.text[:offset], self.text[offset + replaced :],
            "language:python", "f", (), (), -1.0, 1.0, datetime.now(UTC),
        )  # fmt: skip
        self.outcomes += self.tracker.shown(made, self.now, replaced=replaced)
        self.now += 1.0
        return made

    def edit(self, start: int, end: int, new: str) -> None:
        before = self.text
        self.text = before[:start] + new + before[end:]
        self.outcomes += self.tracker.changed(URI, before, start, end, new, self.now)
        self.now += 0.1

    def type(self, at: int, text: str) -> None:
        for index, char in enumerate(text):
            self.edit(at + index, at + index, char)

    def end(self):
        self.outcomes += self.tracker.close_all(self.now)
        return self.outcomes

    def last(self, suggestion: Suggestion):
        found = [outcome for outcome in self.end() if outcome.suggestion_id == suggestion.id]
        assert [outcome.revision for outcome in found] == list(range(len(found)))
        return found[-1]


@pytest.mark.parametrize("command", ["after", "before", "never"])
def test_tab_is_one_acceptance(command):
    desk = Desk()
    made = desk.show(4, "compute(1)")
    if command == "before":
        desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    desk.edit(4, 4, "compute(1)")
    if command == "after":
        desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    assert [outcome.kind for outcome in desk.outcomes] == [K.ACCEPTED]
    last = desk.last(made)
    assert (last.kind, last.final_text, last.survival, last.implicit) == (K.ACCEPTED, "compute(1)", 1.0, 1.0)


def test_accept_in_a_document_with_crlf_and_several_lines():
    desk = Desk("if a:\r\n    \r\n")
    made = desk.show(11, "b()\r\n    c()")
    desk.edit(11, 11, "b()\r\n    c()")
    assert desk.last(made).kind is K.ACCEPTED


def test_accept_by_replacing_up_to_the_end_of_the_line():
    desk = Desk("x = fo\ny = 2\n")
    made = desk.show(6, "o(1)")
    desk.edit(4, 6, "foo(1)")
    assert desk.last(made).kind is K.ACCEPTED


def test_the_whole_document_sent_anew_is_an_acceptance():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(0, len(desk.text), "x = compute(1)\ny = 2\n")
    assert desk.last(made).kind is K.ACCEPTED


def test_word_by_word_and_then_something_else_is_a_part():
    desk = Desk()
    made = desk.show(4, "alpha + beta + gamma")
    desk.edit(4, 4, "alpha")
    desk.edit(9, 9, " + beta")
    desk.type(16, " - 1")
    last = desk.last(made)
    assert last.kind is K.PARTIALLY_ACCEPTED
    assert last.final_text == "alpha + beta - 1"
    assert 0.5 < last.implicit < 0.7


def test_typing_it_all_by_hand_is_right_but_saved_nothing():
    desk = Desk()
    made = desk.show(4, "abc")
    desk.type(4, "abc")
    last = desk.last(made)
    assert (last.kind, last.implicit) == (K.ACCEPTED, 0.5)


def test_typing_along_then_tab():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "com")
    desk.edit(7, 7, "pute(1)")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.implicit) == (K.ACCEPTED, "compute(1)", 1.0)


def test_typing_along_and_diverging_is_a_rejection_with_what_was_written():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "content")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.implicit) == (K.REJECTED, "content", -0.25)


def test_a_rejection_is_settled_by_going_on_to_the_next_line():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "other()")
    assert desk.outcomes == []
    desk.edit(11, 11, "\n")
    assert [(o.kind, o.final_text, o.final) for o in desk.outcomes] == [(K.REJECTED, "other()", False)]
    desk.type(12, "z = 1")
    assert desk.last(made).final_text == "other()"


def test_a_rejection_is_settled_by_time():
    desk = Desk(settle_s=30.0)
    desk.show(4, "compute(1)")
    desk.type(4, "other()")
    assert desk.tracker.tick(desk.now + 10) == []
    assert [o.final_text for o in desk.tracker.tick(desk.now + 31)] == ["other()"]


def test_a_paste_of_several_lines_instead_is_what_was_written():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "[\n    1,\n]")
    assert desk.last(made).final_text == "[\n    1,\n]"


def test_undo_after_accept_is_a_deletion():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.edit(4, 14, "")
    last = desk.last(made)
    assert (last.kind, last.implicit, last.final_text) == (K.DELETED, -0.5, "")


def test_edit_after_accept_is_weighed_by_what_survives():
    desk = Desk()
    made = desk.show(4, "compute(first, second)")
    desk.edit(4, 4, "compute(first, second)")
    desk.edit(19, 25, "third")
    last = desk.last(made)
    assert last.kind is K.EDITED
    assert last.final_text == "compute(first, third)"
    assert last.survival == pytest.approx(15 / 21)
    assert last.implicit == pytest.approx(0.3 + 0.5 * 15 / 21)


def test_a_formatter_is_not_an_edit():
    desk = Desk()
    made = desk.show(4, "f(a,b)")
    desk.edit(4, 4, "f(a,b)")
    desk.edit(0, len(desk.text), "x = f(a, b)\ny = 2\n")
    last = desk.last(made)
    assert (last.kind, last.survival, last.final_text) == (K.ACCEPTED, 1.0, "f(a, b)")


def test_going_on_writing_behind_an_accepted_text_is_not_an_edit():
    desk = Desk()
    made = desk.show(4, "compute(")
    desk.edit(4, 4, "compute(")
    desk.type(12, "1)")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.survival) == (K.ACCEPTED, "compute(1)", 1.0)


def test_edits_above_move_it():
    desk = Desk("a\nx = \n")
    made = desk.show(6, "compute(1)")
    desk.edit(0, 1, "import something\n")
    at = desk.text.index("x = ") + 4
    desk.edit(at, at, "compute(1)")
    assert desk.last(made).kind is K.ACCEPTED


def test_an_edit_inserted_right_at_the_place_by_the_closing_bracket_habit():
    desk = Desk("x = f")
    made = desk.show(5, "(1)")
    desk.edit(5, 5, "()")
    desk.edit(6, 6, "1)")
    assert desk.last(made).kind is K.ACCEPTED


def test_a_suggestion_that_the_next_one_continues_is_no_rejection():
    desk = Desk()
    first = desk.show(4, "compute")
    desk.type(4, "com")
    second = desk.show(7, "pute(1)")
    desk.edit(7, 7, "pute(1)")
    kinds = {outcome.suggestion_id: outcome.kind for outcome in desk.end()}
    assert kinds == {first.id: K.SUPERSEDED, second.id: K.ACCEPTED}


def test_never_long_enough_on_screen_is_no_label_but_still_learned():
    desk = Desk(min_visible_ms=750)
    made = desk.show(4, "compute(1)")
    desk.now -= 0.9
    desk.type(4, "other")
    last = desk.last(made)
    assert (last.kind, last.implicit, last.final_text) == (K.UNSEEN, 0.0, "other")


def test_seen_and_left_alone():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(10, 10, "3")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.implicit) == (K.IGNORED, "", -0.1)


def test_escape_then_typing():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.outcomes += desk.tracker.dismissed(URI, desk.now)
    desk.type(4, "other")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.DISMISSED, "other")


def test_a_rewritten_selection_that_is_applied_is_accepted():
    desk = Desk("x = old(1)\ny = 2\n")
    made = desk.show(4, "new(1, 2)", replaced=6)
    desk.edit(4, 10, "new(1, 2)")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "new(1, 2)")


def test_looks_go_on_for_ten_minutes_and_then_end():
    desk = Desk(settle_s=30.0)
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    at = desk.now
    for later in (31, 125, 305):
        assert desk.tracker.tick(at + later) == []
    desk.edit(4, 14, "")
    final = desk.tracker.tick(at + 620)
    assert [(o.kind, o.final, o.suggestion_id) for o in final] == [(K.DELETED, True, made.id)]
    assert desk.tracker.tick(at + 10_000) == []

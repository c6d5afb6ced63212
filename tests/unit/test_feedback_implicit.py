"""Streams of document changes as editors send them, and what each says about the suggestion."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.config import FeedbackConfig
from npllm.feedback import reward
from npllm.feedback.implicit import PARKED_S, ImplicitFeedback
from npllm.feedback.tracking import common_head, common_tail
from npllm.types import OutcomeKind, Place, Suggestion, new_id

URI = "file:///w/a.py"
K = OutcomeKind


def become(tracker, *change, **how):
    """What becomes known with a change, all its steps together."""
    return [outcome for outcomes in tracker.changing(*change, **how) for outcome in outcomes]


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
        self.outcomes += become(self.tracker, URI, before, start, end, new, self.now)
        self.now += 0.1

    def type(self, at: int, text: str) -> None:
        for index, char in enumerate(text):
            self.edit(at + index, at + index, char)

    def next_due(self) -> float | None:
        """When `tick` has something to do next; None when nothing is followed."""
        looks = (case.due(self.tracker.config.settle_s)[0] for _, case in self.tracker._all())
        return min((*looks, *(at + PARKED_S for _, at in self.tracker._parked.values())), default=None)

    def end(self):
        self.outcomes += self.tracker.close_all(self.now)
        return self.outcomes

    def last(self, suggestion: Suggestion):
        found = [outcome for outcome in self.end() if outcome.suggestion_id == suggestion.id]
        assert [outcome.revision for outcome in found] == list(range(len(found)))
        return found[-1]


def base(outcome) -> float:
    """The implicit reward before the surviving characters weigh it."""
    return outcome.implicit / outcome.weight


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
    assert (last.kind, last.final_text, last.survival, base(last)) == (K.ACCEPTED, "compute(1)", 1.0, 1.0)


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


def test_the_same_outcome_is_worth_more_the_more_characters_survive():
    rewards = []
    for text in ("a1", "compute(1)", "compute(first, second) + offset"):
        desk = Desk()
        made = desk.show(4, text)
        desk.edit(4, 4, text)
        last = desk.last(made)
        assert last.weight == reward.weight(1.0, reward.size(text))
        rewards.append(last.implicit)
    assert rewards == sorted(set(rewards)) and rewards[0] > 0 and rewards[-1] < 1


def test_an_edit_is_weighed_by_what_survives_of_it():
    desk = Desk()
    made = desk.show(4, "first_name + last_name")
    desk.edit(4, 4, "first_name + last_name")
    desk.edit(17, 26, "surname")
    last = desk.last(made)
    assert last.survival == pytest.approx(11 / 20)
    assert last.weight == pytest.approx(reward.weight(1.0, 11))
    assert last.implicit == pytest.approx((0.3 + 0.5 * 11 / 20) * last.weight)


def test_what_is_not_good_is_not_made_less_bad_by_being_short():
    desk = Desk()
    made = desk.show(4, "a1")
    desk.type(4, "zz\n")
    assert (desk.last(made).implicit, desk.last(made).weight) == (-0.25, 1.0)


def test_what_went_off_the_screen_because_the_person_looked_elsewhere_was_not_refused():
    desk = Desk()
    made = desk.show(4, "compute(1)")  # a second passes
    desk.tracker.hidden(URI, desk.now)
    desk.now += 300
    desk.type(4, "other")
    last = desk.last(made)
    assert (last.kind, last.detail, last.final_text, last.implicit) == (K.IGNORED, "moved away", "other", -0.1)
    assert last.seen_s == pytest.approx(1.0)


def test_too_short_on_screen_before_the_person_looked_elsewhere_it_was_never_seen():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.tracker.hidden(URI, desk.now - 0.7)
    desk.now += 300
    assert desk.last(made).kind is K.UNSEEN


@pytest.mark.parametrize("back", ["shown", "typed along"])
def test_back_on_screen_it_can_be_refused_again(back):
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.tracker.hidden(URI, desk.now)
    desk.now += 300
    if back == "shown":
        desk.tracker.visible(made.id, desk.now)
        desk.now += 1
        desk.type(4, "other")
    else:
        desk.type(4, "c")
        desk.now += 1
        desk.type(5, "xyz")
    assert desk.last(made).kind is K.REJECTED


def test_how_long_it_was_on_screen_and_how_much_was_typed_along():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.now += 1.5  # one second passes as it is shown
    desk.type(4, "com")
    desk.edit(7, 7, "pute(1)")
    last = desk.last(made)
    assert (last.kind, last.typed) == (K.ACCEPTED, 3)
    assert last.seen_s == pytest.approx(2.8)
    desk.now += 100
    later = desk.show(4, "other")
    desk.now -= 0.9  # 0.1 s on screen
    desk.edit(4, 4, "x")
    assert desk.last(later).kind is K.UNSEEN and desk.last(later).seen_s == 0.0


def test_word_by_word_and_then_something_else_is_a_part():
    desk = Desk()
    made = desk.show(4, "alpha + beta + gamma")
    desk.edit(4, 4, "alpha")
    desk.edit(9, 9, " + beta")
    desk.type(16, " - 1")
    last = desk.last(made)
    assert last.kind is K.PARTIALLY_ACCEPTED
    assert last.final_text == "alpha + beta - 1"
    assert 0.5 < base(last) ** 2 < 0.7  # the share


def test_typing_it_all_by_hand_is_right_but_saved_nothing():
    desk = Desk()
    made = desk.show(4, "abc")
    desk.type(4, "abc")
    last = desk.last(made)
    assert (last.kind, base(last)) == (K.ACCEPTED, 0.5)


def test_typing_along_then_tab():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "com")
    desk.edit(7, 7, "pute(1)")
    last = desk.last(made)
    assert (last.kind, last.final_text, base(last)) == (K.ACCEPTED, "compute(1)", 1.0)


def test_typing_along_and_diverging_is_a_rejection_with_what_was_written():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "content")
    last = desk.last(made)
    assert (last.kind, last.final_text, base(last)) == (K.REJECTED, "content", -0.25)


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
    assert (last.kind, base(last), last.final_text) == (K.DELETED, -0.5, "")


def test_edit_after_accept_is_weighed_by_what_survives():
    desk = Desk()
    made = desk.show(4, "compute(first, second)")
    desk.edit(4, 4, "compute(first, second)")
    desk.edit(19, 25, "third")
    last = desk.last(made)
    assert last.kind is K.EDITED
    assert last.final_text == "compute(first, third)"
    assert last.survival == pytest.approx(15 / 21)
    assert base(last) == pytest.approx(0.3 + 0.5 * 15 / 21)


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
    assert (last.kind, base(last), last.final_text) == (K.UNSEEN, 0.0, "other")


def test_seen_and_left_alone():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(10, 10, "3")
    last = desk.last(made)
    assert (last.kind, last.final_text, base(last)) == (K.IGNORED, "", -0.1)


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


# -- accepting ------------------------------------------------------------------------------------------


def test_a_document_with_crlf_gets_line_ends_of_its_own():
    desk = Desk("if a:\r\n    \r\nz = 1\r\n")
    made = desk.show(11, "b()\n    c()")
    desk.edit(11, 11, "b()\r\n    c()")
    desk.edit(desk.text.index("z"), desk.text.index("z"), "q")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.survival) == (K.ACCEPTED, "b()\r\n    c()", 1.0)


def test_typing_through_a_line_end_in_a_document_with_crlf():
    desk = Desk("if a:\r\n")
    made = desk.show(5, "\n    b()\n    c()")
    desk.edit(5, 5, "\r\n    ")
    desk.edit(11, 11, "b()\r\n    c()")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "\r\n    b()\r\n    c()")


def test_the_editor_replaces_what_stands_behind_the_cursor():
    desk = Desk("x = foo()\n")
    made = desk.show(8, "1)")
    desk.edit(8, 9, "1)")
    desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    assert [outcome.kind for outcome in desk.outcomes] == [K.ACCEPTED]
    last = desk.last(made)
    assert (last.kind, last.final_text, base(last)) == (K.ACCEPTED, "1", 1.0)  # with the suffix, as it stands


def test_a_replaced_range_up_to_the_end_of_the_line_and_its_command():
    desk = Desk("x = fo  # old\ny\n")
    made = desk.show(6, "o(1)")
    desk.edit(4, 13, "foo(1)")
    desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    assert [outcome.kind for outcome in desk.outcomes] == [K.ACCEPTED]


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_command_explains_a_change_that_the_editor_has_reshaped(order):
    desk = Desk("def f():\n")
    made = desk.show(8, "\n    a = 1\n    return a")
    if order == "before":
        desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    desk.edit(8, 8, "\n\ta = 1\n\treturn a")
    if order == "after":
        desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    assert [outcome.kind for outcome in desk.outcomes] == [K.ACCEPTED]
    assert desk.last(made).final_text == "\n\ta = 1\n\treturn a"


def test_an_insertion_that_a_comparing_editor_tells_at_another_place():
    # Between "a\n" and "\nb" comes "\nc": compared from the front, the new text is "c\n", one character further on.
    desk = Desk("a\nb\n")
    made = desk.show(1, "\nc")
    desk.edit(2, 2, "c\n")
    assert desk.text == "a\nc\nb\n"
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "\nc")


def test_the_last_letter_by_tab_is_an_acceptance_once_the_command_says_so():
    desk = Desk()
    made = desk.show(4, "abc")
    desk.type(4, "abc")
    assert desk.outcomes == []
    desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    assert [(outcome.kind, base(outcome)) for outcome in desk.outcomes] == [(K.ACCEPTED, 1.0)]


def test_accepting_word_by_word_to_the_end_with_the_extension_is_one_acceptance():
    desk = Desk()
    made = desk.show(4, "alpha + beta")
    for start, word in ((4, "alpha"), (9, " +"), (11, " beta")):
        desk.edit(start, start, word)
        desk.outcomes += desk.tracker.partially_accepted(made.id, start + len(word) - 4, desk.now)
    assert [outcome.kind for outcome in desk.outcomes] == [K.ACCEPTED]
    assert base(desk.last(made)) == 1.0


def test_a_word_taken_and_the_rest_left_is_a_part():
    desk = Desk()
    made = desk.show(4, "alpha + beta")
    desk.edit(4, 4, "alpha")
    desk.edit(9, 9, "\n")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.survival) == (K.PARTIALLY_ACCEPTED, "alpha", pytest.approx(5 / 12))


def test_a_word_taken_and_taken_back_is_an_acceptance_undone():
    desk = Desk()
    made = desk.show(4, "alpha + beta")
    desk.edit(4, 4, "alpha")
    desk.edit(4, 9, "")
    desk.type(4, "z")
    last = desk.last(made)
    assert (last.kind, last.detail, last.final_text) == (K.DELETED, "undone", "z")


def test_several_changes_in_one_message_from_the_bottom_up():
    desk = Desk("x = \ny = 2\nz = \n")
    made = desk.show(4, "compute(1)")
    desk.now -= 0.1
    desk.edit(15, 15, "compute(1)")  # a second cursor
    desk.edit(4, 4, "compute(1)")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "compute(1)")


def test_an_import_added_with_the_acceptance_does_not_disturb_it():
    desk = Desk("a = 1\nx = \n")
    made = desk.show(10, "os.getcwd()")
    desk.edit(10, 10, "os.getcwd()")
    desk.edit(0, 0, "import os\n")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "os.getcwd()")


def test_brackets_the_editor_closes_and_types_over():
    desk = Desk("x = f\n")
    made = desk.show(5, "(a)")
    desk.edit(5, 5, "()")
    desk.edit(6, 6, "a")
    desk.edit(7, 8, ")")  # typed over
    last = desk.last(made)
    assert (desk.text, last.kind, last.final_text, base(last)) == ("x = f(a)\n", K.ACCEPTED, "(a)", 0.5)


def test_an_acceptance_when_the_editor_sends_the_whole_document_each_time():
    desk = Desk("aa\naa\naa\n")
    made = desk.show(5, "\naa")
    for text in ("aa\naa\n\naa\n", "aa\naa\naa\naa\n"):
        desk.edit(0, len(desk.text), text)
    last = desk.last(made)
    assert last.kind is K.ACCEPTED


# -- after an acceptance --------------------------------------------------------------------------------


def test_going_on_with_the_word_behind_an_accepted_text_takes_nothing_from_it():
    desk = Desk()
    made = desk.show(4, "self.comp")
    desk.edit(4, 4, "self.comp")
    desk.type(13, "ute()")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.survival) == (K.ACCEPTED, "self.compute()", 1.0)


def test_the_next_lines_do_not_belong_to_it():
    desk = Desk("def f(\n")
    made = desk.show(6, "x):")
    desk.edit(6, 6, "x):")
    desk.edit(9, 9, "\n    ")
    desk.type(14, "return x")
    desk.edit(22, 22, "\n\n")
    assert desk.last(made).final_text == "x):"


def test_coming_back_to_the_end_of_the_line_belongs_to_it():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.edit(14, 14, "\n")
    desk.type(15, "z")
    desk.type(14, " + 1")
    assert desk.last(made).final_text == "compute(1) + 1"


def test_what_is_put_before_it_belongs_between_prefix_and_suffix():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.edit(4, 4, "await ")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "await compute(1)")
    assert last.survival == 1.0


def test_renaming_what_stands_right_before_it_leaves_it_alone():
    desk = Desk("item\n")
    made = desk.show(4, ".compute(1)")
    desk.edit(4, 4, ".compute(1)")
    desk.edit(0, 4, "thing")
    last = desk.last(made)
    assert (last.kind, last.final_text, last.survival) == (K.ACCEPTED, ".compute(1)", 1.0)


def test_undo_then_something_else():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.edit(4, 14, "")
    desk.type(4, "other")
    last = desk.last(made)
    assert (last.kind, base(last), last.final_text) == (K.DELETED, -0.5, "other")


def test_undo_and_redo():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.edit(4, 14, "")
    desk.edit(4, 4, "compute(1)")
    last = desk.last(made)
    assert (last.kind, last.survival) == (K.ACCEPTED, 1.0)


def test_the_line_with_it_is_deleted():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.edit(0, 15, "")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.DELETED, "")


def test_a_formatter_that_changes_every_line_is_not_an_edit():
    desk = Desk("a=1\nx=\nb=2\n")
    made = desk.show(6, "f(c,d)")
    desk.edit(6, 6, "f(c,d)")
    desk.edit(0, len(desk.text), "a = 1\nx = f(c, d)\nb = 2\n")
    last = desk.last(made)
    assert (last.kind, last.survival, last.final_text.strip()) == (K.ACCEPTED, 1.0, "f(c, d)")


def test_a_replacement_that_begins_right_behind_it_does_not_pull_the_next_lines_in():
    desk = Desk("x = \ny=2\nz=3\n")
    made = desk.show(4, "f(a)")
    desk.edit(4, 4, "f(a)")
    desk.edit(0, len(desk.text), "x = f(a)  # why\ny = 2\nz = 3\n")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.ACCEPTED, "f(a)  # why")


def test_a_rename_inside_is_an_edit_of_that_name_alone():
    desk = Desk("old = 1\nx = \n")
    made = desk.show(12, "f(old, 2)")
    desk.edit(12, 12, "f(old, 2)")
    desk.edit(14, 17, "new")
    desk.edit(0, 3, "new")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.EDITED, "f(new, 2)")
    assert last.survival == pytest.approx(5 / 8)


def test_the_looks_of_an_accepted_text_are_told_only_when_something_changed():
    desk = Desk(settle_s=30.0)
    desk.show(4, "f(first, second)")
    desk.edit(4, 4, "f(first, second)")
    at = desk.now - 0.1
    assert desk.next_due() == pytest.approx(at + 15)
    assert desk.tracker.tick(at + 16) == []
    assert desk.next_due() == pytest.approx(at + 30)
    assert desk.tracker.tick(at + 30) == []
    desk.edit(6, 11, "third")
    assert desk.next_due() == pytest.approx(at + 120)
    assert [o.kind for o in desk.tracker.tick(at + 120)] == [K.EDITED]
    assert desk.tracker.tick(at + 300) == []
    assert [(o.kind, o.final) for o in desk.tracker.tick(at + 600)] == [(K.EDITED, True)]
    assert desk.next_due() is None


# -- writing something else -----------------------------------------------------------------------------


def test_a_slip_and_then_the_suggestion_by_hand_is_right_after_all():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "conp")
    desk.edit(6, 8, "")
    desk.type(6, "mpute(1)")
    last = desk.last(made)
    assert (last.kind, last.final_text, base(last)) == (K.ACCEPTED, "compute(1)", 0.5)


def test_a_slip_and_then_the_suggestion_by_its_key():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "conp")
    desk.edit(6, 8, "")
    desk.edit(6, 6, "mpute(1)")
    assert [(o.kind, base(o)) for o in desk.outcomes] == [(K.ACCEPTED, 1.0)]
    assert desk.last(made).final_text == "compute(1)"


def test_a_longer_word_than_the_suggested_one_is_another_word():
    desk = Desk()
    made = desk.show(4, "x")
    desk.type(4, "xyz")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.REJECTED, "xyz")


def test_writing_on_the_next_line_instead():
    desk = Desk("def f(): \n")
    made = desk.show(9, "return 1")
    desk.edit(9, 9, "\n    ")
    desk.type(14, "return 2")
    desk.edit(22, 22, "\n")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.REJECTED, "\n    return 2")


def test_coming_back_within_the_time_corrects_what_was_told():
    desk = Desk(settle_s=30.0)
    made = desk.show(4, "compute(1)")
    desk.type(4, "other()")
    desk.edit(11, 11, "\n")
    desk.type(12, "z = 1\n")
    desk.edit(4, 11, "another()")
    assert [o.final_text for o in desk.tracker.tick(desk.now + 31)] == ["another()"]
    assert [(o.kind, o.final_text, o.final) for o in desk.outcomes] == [(K.REJECTED, "other()", False)]
    assert desk.tracker.accepted_command(made.id, desk.now + 32) == []


def test_an_import_added_while_the_line_is_being_written_does_not_end_it():
    desk = Desk("a = 1\nx = \n")
    made = desk.show(10, "compute(1)")
    desk.type(10, "os.ge")
    desk.edit(0, 0, "import os\n")
    desk.type(25, "tcwd()")
    assert desk.text == "import os\na = 1\nx = os.getcwd()\n"
    assert desk.last(made).final_text == "os.getcwd()"


def test_a_part_of_the_prefix_taken_back_and_another_word_written():
    desk = Desk("x = fo\n")
    made = desk.show(6, "o(1)")
    desk.edit(4, 6, "")
    desk.type(4, "bar()")
    last = desk.last(made)
    # "x = fo" + anything would be wrong: nothing can be learned behind a prefix that is gone.
    assert (last.kind, last.final_text) == (K.REJECTED, "")


def test_a_part_of_the_prefix_taken_back_and_written_again():
    desk = Desk("x = fo\n")
    made = desk.show(6, "o(1)")
    desk.edit(5, 6, "")
    desk.type(5, "or_each(2)")
    assert desk.text == "x = for_each(2)\n"
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.REJECTED, "r_each(2)")


def test_pasting_elsewhere_says_nothing_about_it():
    desk = Desk("x = \ny = 2\n\n\n")
    made = desk.show(4, "compute(1)")
    desk.edit(12, 12, "compute(1)\n" * 5)
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.IGNORED, "")


def test_escape_and_then_leaving_it():
    desk = Desk(settle_s=30.0)
    made = desk.show(4, "compute(1)")
    desk.outcomes += desk.tracker.dismissed(URI, desk.now)
    assert [(o.kind, base(o), o.final) for o in desk.tracker.tick(desk.now + 30)] == [(K.DISMISSED, -0.2, True)]
    assert desk.tracker.accepted_command(made.id, desk.now + 31) == []


# -- several suggestions, and time ----------------------------------------------------------------------


def test_another_one_at_the_same_place_replaces_it_without_a_label():
    desk = Desk()
    first, second = desk.show(4, "alpha"), desk.show(4, "beta")
    desk.type(4, "gamma")
    kinds = {outcome.suggestion_id: outcome.kind for outcome in desk.end()}
    assert kinds == {first.id: K.SUPERSEDED, second.id: K.REJECTED}


def test_the_older_one_was_still_on_screen_and_is_accepted():
    desk = Desk()
    first, second = desk.show(4, "alpha(1)"), desk.show(4, "beta(2)")
    desk.edit(4, 4, "alpha(1)")
    desk.outcomes += desk.tracker.accepted_command(first.id, desk.now)
    kinds = {outcome.suggestion_id: outcome.kind for outcome in desk.end()}
    assert kinds == {first.id: K.ACCEPTED, second.id: K.UNSEEN}


def test_a_word_taken_before_the_next_one_continues_it_counts():
    desk = Desk()
    first = desk.show(4, "alpha + beta")
    desk.edit(4, 4, "alpha")
    second = desk.show(9, " + beta")
    desk.edit(9, 9, " + beta")
    kinds = {outcome.suggestion_id: outcome.kind for outcome in desk.end()}
    assert kinds == {first.id: K.PARTIALLY_ACCEPTED, second.id: K.ACCEPTED}


def test_the_cursor_went_elsewhere_before_it_was_seen():
    desk = Desk("x = \ny = \n", min_visible_ms=750)
    first = desk.show(4, "alpha")
    desk.now -= 0.5
    desk.show(9, "beta")
    assert desk.last(first).kind is K.UNSEEN


def test_on_screen_for_minutes_and_then_accepted():
    desk = Desk(settle_s=30.0)
    made = desk.show(4, "compute(1)")
    for _ in range(20):
        desk.now += 20
        desk.outcomes += desk.tracker.tick(desk.now)
    assert desk.outcomes == []
    desk.edit(4, 4, "compute(1)")
    assert desk.last(made).kind is K.ACCEPTED


def test_the_document_changed_before_the_answer_came():
    desk = Desk()
    place = Place(URI, "a.py", "python", "/w", 4)
    text, desk.text = desk.text, "x = 9" + desk.text[4:]
    late = Suggestion(
        new_id(), place, "compute(1)", text[:4], text[4:], "language:python", "f", (), (), -1.0, 1.0,
        datetime.now(UTC),
    )  # fmt: skip
    desk.outcomes += desk.tracker.shown(late, desk.now)
    desk.now += 2
    desk.type(5, "8")
    last = desk.last(late)
    assert (last.kind, last.final_text) == (K.UNSEEN, "")


def test_closing_the_document_tells_what_is_known():
    desk = Desk()
    accepted = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    rejected = desk.show(len(desk.text), "z = 3")
    desk.type(len(desk.text), "other")
    assert [o.suggestion_id for o in desk.tracker.closed(URI, desk.now)] == [rejected.id]  # the other was told before
    told = {o.suggestion_id: o for o in desk.tracker.tick(desk.now + 6)}
    assert (told[accepted.id].kind, told[accepted.id].final) == (K.ACCEPTED, True)
    assert (told[rejected.id].kind, told[rejected.id].final_text, told[rejected.id].final) == (
        K.REJECTED, "other", True,
    )  # fmt: skip
    assert desk.next_due() is None


def test_many_suggestions_are_settled_from_the_oldest_on():
    desk = Desk("\n" * 300)
    first = desk.show(0, "alpha")
    for line in range(1, 100):
        desk.show(line, "alpha")
    kinds = [outcome.suggestion_id for outcome in desk.outcomes]
    assert first.id in kinds and len(kinds) >= 30


def test_times_are_those_of_the_suggestion_and_what_was_passed_in():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    assert (desk.outcomes[0].created_at - made.created_at).total_seconds() == pytest.approx(1.0)


# -- any stream of edits --------------------------------------------------------------------------------

_CALL = "compute(1)"


@settings(max_examples=250, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(["", "a", "bc", "\n", "f()", " "])), max_size=12
    ),
    st.booleans(),
)
def test_any_edits_after_an_acceptance_leave_what_stands_between_its_neighbours(edits, whole):
    """The reference: markers that nobody edits stand around the accepted text, and are looked for in the end."""
    desk = Desk("above\nx = <>\nbelow\n")
    made = desk.show(11, _CALL)
    desk.edit(11, 11, _CALL)
    for where, size, new in edits:
        at = int(where * len(desk.text))
        left, right = desk.text.index("<"), desk.text.index(">")
        start, end = at, min(at + size, len(desk.text))
        if start <= left < end or start <= right < end:
            continue
        before, after = desk.text, desk.text[:start] + new + desk.text[end:]
        if whole and before != after:
            desk.edit(0, len(before), after)
        else:
            desk.edit(start, end, new)
    left, right = desk.text.index("<"), desk.text.index(">")
    between = desk.text[left + 1 : right]
    last = desk.last(made)
    # A line begun behind it, or lines put above it, are not it; all else that stands there is.
    assert last.final_text in between
    assert between.startswith(last.final_text) or "\n" in between
    if "\n" not in between:
        assert last.final_text == between


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("edit"), st.floats(0, 1), st.sampled_from(["", "a", "(", "\n", "compute", "ab\ncd"])),
            st.tuples(st.just("show"), st.floats(0, 1), st.sampled_from(["a", "compute(1)", "\n  b\n", "(ab)"])),
            st.tuples(st.just("wait"), st.floats(0, 1), st.just("")),
            st.tuples(st.just("command"), st.floats(0, 1), st.just("")),
            st.tuples(st.just("escape"), st.floats(0, 1), st.just("")),
        ),
        max_size=25,
    )
)
def test_whatever_happens_each_suggestion_ends_once_with_a_sane_outcome(events):
    desk = Desk("x = \n\ny = f()\n")
    made = []
    for name, where, text in events:
        at = int(where * len(desk.text))
        if name == "edit":
            desk.edit(at, min(at + (len(text) + 1) % 3, len(desk.text)), text)
        elif name == "show":
            made.append(desk.show(at, text))
        elif name == "wait":
            desk.now += 700 * where
            desk.outcomes += desk.tracker.tick(desk.now)
        elif name == "escape":
            desk.outcomes += desk.tracker.dismissed(URI, desk.now)
        elif made:
            chosen = made[int(where * (len(made) - 1))]
            desk.outcomes += desk.tracker.accepted_command(chosen.id, desk.now)
    outcomes = desk.end()
    for suggestion in made:
        mine = [outcome for outcome in outcomes if outcome.suggestion_id == suggestion.id]
        assert mine and mine[-1].final
        assert [outcome.revision for outcome in mine] == list(range(len(mine)))
        assert all(-1 <= outcome.implicit <= 1 and 0 <= outcome.survival <= 1 for outcome in mine)
    assert desk.next_due() is None


def test_a_keystroke_in_a_long_file_costs_next_to_nothing():
    """As a share of what the editor's own bookkeeping costs: one copy of the document."""
    lines = [f"value_{number} = compute({number})\n" for number in range(20_000)]
    desk = Desk("".join(lines) + "x = ")
    for line in range(0, 20_000, 400):
        desk.show(desk.text.index(f"value_{line} "), "compute(1)")
    at = len(desk.text)
    before = desk.text
    become(desk.tracker, URI, before, at, at, "a", desk.now)

    def timed(action) -> float:
        started = time.perf_counter()
        for _ in range(30):
            action()
        return (time.perf_counter() - started) / 30

    copies = timed(lambda: [before[:at] + "a" + before[at:] for _ in range(20)])
    assert timed(lambda: become(desk.tracker, URI, before, at, at, "a", desk.now)) < copies


def _told_exactly(before: str, start: int, end: int, new: str) -> tuple[int, int, str]:
    return start, end, new


def _told_whole(before: str, start: int, end: int, new: str) -> tuple[int, int, str]:
    return 0, len(before), before[:start] + new + before[end:]


def _told_by_line(before: str, start: int, end: int, new: str) -> tuple[int, int, str]:
    low = before.rfind("\n", 0, start) + 1
    high = before.find("\n", end)
    high = len(before) if high < 0 else high
    return low, high, before[low:start] + new + before[end:high]


def _told_from_the_end(before: str, start: int, end: int, new: str) -> tuple[int, int, str]:
    """As an editor that compares texts from their ends first."""
    after = before[:start] + new + before[end:]
    tail = common_tail(before, after)
    head = common_head(before[: len(before) - tail], after[: len(after) - tail])
    return head, len(before) - tail, after[head : len(after) - tail]


@pytest.mark.parametrize("told", [_told_whole, _told_by_line, _told_from_the_end])
@settings(max_examples=150, deadline=None)
@given(
    suggested=st.sampled_from(["compute(a)", "aa + a", "\n    aa\n    a", "a", "(a)", "a\na"]),
    typed=st.integers(0, 6),
    then=st.sampled_from(["accept", "type on", "type another", "leave"]),
    after=st.sampled_from(["nothing", "undo", "edit above", "edit below", "new line", "change a word"]),
    behind=st.sampled_from(["\na\na\n", "\n    aa\n", ")\n", "\n", ""]),
)
def test_however_an_editor_tells_its_edits_the_outcome_is_the_same(told, suggested, typed, then, after, behind):
    def live(tell) -> tuple[OutcomeKind, str]:
        desk = Desk("a\n    aa\nx = " + behind)
        made = desk.show(13, suggested)

        def edit(start: int, end: int, new: str) -> None:
            desk.edit(*tell(desk.text, start, end, new))

        at = 13
        for char in suggested[: min(typed, len(suggested) - 2)]:
            edit(at, at, char)
            at += 1
        rest = suggested[at - 13 :]
        if then == "accept":
            edit(at, at, rest)
            desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
            at += len(rest)
        elif then != "leave":
            for char in rest if then == "type on" else "other":
                edit(at, at, char)
                at += 1
        if after == "undo":
            edit(13, at, "")
        elif after == "edit above":
            edit(0, 0, "q\n")
        elif after == "edit below":
            edit(len(desk.text), len(desk.text), "\nq")
        elif after == "new line":
            edit(at, at, "\n")
            edit(at + 1, at + 1, "q")
        elif after == "change a word" and at - 13 > 2:
            edit(13, 14, "Z")
        last = desk.last(made)
        return last.kind, last.final_text

    assert live(told) == live(_told_exactly)

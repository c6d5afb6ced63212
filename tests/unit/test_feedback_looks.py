"""Survival at saves, commits and through renames; how an outcome came about; signs of frustration."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.feedback import diffing, survival
from npllm.feedback.frustration import Signs
from npllm.feedback.looks import waits
from npllm.feedback.tracking import Change
from npllm.types import Outcome, OutcomeKind, Place, SignKind, Suggestion, new_id
from tests.unit.test_feedback_implicit import URI, Desk, K, become

NEW_URI = "file:///w/b.py"
PLACE = Place(URI, "a.py", "python", "/w", 4)


def accepted(**config: float) -> tuple[Desk, Suggestion]:
    desk = Desk(**config)
    made = desk.show(4, "compute(first, second)")
    desk.edit(4, 4, "compute(first, second)")
    return desk, made


def told(outcomes: list[Outcome]) -> list[tuple[OutcomeKind, str, bool]]:
    return [(outcome.kind, outcome.occasion, outcome.final) for outcome in outcomes]


# -- when it is looked at -------------------------------------------------------------------------------


def test_an_accepted_text_is_looked_at_at_the_times_of_the_issue():
    assert waits(30.0, until_commit=False) == [15.0, 30.0, 120.0, 300.0, 600.0]
    assert waits(30.0, until_commit=True)[-1] == 4 * 3600.0
    assert waits(86_400.0, until_commit=True) == [86_400.0]  # an evaluation's clock


def test_each_look_says_when_it_was():
    desk, _ = accepted()
    at = desk.now - 0.1
    desk.edit(12, 17, "third")
    assert told(desk.tracker.tick(at + 16)) == [(K.EDITED, "15 s", False)]
    desk.edit(4, len("x = compute(third, second)"), "")
    assert told(desk.tracker.tick(at + 121)) == [(K.DELETED, "120 s", False)]
    assert told(desk.tracker.tick(at + 601)) == [(K.DELETED, "600 s", True)]


def test_a_save_tells_what_survives_the_first_time_and_then_what_has_changed():
    desk, _ = accepted()
    assert told(desk.tracker.saved(URI, desk.now)) == [(K.ACCEPTED, "save", False)]
    assert desk.tracker.saved(URI, desk.now) == []
    desk.edit(12, 17, "third")
    (outcome,) = desk.tracker.saved(URI, desk.now)
    assert (outcome.kind, outcome.occasion, outcome.survival) == (K.EDITED, "save", pytest.approx(16 / 21))


def test_a_formatter_before_the_save_takes_nothing_away():
    desk, _ = accepted()
    desk.edit(0, len(desk.text), "x = compute(\n    first,\n    second,\n)\ny = 2\n")
    (outcome,) = desk.tracker.saved(URI, desk.now)
    assert (outcome.kind, outcome.survival, outcome.occasion) == (K.ACCEPTED, 1.0, "save")


def test_a_save_says_nothing_about_what_is_on_screen():
    desk = Desk()
    desk.show(4, "compute(1)")
    assert desk.tracker.saved(URI, desk.now) == []


def test_a_save_tells_what_was_written_instead():
    desk = Desk()
    desk.show(4, "compute(1)")
    desk.type(4, "other()")
    assert [(o.kind, o.final_text) for o in desk.tracker.saved(URI, desk.now)] == [(K.REJECTED, "other()")]


def shown_under_git(desk: Desk) -> Suggestion:
    made = desk.show(4, "compute(1)")
    desk.tracker._documents[URI].cases[made.id].until_commit = True
    desk.edit(4, 4, "compute(1)")
    return made


def test_a_commit_hours_later_is_the_last_word():
    desk = Desk()
    shown_under_git(desk)
    at = desk.now
    assert desk.tracker.tick(at + 700) == []  # still followed, and nothing has changed
    desk.edit(12, 13, "2")
    assert desk.tracker.committed("/elsewhere", at + 5000) == []
    assert told(desk.tracker.committed("/w", at + 5000)) == [(K.EDITED, "commit", True)]
    assert desk.next_due() is None


def test_a_commit_at_once_is_told_and_the_looks_go_on():
    desk = Desk()
    shown_under_git(desk)
    assert told(desk.tracker.committed("/w", desk.now + 1)) == [(K.ACCEPTED, "commit", False)]
    assert desk.tracker.committed("/w", desk.now + 2) == []
    assert desk.next_due() is not None


# -- what a look costs ----------------------------------------------------------------------------------


def counted(monkeypatch, module, name: str) -> list[tuple]:
    """The calls of a function, which does its work all the same."""
    calls: list[tuple] = []
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(given) or real(*given))
    return calls


def test_a_text_that_has_not_changed_is_not_compared_again(monkeypatch):
    desk = Desk("\n" * 10)
    for line in range(10):
        at = sum(len(text) for text in desk.text.splitlines(keepends=True)[:line])
        made = desk.show(at, "compute(first, second)")
        desk.tracker._documents[URI].cases[made.id].until_commit = True
        desk.edit(at, at, "compute(first, second)")
        desk.edit(at + 8, at + 13, "third")
    compared = counted(monkeypatch, survival, "common")
    assert told(desk.tracker.saved(URI, desk.now)) == [(K.EDITED, "save", False)] * 10
    compared.clear()
    for _ in range(5):
        assert desk.tracker.saved(URI, desk.now) == []
    desk.edit(0, 0, "# above\n")
    assert len(desk.tracker.committed("/w", desk.now)) == 10
    assert desk.tracker.tick(desk.now + 60) == []
    assert compared == []
    desk.edit(len(desk.text) - 3, len(desk.text) - 3, "x")
    assert len(desk.tracker.saved(URI, desk.now)) == 1
    assert len(compared) == 1


def large_under_git() -> Desk:
    desk = Desk("x = \n" + "".join(f"value_{number} = compute({number})\n" for number in range(10_000)))
    shown_under_git(desk)
    return desk


def reformat(desk: Desk) -> list[Outcome]:
    desk.outcomes.clear()
    desk.edit(0, len(desk.text), desk.text.replace("(", "( ").replace(")", " )"))
    return desk.outcomes


def test_what_waits_for_its_commit_is_followed_through_a_large_replacement():
    desk = large_under_git()
    desk.now += 700
    assert reformat(desk) == []
    told_at_last = desk.tracker.committed("/w", desk.now)
    assert told(told_at_last) == [(K.ACCEPTED, "commit", True)]
    assert told_at_last[0].final_text == "compute( 1 )"


def test_what_was_accepted_just_now_is_and_so_is_what_waits_in_a_small_document():
    desk = large_under_git()
    assert reformat(desk) == []
    assert [o.final_text for o in desk.tracker.closed(URI, desk.now)] == ["compute( 1 )"]
    desk = Desk()
    shown_under_git(desk)
    desk.now += 700
    assert reformat(desk) == []
    assert told(desk.tracker.committed("/w", desk.now)) == [(K.ACCEPTED, "commit", True)]


def test_a_large_replacement_that_leaves_it_alone_does_not_end_it():
    desk = large_under_git()
    desk.now += 700
    below = desk.text.index("value_1 ")
    desk.outcomes.clear()
    desk.edit(below, len(desk.text), desk.text[below:].replace("value", "number"))
    assert desk.outcomes == []
    assert told(desk.tracker.committed("/w", desk.now)) == [(K.ACCEPTED, "commit", True)]


def test_lines_far_from_what_is_followed_are_not_compared_one_by_one(monkeypatch):
    desk = large_under_git()
    compared = counted(monkeypatch, diffing, "minimal")
    reformat(desk)
    assert len(compared) < 20


def test_without_a_commit_it_ends_after_some_hours():
    desk = Desk()
    shown_under_git(desk)
    assert told(desk.tracker.tick(desk.now + 5 * 3600)) == [(K.ACCEPTED, "14400 s", True)]


# -- documents that come and go -------------------------------------------------------------------------


def test_a_renamed_file_is_the_same_document():
    desk, made = accepted()
    assert desk.tracker.closed(URI, desk.now) == []
    assert desk.tracker.opened(NEW_URI, desk.text, desk.now + 0.2) == []
    before = desk.text
    desk.text = before[:12] + "third" + before[17:]
    desk.outcomes += become(desk.tracker, NEW_URI, before, 12, 17, "third", desk.now + 1)
    assert desk.tracker.tick(desk.now + 10) == []  # nothing was settled by the closing
    last = desk.last(made)
    assert (last.kind, last.survival, last.final) == (K.EDITED, pytest.approx(16 / 21), True)


def test_another_document_that_opens_is_another_one():
    desk, _ = accepted()
    desk.tracker.closed(URI, desk.now)
    desk.tracker.opened(NEW_URI, desk.text + " ", desk.now + 0.2)
    assert told(desk.tracker.tick(desk.now + 6)) == [(K.ACCEPTED, "close", True)]


def test_closed_twice_in_a_moment_with_another_text_each_is_told_in_the_end():
    desk, first = accepted()
    desk.tracker.closed(URI, desk.now)
    desk.text = "another = \n"
    desk.tracker.opened(URI, desk.text, desk.now + 0.2)
    second = desk.show(10, "text()")
    desk.edit(10, 10, "text()")
    outcomes = desk.tracker.closed(URI, desk.now + 1)
    assert [(one.suggestion_id, one.kind, one.occasion, one.final) for one in outcomes] == [
        (first.id, K.ACCEPTED, "close", True)
    ]
    outcomes = desk.tracker.tick(desk.now + 10)
    assert [(one.suggestion_id, one.final_text, one.final) for one in outcomes] == [(second.id, "text()", True)]
    assert desk.next_due() is None


def test_what_opens_much_later_is_another_one():
    desk, _ = accepted()
    desk.tracker.closed(URI, desk.now)
    desk.tracker.opened(NEW_URI, desk.text, desk.now + 60)
    assert told(desk.tracker.tick(desk.now + 61)) == [(K.ACCEPTED, "close", True)]


def test_what_somebody_else_replaces_was_not_deleted_by_the_person():
    desk, made = accepted()
    assert told(desk.tracker.replaced(URI, desk.now)) == [(K.ACCEPTED, "replaced", True)]
    desk.edit(0, len(desk.text), "quite another branch\n")
    assert desk.last(made).kind is K.ACCEPTED


def test_the_suggestion_under_the_cursor():
    desk = Desk("x = \ny = \n")
    first = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    second = desk.show(19, "other(2)")
    assert desk.tracker.at(URI, 0, 14) == first.id
    assert desk.tracker.at(URI, 15, 19) == second.id
    assert desk.tracker.at(URI, 20, 20) is None
    assert desk.tracker.at(NEW_URI, 0, 14) is None
    desk.edit(0, 0, "# above\n")
    assert desk.tracker.at(URI, 8, 22) == first.id


# -- how it came about ----------------------------------------------------------------------------------


def detail(desk: Desk, made: Suggestion) -> tuple[OutcomeKind, str]:
    last = desk.last(made)
    return last.kind, last.detail


def test_taken_by_a_key_or_typed_out():
    desk = Desk()
    made = desk.show(4, "abc")
    desk.type(4, "abc")
    assert detail(desk, made) == (K.ACCEPTED, "typed out")
    desk, made = accepted()
    assert detail(desk, made) == (K.ACCEPTED, "")


def test_undone_in_one_go_or_deleted_letter_by_letter():
    desk, made = accepted()
    desk.edit(4, 26, "")
    assert detail(desk, made) == (K.DELETED, "undone")
    desk, made = accepted()
    for end in range(26, 4, -1):
        desk.edit(end - 1, end, "")
    assert detail(desk, made)[0] is K.DELETED
    desk, made = accepted()
    desk.edit(6, 26, "")
    assert detail(desk, made) == (K.DELETED, "")


def test_undone_and_redone_is_accepted():
    desk, made = accepted()
    desk.edit(4, 26, "")
    desk.edit(4, 4, "compute(first, second)")
    assert detail(desk, made) == (K.ACCEPTED, "")


@pytest.mark.parametrize(
    ("text", "taken", "unit"),
    [("alpha + beta", "alpha", "words"), ("alpha + beta", "alp", "characters"), ("a()\nb()\nc()", "a()\nb()", "lines")],
)
def test_a_part_in_characters_words_or_lines(text, taken, unit):
    desk = Desk()
    made = desk.show(4, text)
    desk.edit(4, 4, taken)
    at = 4 + len(taken)
    desk.edit(at, at, " or else\n")
    assert detail(desk, made) == (K.PARTIALLY_ACCEPTED, unit)


def test_typed_through_and_then_something_else():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.type(4, "content")
    assert detail(desk, made) == (K.REJECTED, "typed through 2 characters")


def test_moved_away_and_too_late():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(10, 10, "3")
    assert detail(desk, made) == (K.IGNORED, "moved away")
    desk = Desk()
    made = desk.show(4, "compute(1)")
    assert detail(desk, made) == (K.IGNORED, "")
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.text = "y" + desk.text
    desk.edit(1, 1, "z")
    assert detail(desk, made) == (K.UNSEEN, "too late")


# -- signs of frustration -------------------------------------------------------------------------------


def refusal(kind: OutcomeKind = K.REJECTED) -> Outcome:
    return Outcome(new_id(), new_id(), kind, "a", "b", 0.0, -0.25, datetime.now(UTC))


def test_five_refusals_in_a_row_are_a_sign_and_ten_a_stronger_one():
    signs = Signs()
    found = [signs.outcome(refusal(), PLACE) for _ in range(10)]
    assert [bool(sign) for sign in found] == [False] * 4 + [True] + [False] * 4 + [True]
    assert (found[4].kind, found[4].strength, found[9].strength) == (SignKind.REFUSALS, 0.5, 1.0)


def test_an_accept_between_them_begins_anew_and_looks_again_do_not_count():
    signs = Signs()
    again = refusal()
    for outcome in (*(refusal() for _ in range(3)), refusal(K.ACCEPTED), again, again, again, again, again, again):
        assert signs.outcome(outcome, PLACE) is None
    for kind in (K.IGNORED, K.UNSEEN, K.SUPERSEDED):
        assert signs.outcome(refusal(kind), PLACE) is None


class Keys:
    """A document and the watch over it."""

    def __init__(self) -> None:
        self.text, self.now, self.signs, self.found = "", 0.0, Signs(), []

    def edit(self, start: int, end: int, new: str) -> None:
        change = Change(start, end, new)
        self.found.append(self.signs.changed(PLACE, self.text, change, self.now))
        self.text = change.splice(self.text)
        self.now += 0.3

    def type(self, text: str) -> None:
        for char in text:
            self.edit(len(self.text), len(self.text), char)

    @property
    def storms(self) -> int:
        return sum(sign is not None for sign in self.found)


def test_five_undos_in_ten_seconds_are_a_storm():
    keys = Keys()
    suggestion = new_id()
    keys.signs.offered(URI, suggestion)
    for word in ("one ", "two ", "three ", "four ", "five "):
        keys.edit(len(keys.text), len(keys.text), word)  # pasted or completed
    for size in (5, 5, 6, 4, 4):
        keys.edit(len(keys.text) - size, len(keys.text), "")
    assert keys.storms == 1
    (sign,) = [sign for sign in keys.found if sign]
    assert (sign.kind, sign.suggestion_id) == (SignKind.UNDO_STORM, suggestion)
    assert keys.text == ""


def test_what_was_typed_is_undone_word_by_word():
    keys = Keys()
    keys.type("alpha beta gamma delta epsilon ")
    for size in (8, 6, 6, 5, 6):
        keys.edit(len(keys.text) - size, len(keys.text), "")
    assert keys.storms == 1


def test_a_replacement_taken_back_is_an_undo():
    keys = Keys()
    keys.edit(0, 0, "abcdefghij")
    for letter in "VWXYZ":
        keys.edit(3, 6, letter * 4)
        keys.edit(3, 7, "def")
    assert keys.storms == 1


def test_backspaces_and_slow_undos_are_no_storm():
    keys = Keys()
    keys.type("a long line of text")
    for _ in range(15):
        keys.edit(len(keys.text) - 1, len(keys.text), "")
    assert keys.storms == 0
    for _ in range(10):
        keys.edit(0, 0, "pasted")
        keys.now += 10
        keys.edit(0, 6, "")
    assert keys.storms == 0


def test_deleting_what_was_there_before_is_no_undo():
    keys = Keys()
    keys.text = "some code that was there before and is removed now"
    for _ in range(8):
        keys.edit(0, 5, "")
    assert keys.storms == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5), st.text("ab\n", max_size=4)), max_size=60))
def test_whatever_is_edited_the_watch_survives_it(edits):
    keys = Keys()
    for where, size, new in edits:
        at = int(where * len(keys.text))
        keys.edit(at, min(at + size, len(keys.text)), new)
    assert all(0 < sign.strength <= 1 for sign in keys.found if sign)

"""What others put into a document: the editor that reports its keys, other extensions, undo, other programs."""

from __future__ import annotations

import pytest

from npllm.feedback import explaining
from tests.unit.test_feedback_implicit import URI, Desk, K, base, become


def reporting(text: str = "x = \ny = 2\n") -> Desk:
    """A desk with an editor that says when one of its keys takes a whole suggestion."""
    desk = Desk(text)
    desk.tracker.reported = True
    return desk


@pytest.mark.parametrize("order", ["change first", "command first"])
def test_what_the_editor_reports_is_taken(order):
    desk = reporting()
    made = desk.show(4, "compute(1)")
    if order == "command first":
        desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    desk.edit(4, 4, "compute(1)")
    if order == "change first":
        assert desk.outcomes == []
        desk.outcomes += desk.tracker.accepted_command(made.id, desk.now)
    last = desk.last(made)
    assert [one.kind for one in desk.outcomes] == [K.ACCEPTED] * 2
    assert (base(last), last.detail, last.typed) == (1.0, "", 0)


@pytest.mark.parametrize("inserted", ["compute(1)", "compute(1) + 1"])
def test_what_it_does_not_report_was_put_there_by_other_means(inserted):
    desk = reporting()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, inserted)
    desk.edit(4 + len(inserted), 4 + len(inserted), "\n")
    last = desk.last(made)
    assert (last.kind, last.detail, base(last), last.final_text) == (K.ACCEPTED, "by other means", 0.5, inserted)
    assert last.typed == 0


def test_an_editor_that_reports_nothing_is_believed_by_its_changes():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    assert (desk.last(made).detail, base(desk.last(made))) == ("", 1.0)


@pytest.mark.parametrize("words", [["alpha", " beta"], ["alpha beta"]])
def test_all_of_it_word_by_word_is_reported_word_by_word(words):
    desk = reporting()
    made = desk.show(4, "alpha beta")
    at = 4
    for word in words:
        desk.edit(at, at, word)
        at += len(word)
        desk.outcomes += desk.tracker.partially_accepted(made.id, at - 4, desk.now)
    assert [one.kind for one in desk.outcomes] == [K.ACCEPTED]
    assert (base(desk.last(made)), desk.last(made).typed) == (1.0, 0)


def test_a_part_is_a_part_where_the_editor_says_so():
    desk = reporting()
    made = desk.show(4, "alpha + beta")
    desk.type(4, "al")
    desk.edit(6, 6, "pha")
    desk.outcomes += desk.tracker.partially_accepted(made.id, 5, desk.now)
    desk.type(9, " - 1")
    last = desk.last(made)
    assert (last.kind, last.detail, last.typed) == (K.PARTIALLY_ACCEPTED, "words", 3)  # "al", and " " behind it


def test_a_part_from_a_list_of_completions_is_typed_along():
    desk = reporting()
    made = desk.show(4, "alpha + beta")
    desk.edit(4, 4, "alpha")
    desk.type(9, "()")
    last = desk.last(made)
    assert (last.kind, last.detail, last.typed) == (K.REJECTED, "typed through 5 characters", 0)


def test_the_same_offered_twice_is_reported_once():
    desk = reporting()
    first = desk.show(4, "compute(1)")
    desk.type(4, "c")
    second = desk.show(5, "ompute(1)")
    desk.edit(5, 5, "ompute(1)")
    desk.outcomes += desk.tracker.accepted_command(second.id, desk.now)
    assert [desk.last(first).kind, desk.last(second).kind] == [K.SUPERSEDED, K.ACCEPTED]


def undone(desk: Desk):
    """Taken and undone, then offered again: both suggestions."""
    first = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    desk.outcomes += desk.tracker.accepted_command(first.id, desk.now)
    desk.edit(4, 14, "")
    return first, desk.show(4, "compute(1)")


@pytest.mark.parametrize("desk", [Desk(), reporting()], ids=["changes alone", "reported"])
def test_a_redo_takes_nothing_anew(desk):
    first, second = undone(desk)
    desk.edit(4, 4, "compute(1)")
    desk.edit(14, 14, "\n")
    assert [desk.last(first).kind, desk.last(second).kind] == [K.ACCEPTED, K.SUPERSEDED]


def test_taking_it_again_is_another_acceptance_where_the_editor_says_so():
    desk = reporting()
    first, second = undone(desk)
    desk.edit(4, 4, "compute(1)")
    desk.outcomes += desk.tracker.accepted_command(second.id, desk.now)
    desk.edit(14, 14, "\n")
    assert (desk.last(first).kind, desk.last(first).detail) == (K.DELETED, "undone")
    assert (desk.last(second).kind, base(desk.last(second))) == (K.ACCEPTED, 1.0)


def test_a_paste_over_it_is_a_deletion_though_some_tokens_are_the_same():
    desk = Desk()
    made = desk.show(4, "sum(item.price for item in items)")
    desk.edit(4, 4, "sum(item.price for item in items)")
    desk.edit(0, 37, "count = len(items)")
    last = desk.last(made)
    assert (last.kind, last.final_text) == (K.DELETED, "len(items)")
    assert last.survival > 0.2


def test_a_bracket_that_the_editor_closed_belongs_to_what_was_written_instead():
    desk = Desk()
    made = desk.show(4, "sum(items)")
    desk.type(4, "sum")
    desk.edit(7, 7, "()")
    desk.type(8, "prices")
    desk.edit(14, 15, ")")  # typed over
    desk.edit(15, 15, "\n")
    assert (desk.last(made).kind, desk.last(made).final_text) == (K.REJECTED, "sum(prices)")


def test_typing_with_several_cursors_is_not_going_on_elsewhere():
    desk = Desk("x = \ny = \n")
    made = desk.show(4, "compute(1)")
    for index, char in enumerate("compute(1)"):
        for at in (9 + 2 * index, 4 + index):  # from the bottom up, as VS Code tells it
            before = desk.text
            desk.text = before[:at] + char + before[at:]
            desk.outcomes += become(desk.tracker, URI, before, at, at, char, desk.now, several=True)
        desk.now += 0.1
    assert desk.outcomes == []
    assert (desk.last(made).kind, desk.last(made).detail) == (K.ACCEPTED, "typed out")


def foreign(desk: Desk, start: int, end: int, new: str) -> None:
    """Another program wrote the file, and the editor tells what differs."""
    before = desk.text
    desk.text = before[:start] + new + before[end:]
    desk.outcomes += become(desk.tracker, URI, before, start, end, new, desk.now, foreign=True)


def test_what_another_program_replaces_is_what_it_was():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    foreign(desk, 0, 14, "raise SystemExit")
    last = desk.outcomes[-1]
    assert (last.suggestion_id, last.kind, last.final, last.occasion) == (made.id, K.ACCEPTED, True, "replaced")
    assert desk.end()[-1] is last


def test_what_is_restored_from_git_is_thrown_away():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    foreign(desk, 0, len(desk.text), "x = \ny = 2\n")
    assert (desk.last(made).kind, desk.last(made).detail) == (K.DELETED, "undone")


def test_what_another_program_does_not_touch_is_followed_on():
    desk = Desk()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    foreign(desk, 0, 0, "# written by a program\n")
    start = desk.text.index("compute(1)")
    desk.edit(start, start + 10, "")
    assert (desk.last(made).kind, desk.last(made).detail) == (K.DELETED, "undone")


def test_each_is_explained_as_what_it_was():
    desk = Desk()
    made = desk.show(4, "sum(item.price for item in items)")
    desk.edit(4, 4, "sum(item.price for item in items)")
    desk.edit(0, 37, "count = len(items)")
    assert "replaced in one go by something else: 24% survives" in explaining.implicit(desk.last(made))
    desk = reporting()
    made = desk.show(4, "compute(1)")
    desk.edit(4, 4, "compute(1)")
    assert "right, but put there by other means" in explaining.implicit(desk.last(made))

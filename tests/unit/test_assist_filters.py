"""What is not offered again: in anger nowhere, refused not in the same surroundings."""

from __future__ import annotations

import pytest

from npllm.assist import filters
from npllm.assist.filters import Avoided
from npllm.types import OutcomeKind, new_id

PREFIX = "def area(radius):\n    if radius < 0:\n        "


def test_a_refused_text_is_not_offered_behind_the_same_lines_in_any_file() -> None:
    avoided = Avoided()
    avoided.refuse("python", PREFIX, "return None")
    assert avoided.covers("python", "return None", PREFIX)
    assert avoided.covers(
        "python", "return  None\nmore()", "import math\n\n\ndef area(radius):\n\tif radius < 0:\n\n\t\t"
    )
    assert not avoided.covers("python", "return 0", PREFIX)
    assert not avoided.covers("python", "return None", PREFIX.replace("area", "circumference"))
    assert not avoided.covers("python", "return None", PREFIX + "ret")
    assert not avoided.covers("javascript", "return None", PREFIX)
    assert not avoided.covers("python", "return None"), "elsewhere it may be right"


def test_what_is_taken_after_all_is_offered_again() -> None:
    avoided = Avoided()
    avoided.refuse("python", PREFIX, "return None")
    avoided.take("python", PREFIX, "return None")
    assert not avoided.covers("python", "return None", PREFIX)


def test_outcomes_say_what_is_refused_and_what_is_wanted_after_all() -> None:
    avoided = Avoided()
    for outcome, final, covered in (
        (OutcomeKind.REJECTED, "return 0", True),
        (OutcomeKind.IGNORED, "", True),
        (OutcomeKind.ACCEPTED, "return None", False),
        (OutcomeKind.DELETED, "", True),
        (OutcomeKind.REJECTED, "return None  # they meant this", True),
    ):
        avoided.hear("python", PREFIX, "return None", outcome, final)
        assert avoided.covers("python", "return None", PREFIX) is covered, (outcome, final)
    kept_its_first_line = "for one in all:\n    pass"
    avoided.hear("python", PREFIX, kept_its_first_line, OutcomeKind.REJECTED, "for one in all:\n    print(one)")
    assert not avoided.covers("python", kept_its_first_line, PREFIX)
    avoided.hear("python", PREFIX, "return 3", OutcomeKind.REJECTED, "return None")
    assert not avoided.covers("python", "return None", PREFIX), "it was written there by hand"


def test_anger_is_taken_back_for_one_suggestion_alone() -> None:
    avoided, one, other = Avoided(), new_id(), new_id()
    avoided.add("python", "return  None", one)
    avoided.add("python", "return None", one)
    avoided.add("python", "return None", other)
    avoided.withdraw("python", "return None", one)
    assert avoided.covers("python", "return None"), "the other was met with anger, too"
    avoided.withdraw("python", "return None", other)
    assert not avoided.covers("python", "return None")
    avoided.withdraw("python", "return None", other)


def test_the_oldest_refusals_are_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_REFUSED", 2)
    avoided = Avoided()
    for text in ("a = 1", "b = 2", "a = 1", "c = 3"):
        avoided.refuse("python", PREFIX, text)
    assert [avoided.covers("python", text, PREFIX) for text in ("a = 1", "b = 2", "c = 3")] == [True, False, True]


def test_anger_counts_everywhere_in_the_language() -> None:
    avoided = Avoided()
    avoided.add("python", "raise SystemExit(3)", new_id())
    assert avoided.covers("python", "  raise  SystemExit(3)", "") and not avoided.covers(
        "go", "raise SystemExit(3)", ""
    )

"""What is not offered again: in anger nowhere, refused not in the same surroundings."""

from __future__ import annotations

import pytest

from npllm.assist import filters
from npllm.assist.filters import Avoided

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


def test_the_oldest_refusals_are_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_REFUSED", 2)
    avoided = Avoided()
    for text in ("a = 1", "b = 2", "a = 1", "c = 3"):
        avoided.refuse("python", PREFIX, text)
    assert [avoided.covers("python", text, PREFIX) for text in ("a = 1", "b = 2", "c = 3")] == [True, False, True]


def test_anger_counts_everywhere_in_the_language() -> None:
    avoided = Avoided()
    avoided.add("python", "raise SystemExit(3)")
    assert avoided.covers("python", "  raise  SystemExit(3)", "") and not avoided.covers(
        "go", "raise SystemExit(3)", ""
    )

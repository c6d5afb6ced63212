"""Where completions end: the document around the cursor, what a model writes, what is left of it."""

from __future__ import annotations

import pytest

from npllm.models.stops import StopRules, without_loop


def written(prefix: str, suffix: str, text: str, multiline: bool = True) -> str:
    """What is left of `text` when it comes character by character, as it would in decoding."""
    rules = StopRules(prefix, suffix, end_ids=frozenset(), multiline=multiline)
    seen = ""
    for character in text:
        seen += character
        if rules.check(seen) is not None:
            break
    shown = rules.trim(seen)
    assert shown == rules.trim(text), "stopping early must not change what is shown"
    return shown


def test_a_statement_that_is_begun_is_completed_and_nothing_more() -> None:
    assert written("x = fo", "\n", "o(1)\ny = bar(2)\n") == "o(1)"


def test_a_line_that_opens_a_block_brings_its_block() -> None:
    text = "f(x):\n    y = x\n\n    return y\n\n\ndef g(x):\n    return 1\n"
    assert written("de", "\n", text) == "f(x):\n    y = x\n\n    return y"


def test_a_block_ends_where_a_line_is_indented_less_than_where_it_began() -> None:
    text = "total += x\n        n += 1\n    return total\n"
    prefix = "def f(xs):\n    for x in xs:\n        "
    assert written(prefix, "\n", text) == "total += x\n        n += 1"


def test_a_block_whose_indentation_the_model_writes_itself() -> None:
    assert written("def f():\n", "", "    a()\n    b()\nc()\n") == "    a()\n    b()"


def test_a_new_paragraph_at_the_same_level_is_another_suggestion() -> None:
    text = "def a(self):\n        return 1\n\n    def b(self):\n        return 2\n"
    assert written("class A:\n    ", "", text) == "def a(self):\n        return 1"


def test_a_finished_line_may_be_left_as_it_is() -> None:
    assert written("def f(x):", "\n", "\n    return x\n\nf(1)\n") == "\n    return x"
    assert written("    x = 1", "\n", "\n    y = 2\nz = 3\n") == "\n    y = 2"


def test_one_line_where_only_a_line_is_wanted() -> None:
    assert written("def f(", "\n", "x):\n    return x\n", multiline=False) == "x):"
    assert written("", "", "\nimport os\nimport sys\n", multiline=False) == "\nimport os"


def test_one_line_where_something_stands_behind_the_cursor() -> None:
    assert written("def f(", "):\n    pass\n", "x, y\n    return x\n") == "x, y"


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "shown"),
    [
        ("print(", ")\n", "value)", "value"),
        ("print(", ")\n", "str(value)", "str(value)"),
        ("print(", ")\n", "str(value))", "str(value)"),
        ('open("', '")\n', 'a.txt")', "a.txt"),
        ("def f(", "):\n", "x, y):", "x, y"),
        ("if a", " and ready:\n", ".b and ready:", ".b"),
        ("x = a[", "]\n", "b[0]", "b[0]"),
    ],
)
def test_what_already_stands_behind_the_cursor_is_not_repeated(prefix: str, suffix: str, text: str, shown: str) -> None:
    assert written(prefix, suffix, text) == shown


def test_the_line_that_already_follows_ends_a_completion() -> None:
    prefix = "def f(a, b):\n    "
    suffix = "\n    return total\n"
    assert written(prefix, suffix, "total = a + b\n    return total\n    x\n") == "total = a + b"
    assert written(prefix, suffix, "return total\n") == ""


def test_a_closing_bracket_belongs_to_its_block_unless_it_is_there() -> None:
    text = "\n    1,\n    2,\n]\nprint(x)\n"
    assert written("x = [", "\n", text) == "\n    1,\n    2,\n]"
    assert written("x = [", "\n]\n", text) == "\n    1,\n    2,"


def test_a_loop_of_lines_is_cut() -> None:
    assert written("", "", "a()\na()\na()\na()\n") == "a()\na()"


def test_a_loop_within_a_line_is_cut() -> None:
    assert without_loop("x = 1, 1, 1, 1, 1, 1, 1, 1") == "x = 1,"
    assert without_loop("x = compute(a, b)") == "x = compute(a, b)"


def test_windows_line_ends_in_the_document() -> None:
    assert written("def f(a):\r\n    ", "\r\n    return b\r\n", "b = a\n    return b\n") == "b = a"


def test_only_white_space_is_nothing() -> None:
    assert written("x = 1\n", "", "\n\n   \n\n") == ""

"""Which text stands for a place, and what is never offered."""

from __future__ import annotations

from npllm.memory.similarity import offers_avoided
from npllm.memory.texts import QUERY_CHARACTERS, embedding_text, snippet_text


def test_the_embedded_text_is_the_end_nearest_to_the_cursor() -> None:
    prefix = "".join(f"line_{n} = {n}\n" for n in range(100)) + "total = "
    text = embedding_text(prefix)
    assert text.endswith("line_99 = 99\ntotal =") and "line_80" not in text
    assert embedding_text(prefix, "sum(x)\nprint(total)").startswith(text)
    assert len(embedding_text("x" * 10_000)) == QUERY_CHARACTERS
    assert embedding_text("") == ""


def test_a_snippet_is_what_was_written_with_a_little_before_it() -> None:
    assert snippet_text("a\nb\nc\n\n    d = ", "1\n    e = 2\n") == "b\nc\n\n    d = 1\n    e = 2"
    assert snippet_text("", "x") == "x"


def test_avoided_texts_are_found_whole_or_inside_when_long_enough_to_mean_something() -> None:
    assert offers_avoided("a\nos.remove(path)\nb", "x", {"os.remove(path)"})
    assert offers_avoided("x = )", " ) ", {")"})
    assert not offers_avoided("x = f(1)", "f(1)", {")"})
    assert not offers_avoided("x = f(1)", "f(1)", set())

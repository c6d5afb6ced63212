"""A prompt tells where each remembered piece stands in it, and how satisfying it proved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from npllm.models.fim import FORMATS, PromptBuilder, PromptParts, choose
from npllm.models.formats import PREFIX_ONLY
from npllm.types import Snippet, new_id

ONE = Snippet("one.py", "first = remembered(1)\n", 0.9, new_id(), 0.8)
TWO = Snippet("two.py", "second = remembered(2)\n", 0.8, new_id(), -0.5)
PROJECT = Snippet("three.py", "third = read(3)\n", 0.7)  # of no experience


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("prefix_only", [False, True])
def test_spans_hold_their_snippets_in_order_of_place(tokenizer: Any, prefix_only: bool) -> None:
    format = PREFIX_ONLY if prefix_only else choose(tokenizer)
    builder = PromptBuilder(tokenizer, format, 512)
    parts = PromptParts("a.py", "x = 1\ny = ", "\n", (ONE, PROJECT, TWO))
    prompt = builder.build(parts, reserve=32, snippet_budget=200)
    assert prompt.used_snippets == (ONE.experience_id, TWO.experience_id)
    assert [span.satisfaction for span in prompt.spans] == [-0.5, 0.8]  # the most alike stands last
    texts = [tokenizer.decode(prompt.ids[span.begin : span.end]) for span in prompt.spans]
    assert "second = remembered(2)" in texts[0]
    assert "two.py" in texts[0]
    assert "third" not in texts[0] + texts[1]
    assert "first = remembered(1)" in texts[1]
    assert "x = 1" not in texts[1]
    assert prompt.spans[0].end <= prompt.spans[1].begin


def test_what_does_not_fit_has_no_span(tokenizer: Any) -> None:
    builder = PromptBuilder(tokenizer, choose(tokenizer), 512)
    long = Snippet("long.py", "value = compute(name)\n" * 200, 0.95, new_id(), 1.0)
    prompt = builder.build(PromptParts("a.py", "x = ", "\n", (long, ONE)), reserve=32, snippet_budget=60)
    assert [span.satisfaction for span in prompt.spans] == [0.8]
    assert builder.build(PromptParts("a.py", "x = ", "\n", (ONE,)), reserve=32).spans == ()


def test_every_format_can_tell(tokenizer: Any) -> None:
    """Formats whose tokens this vocabulary lacks cannot be built here; those left are enough to build."""
    known = [f for f in FORMATS if all(name in tokenizer.get_vocab() for name in f.requires)]
    assert known
    for format in known:
        prompt = PromptBuilder(tokenizer, format, 512).build(
            PromptParts("a.py", "x = ", "\n", (ONE,)), reserve=32, snippet_budget=100
        )
        assert len(prompt.spans) == 1

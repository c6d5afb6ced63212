"""Ranges followed through any edits equal a reference that knows where every single character came from."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.feedback.diffing import needs_refining, refining
from npllm.feedback.tracking import Change, TrackedRange, common_head, common_tail, drawn, localise, minimal

BEFORE, INSIDE, BEHIND = 0, 1, 2
edits = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.text("ab\n", max_size=5)), max_size=12)
texts = st.text("ab \n", max_size=30)


def refine(before: str, change: Change, ranges: Sequence[TrackedRange]) -> list[Change]:
    return [piece for piece in refining(before, change, ranges) if piece is not None]


class Reference:
    """A document whose characters carry labels; new ones lie inside unless both neighbours lie on one side."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.characters = list(text)
        self.labels = [BEFORE] * start + [INSIDE] * (end - start) + [BEHIND] * (len(text) - end)

    def apply(self, start: int, end: int, new: str) -> None:
        left = self.labels[start - 1] if start else BEFORE
        right = self.labels[end] if end < len(self.labels) else BEHIND
        label = BEHIND if left == BEHIND else BEFORE if right == BEFORE else INSIDE
        self.characters[start:end] = new
        self.labels[start:end] = [label] * len(new)

    @property
    def inside(self) -> str:
        return "".join(char for char, label in zip(self.characters, self.labels) if label == INSIDE)


@settings(max_examples=500, deadline=None)
@given(edits, st.integers(0, 20), st.integers(0, 20))
def test_a_tracked_range_equals_the_reference(edits, first, second):
    text = "ABCDEFGHIJKLMNOPQRST"
    start, end = sorted((first, second))
    span, reference = TrackedRange(start, end), Reference(text, start, end)
    for low, high, new in edits:
        low, high = sorted((min(low, len(text)), min(high, len(text))))
        span.apply(Change(low, high, new))
        reference.apply(low, high, new)
        text = text[:low] + new + text[high:]
        assert text == "".join(reference.characters)
        assert text[span.start : span.end] == reference.inside


@given(texts, st.integers(0, 30), st.integers(0, 30), texts)
def test_a_minimal_change_does_the_same(before, first, second, new):
    start, end = sorted((min(first, len(before)), min(second, len(before))))
    change = minimal(before, Change(start, end, new))
    assert change.splice(before) == before[:start] + new + before[end:]
    assert len(change.new_text) <= len(new)


@given(texts, texts)
def test_a_whole_document_becomes_a_change_without_common_ends(before, after):
    change = minimal(before, Change(0, len(before), after))
    assert change.splice(before) == after
    if before and after:
        old, new = before[change.start : change.end], change.new_text
        assert not (old and new) or (old[0] != new[0] and old[-1] != new[-1])


@given(st.text("ab", max_size=20), st.text("ab", max_size=20))
def test_common_ends(a, b):
    head, tail = common_head(a, b), common_tail(a, b)
    assert a[:head] == b[:head]
    assert head == min(len(a), len(b)) or a[head] != b[head]
    assert a[len(a) - tail :] == b[len(b) - tail :]
    assert tail == min(len(a), len(b)) or a[len(a) - tail - 1] != b[len(b) - tail - 1]


@settings(max_examples=500, deadline=None)
@given(texts, st.integers(0, 30), st.integers(0, 30), texts, st.integers(0, 30), st.integers(0, 30))
def test_a_change_seen_from_a_region_does_the_same(before, first, second, new, third, fourth):
    start, end = sorted((min(first, len(before)), min(second, len(before))))
    low, high = sorted((min(third, len(before)), min(fourth, len(before))))
    change = Change(start, end, new)
    seen = localise(before, change, low, high)
    if seen is None:  # then it changes what lies before the region
        assert start < low and not change.splice(before).startswith(before[:low])
        return
    text, until = seen
    assert until >= high
    assert before[:low] + text + before[until:] == change.splice(before)


@settings(max_examples=500, deadline=None)
@given(
    st.text("ab", max_size=20), st.integers(0, 20), st.integers(0, 20), st.text("ab", max_size=4),
    st.integers(0, 20), st.integers(0, 20),
)  # fmt: skip
def test_a_change_drawn_to_a_region_does_the_same(before, first, second, new, third, fourth):
    start, end = sorted((min(first, len(before)), min(second, len(before))))
    low, high = sorted((min(third, len(before)), min(fourth, len(before))))
    change = Change(start, end, new)
    assert drawn(before, change, low, high).splice(before) == change.splice(before)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["a = 1", "b = f(a,b)", "", "  c", "return a"]), max_size=8),
    st.lists(st.sampled_from(["a = 1", "b = f( a, b )", "", "    c", "x = 2", "return a"]), max_size=8),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=3),
)
def test_refined_changes_do_the_same_one_after_the_other(old, new, spans):
    before, after = "\n".join(old), "\n".join(new)
    ranges = [TrackedRange(*sorted((min(a, len(before)), min(b, len(before))))) for a, b in spans]
    pieces = refine(before, minimal(before, Change(0, len(before), after)), ranges)
    assert all(later.end <= earlier.start for earlier, later in itertools.pairwise(pieces))
    for piece in pieces:
        before = piece.splice(before)
    assert before == after


@pytest.mark.parametrize(
    ("before", "after", "there", "then"),
    [
        ("a=1\nx = f(a,b)\nb=2\n", "a = 1\nx = f(a, b)\nb = 2\n", "f(a,b)", "f(a, b)"),
        ("import a\nx=f(a,b)\n", "import a\nimport b\n\nx = f(a, b)\n", "f(a,b)", " f(a, b)"),
        ("if a:\n  x = g(1)\n  y = 2\n", "if a:\n    x = g(1)\n    y = 2\n", "g(1)", "g(1)"),
        ("x = call(first, second)\ny=1\n", "x = call(\n    first,\n    second,\n)\ny = 1\n", "first, second",
         "\n    first,\n    second,\n"),
    ],
)  # fmt: skip
def test_a_formatter_that_replaces_the_document_leaves_a_range_around_its_code(before, after, there, then):
    span = TrackedRange(before.index(there), before.index(there) + len(there))
    text = before
    for piece in refine(before, minimal(before, Change(0, len(before), after)), [span]):
        text = piece.splice(text)
        span.apply(piece)
    assert text == after
    assert text[span.start : span.end] == then


class Whole:
    """Sees whole documents only: what a range holds is what their diff says. Every sign is there once."""

    def __init__(self, signs: list[str], first: int, last: int) -> None:
        self.signs = signs
        self.labels = [BEFORE] * first + [INSIDE] * (last - first) + [BEHIND] * (len(signs) - last)

    def see(self, signs: list[str]) -> None:
        labels: list[int] = []
        matcher = difflib.SequenceMatcher(None, self.signs, signs, autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            left = self.labels[a - 1] if a else BEFORE
            right = self.labels[b] if b < len(self.labels) else BEHIND
            new = BEHIND if left == BEHIND else BEFORE if right == BEFORE else INSIDE
            labels += self.labels[a:b] if kind == "equal" else [new] * (d - c)
        self.signs, self.labels = signs, labels

    @property
    def inside(self) -> str:
        return "".join(sign for sign, label in zip(self.signs, self.labels) if label == INSIDE)


def follow(before: str, change: Change, span: TrackedRange) -> None:
    """As the tracker does."""
    small = minimal(before, change)
    for piece in refine(before, small, [span]) if needs_refining(small, [span]) else [small]:
        span.apply(piece)


@pytest.mark.parametrize("at_once", [1, 4])
@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4),
        max_size=6,
    ),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_any_interleaving_of_edits_equals_a_diff_of_whole_documents(at_once, batches, first, second):
    """One change at a time, and several in one replacement of the whole document, as formatters send them."""
    signs = map(chr, itertools.count(0x2200))  # each is there once, and a token of its own
    lines = [next(signs) for _ in range(8)]
    low, high = sorted((first, second))
    span = TrackedRange(low, high)
    reference = Whole(lines, low, high)
    for batch in batches:
        for edits in _batched(batch, at_once):
            before, after = "".join(lines), list(lines)
            for where, gone, new in edits:
                at = min(where, len(after))
                after[at : at + gone] = [next(signs) for _ in range(new)]
            follow(before, Change(0, len(before), "".join(after)), span)
            reference.see(after)
            lines = after
            assert "".join(lines)[span.start : span.end] == reference.inside


def _batched(items, size):
    return [items[index : index + size] for index in range(0, len(items), size)]

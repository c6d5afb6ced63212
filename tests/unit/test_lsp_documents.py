"""Positions and offsets agree with a plain reference under any edits, encodings and line ends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types as lsp

from npllm.lsp.documents import Document

TEXT = st.text(alphabet="ab \n\r\té😀\x0c\u2028", max_size=30)


def reference_units(text: str, encoding: str) -> int:
    codec = {"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]
    size = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
    return len(text.encode(codec)) // size


def reference_position(text: str, offset: int, encoding: str) -> lsp.Position:
    before = text[:offset]
    ends = [m.end() for m in re.finditer(r"\r\n|\n|\r", text) if m.end() <= offset]
    start = ends[-1] if ends else 0
    return lsp.Position(len(ends), reference_units(before[start:], encoding))


@settings(max_examples=200, deadline=None)
@given(
    text=TEXT,
    edits=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), TEXT), max_size=6),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-32"]),
)
def test_edits_and_positions_equal_the_reference(text, edits, encoding):
    document = Document("file:///a.py", "python", text, encoding=encoding)
    for first, second, new in edits:
        start, end = sorted((min(first, len(text)), min(second, len(text))))
        # An editor never points between "\r" and "\n".
        if text[start - 1 : start + 1] == "\r\n":
            start -= 1
        if text[end - 1 : end + 1] == "\r\n":
            end += 1
        span = lsp.Range(reference_position(text, start, encoding), reference_position(text, end, encoding))
        edit = document.apply(lsp.TextDocumentContentChangePartial(range=span, text=new))
        assert (edit.before, edit.start, edit.end, edit.new_text) == (text, start, end, new)
        text = text[:start] + new + text[end:]
        assert document.text == text
        assert "".join(document.line(n) for n in range(document.line_count)) == text
    for offset in range(len(text) + 1):
        if text[offset - 1 : offset + 1] == "\r\n":
            continue
        position = document.position(offset)
        assert position == reference_position(text, offset, encoding)
        assert document.offset(position) == offset


def test_full_change_replaces_everything():
    document = Document("file:///a.py", "python", "one\ntwo")
    edit = document.apply(lsp.TextDocumentContentChangeWholeDocument(text="three\r\n"))
    assert (edit.start, edit.end, edit.new_text) == (0, 7, "three\r\n")
    assert document.line_count == 2


@pytest.mark.parametrize(
    ("line", "character", "offset"),
    [(0, 99, 3), (1, 99, 8), (99, 0, 8), (0, 0, 0)],
)
def test_positions_outside_mean_the_nearest_place(line, character, offset):
    document = Document("file:///a.py", "python", "abc\r\ndef")
    assert document.offset(lsp.Position(line, character)) == offset


def test_a_form_feed_is_not_a_line_end():
    document = Document("file:///a.py", "python", "a\x0cb\nc")
    assert document.offset(lsp.Position(1, 0)) == 4


def test_a_cut_surrogate_pair_rounds_down():
    document = Document("file:///a.py", "python", "😀x")
    assert document.offset(lsp.Position(0, 1)) == 0
    assert document.offset(lsp.Position(0, 2)) == 1

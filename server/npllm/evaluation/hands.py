"""The hands on the keyboard: typing a file from its older to its newer state, stopping where one may ask.

Used by the morning and by the measurement alike, so that both meet the same documents.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from npllm.evaluation.lines import content, indentation
from npllm.evaluation.plan import Ask, Visit
from npllm.evaluation.sources import language_of


class Keyboard(Protocol):
    """What typing needs of an editor; documents are named by their URIs, places by offsets in code points."""

    def open(self, path: str, text: str, language: str) -> str: ...

    def text(self, uri: str) -> str: ...

    def change(self, uri: str, start: int, end: int, new_text: str) -> None: ...

    def close(self, uri: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Stop:
    """The cursor stands at `offset`; `truth` is what is to be written from there to the end of the line."""

    uri: str
    ask: Ask
    offset: int
    truth: str


async def walk(editor: Keyboard, visit: Visit) -> AsyncGenerator[Stop, None]:
    """Open the visited file and type it forward from the first line asked for to the last.

    Yields with the cursor on the line; whatever the caller has done to that line by then, when the walk goes on
    the true line stands there. The document is closed at the end, also when the caller gives up.
    """
    change = visit.change
    asks = {ask.number: ask for ask in visit.asks}
    first, last = visit.asks[0].number, visit.asks[-1].number
    above, below = change.around(first)
    uri = editor.open(visit.path, above + below, language_of(visit.path))
    offset = len(above)
    try:
        for hunk in change.hunks:
            if hunk.new_end <= first or hunk.new_start > last:
                continue
            if hunk.new_start > first:
                offset = sum(map(len, change.new[: hunk.new_start]))
                if hunk.old_end > hunk.old_start:
                    removed = sum(map(len, change.old[hunk.old_start : hunk.old_end]))
                    editor.change(uri, offset, offset + removed, "")
            for number in range(max(hunk.new_start, first), min(hunk.new_end, last + 1)):
                line = change.new[number]
                ask = asks.get(number)
                if ask is None:
                    editor.change(uri, offset, offset, line)
                else:
                    open_line(editor, uri, offset, line, ask.column)
                    behind = len(editor.text(uri)) - offset - ask.column
                    yield Stop(uri, ask, offset + ask.column, visit.truth(ask))
                    end = len(editor.text(uri)) - behind
                    # What the caller has not written yet, and trailing blanks that nobody asks for.
                    put(editor, uri, offset + ask.column, end, content(line)[ask.column :])
                offset += len(line)
    finally:
        editor.close(uri)


def open_line(editor: Keyboard, uri: str, offset: int, line: str, column: int) -> None:
    """Press Enter: a new line with its indentation; then type the characters up to `column`."""
    indent = indentation(line)
    end = line[len(content(line)) :]
    editor.change(uri, offset, offset, line[:indent] + end)
    if column > indent:
        editor.change(uri, offset + indent, offset + indent, line[indent:column])


def put(editor: Keyboard, uri: str, start: int, end: int, wanted: str) -> None:
    """Turn `text[start:end]` into `wanted` with the smallest single edit; nothing if it is that already."""
    present = editor.text(uri)[start:end]
    if present == wanted:
        return
    shared = _common(present, wanted)
    tail = _common(present[shared:][::-1], wanted[shared:][::-1])
    editor.change(uri, start + shared, end - tail, wanted[shared : len(wanted) - tail])


def _common(one: str, other: str) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length

"""Open documents: the text as the editor has it, with LSP positions turned into offsets and back.

Lines end at `\n`, `\r\n` and `\r` and nowhere else (LSP 3.18, "Text Documents"; Python's `splitlines` also
splits at form feeds and other separators, which would shift every position below them). A position beyond
the end of its line means the end of that line. An edit costs in proportion to the edited lines, except for
one copy of the text in memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lsprotocol import types as lsp

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Edit:
    """One content change: `before[start:end]` was replaced by `new_text`."""

    before: str
    start: int
    end: int
    new_text: str


class Document:
    """One open document.

    Args:
        encoding: the unit of `Position.character` that client and server agreed on.
    """

    def __init__(
        self,
        uri: str,
        language: str,
        text: str,
        version: int | None = None,
        encoding: lsp.PositionEncodingKind | str = lsp.PositionEncodingKind.Utf16,
    ) -> None:
        self.uri = uri
        self.language = language
        self.version = version
        self._encoding = lsp.PositionEncodingKind(encoding)
        self._text = text
        self._lines = _split(text)
        # A line whose offset is known: typing happens near the last edit, so walking from there is short.
        self._known_line = 0
        self._known_offset = 0

    @property
    def text(self) -> str:
        return self._text

    @property
    def line_count(self) -> int:
        return len(self._lines)

    def line(self, number: int) -> str:
        """Line `number` (from 0) with its line end; "" beyond the last line."""
        return self._lines[number] if 0 <= number < len(self._lines) else ""

    def offset(self, position: lsp.Position) -> int:
        """The offset (code points) of an LSP position."""
        line = max(position.line, 0)
        if line >= len(self._lines):
            return len(self._text)
        content = self._lines[line]
        limit = len(content.rstrip("\r\n"))
        return self._line_offset(line) + min(units_to_points(content, position.character, self._encoding), limit)

    def position(self, offset: int) -> lsp.Position:
        """The LSP position of an offset (code points), clamped to the document."""
        offset = min(max(offset, 0), len(self._text))
        line, start = self._known_line, self._known_offset
        while start > offset:
            line -= 1
            start -= len(self._lines[line])
        while line < len(self._lines) - 1 and start + len(self._lines[line]) <= offset:
            start += len(self._lines[line])
            line += 1
        self._known_line, self._known_offset = line, start
        content = self._lines[line]
        return lsp.Position(line, _points_to_units(content, offset - start, self._encoding))

    def word_start(self, offset: int) -> int:
        """Where the word that ends at `offset` begins."""
        start = offset
        while start > 0 and (self._text[start - 1].isalnum() or self._text[start - 1] == "_"):
            start -= 1
        return start

    def range(self, start: int, end: int) -> lsp.Range:
        """The LSP range of two offsets."""
        return lsp.Range(self.position(start), self.position(end))

    def apply(self, change: lsp.TextDocumentContentChangeEvent) -> Edit:
        """Apply one content change and say what it did."""
        if not isinstance(change, lsp.TextDocumentContentChangePartial):
            edit = Edit(self._text, 0, len(self._text), change.text)
            self._text = change.text
            self._lines = _split(change.text)
            self._known_line = self._known_offset = 0
            return edit
        start, end = self.offset(change.range.start), self.offset(change.range.end)
        if end < start:
            start, end = end, start
        edit = Edit(self._text, start, end, change.text)
        self._splice(start, end, change.text)
        return edit

    def _splice(self, start: int, end: int, new_text: str) -> None:
        # `position` would convert units; here the line numbers alone are needed.
        first = self.position(start).line
        first_offset = self._known_offset
        last = self.position(end).line
        # One line on either side is split again with the edit: a lone "\r" may meet its "\n".
        low = max(first - 1, 0)
        high = min(last + 2, len(self._lines))
        low_offset = first_offset - sum(map(len, self._lines[low:first]))
        old_block = "".join(self._lines[low:high])
        block = old_block[: start - low_offset] + new_text + old_block[end - low_offset :]
        lines = _split(block)
        if high < len(self._lines):
            lines.pop()  # the empty rest behind the block's last line end
        self._text = self._text[:start] + new_text + self._text[end:]
        self._lines[low:high] = lines
        self._known_line, self._known_offset = low, low_offset

    def _line_offset(self, line: int) -> int:
        known, offset = self._known_line, self._known_offset
        if line >= known:
            offset += sum(map(len, self._lines[known:line]))
        else:
            offset -= sum(map(len, self._lines[line:known]))
        self._known_line, self._known_offset = line, offset
        return offset


def _split(text: str) -> list[str]:
    """Lines with their ends; the last one has none and may be empty. "".join() gives the text back."""
    if "\r" not in text:
        ended = text.split("\n")
        last = ended.pop()
        return [*(line + "\n" for line in ended), last]
    lines: list[str] = []
    start = 0
    for match in _LINE_END.finditer(text):
        lines.append(text[start : match.end()])
        start = match.end()
    lines.append(text[start:])
    return lines


def units_to_points(line: str, units: int, encoding: lsp.PositionEncodingKind) -> int:
    """How many code points of `line` lie before `units` code units; a cut surrogate pair rounds down."""
    if units <= 0:
        return 0
    if encoding is lsp.PositionEncodingKind.Utf32 or line.isascii():
        return min(units, len(line))
    seen = 0
    for index, char in enumerate(line):
        seen += _width(char, encoding)
        if seen > units:
            return index
    return len(line)


def _points_to_units(line: str, points: int, encoding: lsp.PositionEncodingKind) -> int:
    if encoding is lsp.PositionEncodingKind.Utf32 or line.isascii():
        return points
    return sum(_width(char, encoding) for char in line[:points])


def _width(char: str, encoding: lsp.PositionEncodingKind) -> int:
    if encoding is lsp.PositionEncodingKind.Utf16:
        return 2 if ord(char) > 0xFFFF else 1
    return len(char.encode("utf-8", "surrogatepass"))

"""Where a completion ends, and what of it is worth keeping.

A completion ends, whichever comes first: at a token that means "no more"; at the end of the line, when
something stands behind the cursor in its line or only a line is wanted; where the block that it began in
ends, told by indentation; where a new paragraph begins at the block's own level; where it begins to repeat
what already follows the cursor; where it repeats itself. It knows indentation and brackets, and no
language.
"""

from __future__ import annotations

import re

_OPENS_BLOCK = re.compile(r"(?:[:{(\[,\\=]|=>|->|\b(?:do|then|begin))\s*(?:#.*|//.*)?$")
_CLOSERS_ONLY = re.compile(r"[)\]}>;,]+")
_LOOP = re.compile(r"(\S[^\n]{0,23}?)\1{5,}[^\n]{0,23}\Z")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_MOST_EQUAL = 2  # equal lines in a row; the next one is a loop
_MOST_BLANK = 2  # blank lines in a row


class StopRules:
    """The rules for one place.

    Args:
        prefix: the document before the cursor.
        suffix: the document behind it.
        end_ids: tokens that end a completion (`PromptBuilder.end_ids`).
        multiline: False = never more than the rest of one line.
    """

    def __init__(self, prefix: str, suffix: str, *, end_ids: frozenset[int], multiline: bool = True) -> None:
        self.end_ids = end_ids
        self._head = prefix[prefix.rfind("\n") + 1 :]  # the cursor's line, before the cursor
        rest, _, below = suffix.partition("\n")
        self._rest = rest.rstrip("\r")  # the cursor's line, behind the cursor
        self._one_line = not multiline or bool(self._rest.strip())
        self._next = next((line.rstrip() for line in below.split("\n") if line.strip()), "")

    def check(self, text: str) -> int | None:
        """Where to cut a text that is still being written; None = go on.

        Of a line that has not ended yet, only its indentation is judged.
        """
        return self._cut(text, ended=False)

    def trim(self, text: str) -> str:
        """The text to show, of one that has ended (by a token, by `check`, or because no more was allowed)."""
        cut = self._cut(text, ended=True)
        if cut is not None:
            text = text[:cut]
        return self._without_overlap(text).rstrip()

    def _cut(self, text: str, *, ended: bool) -> int | None:
        """The first place at which a rule says stop."""
        # Whether the first line continues one that is there (rather than leaving it as it is and going below).
        begun = bool(self._head.strip()) and (self._one_line or not _leaves_line(text))
        level = _indent(self._head) if begun else None  # the indentation at which the block began
        opened = False
        blank = 0
        previous: list[str] = []
        at = 0
        while at <= len(text):
            end = text.find("\n", at)
            stop = len(text) if end < 0 else end
            first = at == 0
            line = (self._head if first and (begun or not self._head.strip()) else "") + text[at:stop]
            bare = line.strip()
            if end < 0 and not ended:
                if not bare or level is None or first or _CLOSERS_ONLY.match(bare):
                    return None
                gone = self._leaves(_indent(line), level, bare, begun and opened, blank) is False
                return max(0, at - 1) if gone else None
            if not bare:
                blank += 1
                if blank > _MOST_BLANK:
                    return max(0, at - 1)
            else:
                indent = _indent(line)
                if level is None:
                    level = indent
                elif not first:
                    verdict = self._leaves(indent, level, bare, begun and opened, blank)
                    if verdict is not None:
                        return stop if verdict else max(0, at - 1)
                if not (first and begun) and self._is_next(line):
                    return max(0, at - 1)
                previous.append(bare)
                if len(previous) > _MOST_EQUAL and len({*previous[-_MOST_EQUAL - 1 :]}) == 1:
                    return max(0, at - 1)
                if first and begun:
                    opened = bool(_OPENS_BLOCK.search(line))
                    if self._one_line or not opened:
                        return stop
                elif self._one_line:
                    return stop
                blank = 0
            if end < 0:
                return None
            at = end + 1
        return None

    def _leaves(self, indent: int, level: int, bare: str, opened: bool, blank: int) -> bool | None:
        """Whether a line leaves the block: None = no; True = it does, as its end; False = stop before it."""
        if indent < level or (indent == level and opened):
            return bool(_CLOSERS_ONLY.match(bare)) and not self._closer_follows()
        if indent == level and blank:
            return False
        return None

    def _closer_follows(self) -> bool:
        return bool(_CLOSERS_ONLY.match(self._next.strip()))

    def _is_next(self, line: str) -> bool:
        """Whether a line is the one that already stands below the cursor."""
        if not self._next:
            return False
        if line.rstrip() == self._next:
            return True
        bare = self._next.strip()
        return sum(map(str.isalnum, bare)) >= 3 and line.strip() == bare

    def _without_overlap(self, text: str) -> str:
        """Without an end that repeats the rest of the cursor's line, e.g. the `)` that the editor has put
        there."""
        rest = self._rest.strip()
        if not rest or "\n" in text:
            return text
        for size in range(min(len(rest), len(text)), 0, -1):
            if text.endswith(rest[:size]):
                end = text[-size:]
                if size >= 3 and any(map(str.isalnum, end)):
                    return text[:-size]
                if _surplus(self._head + text, end):
                    return text[:-size]
        return text


def without_loop(text: str) -> str:
    """A text that ended only because no more was allowed, without what it says over and over at its end."""
    found = _LOOP.search(text)
    return text[: found.start() + len(found.group(1))].rstrip() if found else text


def _leaves_line(text: str) -> bool:
    """Whether a text goes to the next line without adding anything to the one it begins in."""
    line, newline, _ = text.partition("\n")
    return bool(newline) and not line.strip()


def _indent(line: str) -> int:
    """Columns of white space before a line; a tab counts as four."""
    return sum(4 if character == "\t" else 1 for character in line[: len(line) - len(line.lstrip())])


def _surplus(line: str, end: str) -> bool:
    """Whether `end` closes more than the line (which ends with it) has opened, were it there once more."""
    for character in end:
        opener = _PAIRS.get(character)
        if opener is not None and line.count(character) >= line.count(opener):
            return True
        if character in "'\"`" and line.count(character) % 2 == 0:
            return True
    return end in (":", ";", ",")

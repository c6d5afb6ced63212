"""What a newer state of a project adds to an older one, line by line, and the document at each such moment.

A `FileChange` is typed forward: before line j of the newer file is written, the document holds the newer file's
lines above j and the older file's lines below it, without the old lines that the present hunk replaces.
The diff is Python's `difflib` (Ratcliff and Obershelp's gestalt matching); renamed files are followed.
Lines end at "\n", "\r\n" and "\r", as in LSP.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from npllm.evaluation.sources import Pair, language_of

MAX_LENGTH = 160  # characters; longer lines are tables and data
RENAMED = 0.5  # share of common lines that makes a new path the old file under a new name
PASTED = 4  # so many added lines in a row that stood anywhere in the older state were moved, not written

_LINES = re.compile(r"[^\n\r]*(?:\r\n|\n|\r)|[^\n\r]+")
_COMMENT = {"python": ("#",), "c": ("//", "/*", "*"), "go": ("//", "/*", "*"), "rust": ("//", "/*", "*")}


@dataclass(frozen=True, slots=True)
class Hunk:
    """`old[old_start:old_end]` becomes `new[new_start:new_end]`; line numbers from 0, ends exclusive."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file on its way from the older to the newer state.

    Attributes:
        old, new: lines with their ends; "".join gives the file.
        candidates: numbers of the added lines that are worth a completion.
    """

    path: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    hunks: tuple[Hunk, ...]
    candidates: tuple[int, ...]

    def around(self, number: int) -> tuple[str, str]:
        """The document above and below line `number` of the newer file, just before that line is written."""
        shift = 0  # old line number minus new line number, behind the hunks that are done
        for hunk in self.hunks:
            if hunk.new_start > number:
                break
            if number < hunk.new_end:
                return "".join(self.new[:number]), "".join(self.old[hunk.old_end :])
            shift = hunk.old_end - hunk.new_end
        return "".join(self.new[:number]), "".join(self.old[number + shift :])


def split_lines(text: str) -> tuple[str, ...]:
    """Lines with their ends; "".join gives the text back."""
    return tuple(_LINES.findall(text))


def content(line: str) -> str:
    """A line without its end."""
    return line.rstrip("\r\n")


def indentation(line: str) -> int:
    """How many characters of white space a line begins with."""
    bare = content(line)
    return len(bare) - len(bare.lstrip())


def changes(pair: Pair, *, comments: bool = False) -> list[FileChange]:
    """Every file that the newer state changes or adds, by path, with at least one candidate line.

    Args:
        comments: whether comment and docstring lines are candidates, too.
    """
    old = {path: split_lines(text) for path, text in pair.old.files.items()}
    new = {path: split_lines(text) for path, text in pair.new.files.items()}
    origin = _origins(old, new)
    known = {run for lines in old.values() for run in _runs(content(line).strip() for line in lines)}
    found = []
    for path in sorted(new):
        before = old.get(origin.get(path, path), ())
        if before == new[path]:
            continue
        hunks = _hunks(before, new[path])
        added = [number for hunk in hunks for number in range(hunk.new_start, hunk.new_end)]
        left_out = _pasted(new[path], added, known)
        if not comments:
            left_out |= _prose(path, new[path])
        chosen = tuple(n for n in added if n not in left_out and _worth_asking(new[path][n]))
        if chosen:
            found.append(FileChange(path, before, new[path], hunks, chosen))
    return found


def _hunks(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[Hunk, ...]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return tuple(Hunk(*places) for tag, *places in matcher.get_opcodes() if tag != "equal")


def _worth_asking(line: str) -> bool:
    bare = content(line).strip()
    return len(re.findall(r"\w", bare)) >= 3 and 4 <= len(bare) <= MAX_LENGTH


def _origins(old: dict[str, tuple[str, ...]], new: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """New path -> the old path it was renamed from."""
    gone = {path: _bag(old[path]) for path in sorted(old.keys() - new.keys())}
    origins: dict[str, str] = {}
    for path in sorted(new.keys() - old.keys()):
        bag = _bag(new[path])
        best, share = "", RENAMED
        for candidate, other in gone.items():
            common = (bag & other).total() / max(bag.total(), other.total(), 1)
            if common > share:
                best, share = candidate, common
        if best:
            origins[path] = best
            del gone[best]
    return origins


def _bag(lines: Iterable[str]) -> Counter[str]:
    return Counter(bare for line in lines if (bare := content(line).strip()))


def _runs(lines: Iterable[str]) -> Iterator[tuple[str, ...]]:
    solid = [line for line in lines if line]
    for start in range(len(solid) - PASTED + 1):
        yield tuple(solid[start : start + PASTED])


def _pasted(new: tuple[str, ...], added: list[int], known: set[tuple[str, ...]]) -> set[int]:
    """Added lines in runs of `PASTED` that stood somewhere in the older state: moved, not written."""
    solid = [number for number in added if content(new[number]).strip()]
    pasted: set[int] = set()
    for start in range(len(solid) - PASTED + 1):
        window = solid[start : start + PASTED]
        if tuple(content(new[number]).strip() for number in window) in known:
            pasted.update(window)
    return pasted


def _prose(path: str, lines: tuple[str, ...]) -> set[int]:
    """Numbers of the lines that are comments, docstrings or the inside of long strings."""
    language = language_of(path)
    marks = _COMMENT.get(language, ("//", "/*", "*"))
    prose = {number for number, line in enumerate(lines) if line.lstrip().startswith(marks)}
    if language != "python":
        return prose
    try:
        statement_begins = True
        # Universal newlines, so that tokenize numbers the lines as we do.
        text = "".join(content(line) + "\n" for line in lines)
        for token in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline):
            if token.type == tokenize.STRING:
                first, last = token.start[0] - 1, token.end[0] - 1
                prose.update(range(first if statement_begins else first + 1, last + 1))
            if token.type not in (tokenize.NL, tokenize.COMMENT):
                statement_begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    except (tokenize.TokenError, SyntaxError):  # templates, Python 2: judged by their first characters alone
        pass
    return prose

"""Patterns in gitignore's syntax, for many names: cheap where a name has nothing to do with any of them.

What a pattern says is pathspec's business. Before that is asked (50 to 200 microseconds), each part of a path is held
against the first part of each pattern that names something: a path of which no part fits has nothing to do with them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

_ODD = frozenset("\\[]")  # escapes and sets: not taken apart here


class Patterns:
    """Lines of one file, or of one list.

    Args:
        lowered: names are compared in lower case; so must the lines be.

    Raises:
        ValueError: a line cannot be understood.
    """

    def __init__(self, lines: Iterable[str], *, lowered: bool = False) -> None:
        lines = list(lines)
        try:
            self._spec = GitIgnoreSpec.from_lines(lines)
        except ValueError as error:
            raise ValueError(f"not a pattern of gitignore's kind: {error}") from error
        self._lowered = lowered
        parts = {_first_part(line) for line in lines if line.strip() and not line.startswith("#")}
        self._any = None in parts or "*" in parts
        self._names = frozenset(part for part in parts if part and not _globs(part))
        globs = sorted(part for part in parts if part and _globs(part))
        self._ends = tuple(part[1:] for part in globs if part[0] == "*" and not _globs(part[1:]))
        rest = [fnmatch.translate(part) for part in globs if part[1:] not in self._ends]
        self._rest = re.compile("|".join(rest)) if rest else None

    def may_name(self, part: str) -> bool:
        """Whether one part of a path, a folder's or a file's name, may make a pattern fit; else none does by it."""
        if self._any:
            return True
        if self._lowered:
            part = part.lower()
        if part in self._names or part.endswith(self._ends):
            return True
        return self._rest is not None and self._rest.match(part) is not None

    def verdict(self, path: str, verdict: bool) -> bool:
        """What they say of a relative path; `verdict` where they say nothing."""
        said = self._spec.check_file(path.lower() if self._lowered else path).include
        return verdict if said is None else said


def _globs(part: str) -> bool:
    return "*" in part or "?" in part


def _first_part(line: str) -> str | None:
    """The first part of a pattern that names something; None where any name may fit it."""
    if line != line.strip() or not _ODD.isdisjoint(line):
        return None
    for part in line.removeprefix("!").split("/"):
        if part and part != "**":
            return None if "**" in part else part
    return None

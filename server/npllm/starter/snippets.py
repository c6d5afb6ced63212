"""Related snippets of a package: short runs of lines that share rare identifiers with a part being completed.

An inverted index over the identifiers of all snippets; the score of a snippet is the sum, over the identifiers it
shares with the query, of one over the number of snippets that hold them. This is what teaches the model to use code
that retrieval puts in front of it.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from npllm.starter.corpus import SourceFile

_IDENTIFIER = re.compile(r"[A-Za-z_]\w{3,}")
_DEFINITIONS = ("def ", "class ", "@", "async def ", "function ", "async function ", "export ")
_OPENERS = (*_DEFINITIONS, "if ", "for ", "with ", "try:", "return ", "self.", "const ", "try {", "this.")

MIN_LINES, MAX_LINES = 4, 20


@dataclass(frozen=True)
class Snippet:
    """A run of lines of one file; `start` and `end` are character offsets in it."""

    path: str
    text: str
    start: int
    end: int


def identifiers(text: str) -> set[str]:
    """The identifiers of four characters or more in a text."""
    return set(_IDENTIFIER.findall(text))


def split_snippets(file: SourceFile, rng: random.Random) -> list[Snippet]:
    """Cut a file into snippets of 4 to 20 lines, starting anew where a definition or a statement block opens."""
    lines = file.text.split("\n")
    snippets: list[Snippet] = []
    begin = offset = 0
    size = rng.randint(MIN_LINES, MAX_LINES)
    start_offset = 0
    for number, line in enumerate(lines):
        length = number - begin
        opens = line.lstrip().startswith(_OPENERS)
        if length >= MAX_LINES or (length >= size and opens) or (length >= MIN_LINES and line.startswith(_DEFINITIONS)):
            snippets.append(_snippet(file, start_offset, offset))
            begin, start_offset, size = number, offset, rng.randint(MIN_LINES, MAX_LINES)
        offset += len(line) + 1
    if len(lines) - begin >= MIN_LINES:
        snippets.append(_snippet(file, start_offset, len(file.text)))
    return [snippet for snippet in snippets if snippet.text.strip()]


def _snippet(file: SourceFile, start: int, end: int) -> Snippet:
    return Snippet(file.path, file.text[start:end].rstrip("\n"), start, end)


class SnippetIndex:
    """Finds the snippets of a package that share the most rare identifiers with a text."""

    def __init__(self, files: Sequence[SourceFile], seed: int) -> None:
        rng = random.Random(seed)
        self.snippets = [snippet for file in files for snippet in split_snippets(file, rng)]
        self._postings: defaultdict[str, list[int]] = defaultdict(list)
        for number, snippet in enumerate(self.snippets):
            for name in identifiers(snippet.text):
                self._postings[name].append(number)
        self._rare = max(12, len(self.snippets) // 50)

    def related(
        self, query: str, focus: str, path: str, span: tuple[int, int], count: int, same_file: bool = True
    ) -> list[Snippet]:
        """Up to `count` snippets outside `span` of the file `path`, best last (nearest to the cursor).

        `focus` is the part being completed; its identifiers weigh three times those of `query` around it.
        """
        scores: Counter[int] = Counter()
        central = identifiers(focus)
        for name in central | identifiers(query):
            owners = self._postings.get(name, ())
            if 1 < len(owners) <= self._rare:
                weight = (3.0 if name in central else 1.0) / len(owners)
                for owner in owners:
                    scores[owner] += weight  # type: ignore[assignment]
        best: list[Snippet] = []
        for owner, _ in sorted(scores.items(), key=lambda item: (-item[1], item[0])):
            snippet = self.snippets[owner]
            inside = snippet.path == path and (not same_file or (snippet.end > span[0] and snippet.start < span[1]))
            if not inside:
                best.append(snippet)
            if len(best) == count:
                break
        return best[::-1]

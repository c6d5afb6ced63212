"""What stays apart stands in the person's files all the same: there it may be read, and is not learned.

The lines that sleeps held out stand above (or below) the cursor in what is written later in the same file, and the
prompt's own tokens are learned, too (`objectives`, mu). So the tokens of such a line are left out of the loss.
A line is found by itself and the line above it, in the file where it was written. Knows no model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from npllm.models.codec import TextCodec
from npllm.sleep.dataset import file_of
from npllm.sleep.project import needle
from npllm.types import Experience


class Apart:
    """The lines that are kept apart, by file."""

    def __init__(self, experiences: Iterable[Experience]) -> None:
        self._lines: defaultdict[str, set[str]] = defaultdict(set)
        for item in experiences:
            if found := _plain(needle(item)):
                self._lines[file_of(item)].add(found)

    def positions(self, item: Experience, prompt: Sequence[int], codec: TextCodec) -> frozenset[int]:
        """The positions in an experience's prompt that hold such a line.

        Args:
            prompt: its token ids, without the answer.
        """
        around = _plain(item.prefix), _plain(item.suffix)
        present = [line for line in self._lines.get(file_of(item), ()) if any(line in text for text in around)]
        if not present:
            return frozenset()
        text = ""
        owners: list[int] = []  # of each character, the token that it begins in
        for position, token in enumerate(prompt):
            piece = _plain(codec.decode([token]))
            text += piece
            owners += [position] * len(piece)
        found: set[int] = set()
        for pair in present:
            begin = text.find(pair)
            while begin >= 0:
                line = begin + pair.rindex("\n") + 1
                found.update(owners[line : begin + len(pair)])
                begin = text.find(pair, begin + 1)
        return frozenset(found)


def _plain(text: str) -> str:
    """ASCII with plain line ends: a character of several bytes may lie in several tokens, none of which shows it."""
    return text.replace("\r", "").encode("ascii", "ignore").decode()

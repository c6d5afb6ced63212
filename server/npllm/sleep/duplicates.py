"""Nearly the same experience twice: the same line, but for a token or two, in nearly the same surroundings.

Exact copies are `dataset.distinct`'s. Here two bottom-k sketches are compared: one of the token pairs of the line that
was written, one of the token triples of it and the lines above. A table's rows are alike in their surroundings, not in
their line, and so stay.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from npllm.sketches import Sketch, SketchIndex, bottom_k, similarity
from npllm.types import Experience

ABOVE = 6  # lines above that count as surroundings
SAME_LINE = 0.7  # Jaccard similarity of the lines' token pairs
SAME_PLACE = 0.6  # of the surroundings' token triples
CANDIDATES = 12  # neighbours that are compared: those around one line are many
_TOKEN = re.compile(r"\w+|[^\w\s]")


class NearlySame:
    """Remembers experiences, and says whether a new one is nearly one of them."""

    def __init__(self, experiences: Iterable[Experience] = ()) -> None:
        self._places = SketchIndex()
        self._lines: list[Sketch] = []
        for item in experiences:
            self.add(item)

    def seen(self, experience: Experience) -> bool:
        """Whether one like it was added."""
        line, place = _sketches(experience)
        found = self._places.like(place, SAME_PLACE, CANDIDATES)
        return any(similarity(line, self._lines[number]) >= SAME_LINE for number in found)

    def add(self, experience: Experience) -> None:
        """Remember it."""
        line, place = _sketches(experience)
        self._lines.append(line)
        self._places.add(place)


def _sketches(experience: Experience) -> tuple[Sketch, Sketch]:
    """Of the line that was written, and of its surroundings."""
    above, _, begun = experience.prefix.rpartition("\n")
    line = _TOKEN.findall(begun + experience.final_text)
    around = _TOKEN.findall("\n".join(above.split("\n")[-ABOVE:])) + line
    return _shingles(line, 2), _shingles(around, 3)


def _shingles(tokens: list[str], length: int) -> Sketch:
    """So many tokens in a row each; of fewer tokens, all together."""
    rows = zip(*(tokens[start:] for start in range(length))) if len(tokens) >= length else [tuple(tokens)]
    return bottom_k(zlib.crc32("\0".join(row).encode("utf-8", "surrogatepass")) for row in rows)

"""Exact and near duplicates of source files, by bottom-k sketches (`npllm.sketches`) of three-line shingles."""

from __future__ import annotations

import hashlib
import zlib

from npllm.sketches import SKETCH_SIZE, Sketch, SketchIndex, bottom_k, similarity

__all__ = ["SKETCH_SIZE", "DuplicateFilter", "Sketch", "similarity", "sketch"]


def sketch(text: str, size: int = SKETCH_SIZE) -> Sketch:
    """The `size` smallest shingle hashes of a text, ascending; indentation and blank lines do not count."""
    lines = [zlib.crc32(line.encode()) for raw in text.split("\n") if (line := raw.strip())]
    if len(lines) < 3:
        return tuple(sorted(set(lines)))
    triples = zip(lines, lines[1:], lines[2:], strict=False)
    return bottom_k((zlib.crc32(b"%d,%d,%d" % triple) for triple in triples), size)


class DuplicateFilter:
    """Remembers every text that was added and says whether a new one nearly equals one of them."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._digests: set[bytes] = set()
        self._index = SketchIndex()

    def seen(self, text: str) -> bool:
        """Whether an added text is equal, or similar above the threshold."""
        if hashlib.sha256(text.encode()).digest() in self._digests:
            return True
        return bool(self._index.like(sketch(text), self.threshold))

    def add(self, text: str) -> None:
        """Remember a text."""
        self._digests.add(hashlib.sha256(text.encode()).digest())
        self._index.add(sketch(text))

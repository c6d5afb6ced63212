"""Exact and near duplicates of source files, by bottom-k sketches of three-line shingles.

The Jaccard similarity of two shingle sets is estimated from the k smallest hashes of their union (Broder 1997;
Cohen and Kaplan 2007): one hash function instead of MinHash's k, so a whole corpus takes seconds.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter, defaultdict

Sketch = tuple[int, ...]

SKETCH_SIZE = 64


def sketch(text: str, size: int = SKETCH_SIZE) -> Sketch:
    """The `size` smallest shingle hashes of a text, ascending; indentation and blank lines do not count."""
    lines = [zlib.crc32(line.encode()) for raw in text.split("\n") if (line := raw.strip())]
    if len(lines) < 3:
        return tuple(sorted(set(lines)))
    triples = zip(lines, lines[1:], lines[2:], strict=False)
    hashes = {zlib.crc32(b"%d,%d,%d" % triple) for triple in triples}
    return tuple(sorted(hashes)[:size])


def similarity(left: Sketch, right: Sketch, size: int = SKETCH_SIZE) -> float:
    """Estimated Jaccard similarity of the shingle sets behind two sketches, 0 to 1."""
    both, union = set(left) & set(right), sorted(set(left) | set(right))[:size]
    return sum(h in both for h in union) / len(union) if union else 0.0


class DuplicateFilter:
    """Remembers every text that was added and says whether a new one nearly equals one of them."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._digests: set[bytes] = set()
        self._sketches: list[Sketch] = []
        self._owners: defaultdict[int, list[int]] = defaultdict(list)

    def seen(self, text: str) -> bool:
        """Whether an added text is equal, or similar above the threshold."""
        if hashlib.sha256(text.encode()).digest() in self._digests:
            return True
        mine = sketch(text)
        shared = Counter(owner for h in mine for owner in self._owners.get(h, ()))
        return any(similarity(mine, self._sketches[owner]) >= self.threshold for owner, _ in shared.most_common(3))

    def add(self, text: str) -> None:
        """Remember a text."""
        self._digests.add(hashlib.sha256(text.encode()).digest())
        mine = sketch(text)
        for h in mine:
            # A shingle that very many files share (a licence header) says nothing; keep its list short.
            if len(self._owners[h]) < 50:
                self._owners[h].append(len(self._sketches))
        self._sketches.append(mine)

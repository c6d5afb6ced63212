"""Bottom-k sketches: how alike two sets are, from the k smallest hashes of their members.

The Jaccard similarity of two sets is estimated from the k smallest hashes of their union (Broder 1997; Cohen and
Kaplan 2007): one hash function instead of MinHash's k. Knows nothing of what the members are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

Sketch = tuple[int, ...]

SKETCH_SIZE = 64
CROWD = 50  # owners of one member that are remembered: what very many share (a licence header) says nothing
NEAREST = 3  # candidates that are compared


def bottom_k(hashes: Iterable[int], size: int = SKETCH_SIZE) -> Sketch:
    """The `size` smallest different hashes, ascending."""
    return tuple(sorted(set(hashes))[:size])


def similarity(left: Sketch, right: Sketch, size: int = SKETCH_SIZE) -> float:
    """Estimated Jaccard similarity of the sets behind two sketches, 0 to 1."""
    both, union = set(left) & set(right), sorted(set(left) | set(right))[:size]
    return sum(h in both for h in union) / len(union) if union else 0.0


class SketchIndex:
    """Remembers sketches by number, and finds those like a new one."""

    def __init__(self) -> None:
        self.sketches: list[Sketch] = []
        self._owners: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, sketch: Sketch) -> int:
        """Remember a sketch; its number, from 0 on."""
        number = len(self.sketches)
        for h in sketch:
            if len(self._owners[h]) < CROWD:
                self._owners[h].append(number)
        self.sketches.append(sketch)
        return number

    def like(self, sketch: Sketch, threshold: float, nearest: int = NEAREST) -> list[int]:
        """The numbers of sketches that are at least so similar, among the `nearest` that share most with it."""
        shared = Counter(owner for h in sketch for owner in self._owners.get(h, ()))
        return [
            owner for owner, _ in shared.most_common(nearest) if similarity(sketch, self.sketches[owner]) >= threshold
        ]

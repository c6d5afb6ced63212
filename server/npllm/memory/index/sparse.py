"""BM25 over the identifiers of a project's chunks, in memory: an inverted index of numpy arrays.

    score(c) = sum over the query's terms t of  w_t idf(t) f (k1 + 1) / (f + k1 (1 - b + b |c| / mean |c|))
    idf(t) = ln(1 + (N - n_t + 1/2) / (n_t + 1/2))

with f how often t stands in c, n_t in how many of N chunks, w_t the query's weight (Robertson & Zaragoza 2009). Terms
of more than `MOST_COMMON` of all chunks say little and cost most: they are left out. Knows numbers alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

K1 = 1.2
B = 0.75
MOST_COMMON = 0.2
FEW = 50  # chunks; among fewer nothing is too common

Numbers = np.ndarray[Any, Any]


class SparseIndex:
    """About 8 bytes for each different term of each chunk.

    Args:
        documents: the terms of each chunk, as `terms.packed` gives them.
    """

    def __init__(self, documents: Sequence[bytes]) -> None:
        self.size = len(documents)
        lengths = np.fromiter((len(one) // 4 for one in documents), dtype=np.int64, count=self.size)
        terms = np.frombuffer(b"".join(documents), dtype="<u4").astype(np.uint64)
        keys = (terms << np.uint64(32)) | np.repeat(np.arange(self.size, dtype=np.uint64), lengths)
        keys, counts = np.unique(keys, return_counts=True)
        self._documents: Numbers = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
        self._terms, starts = np.unique((keys >> np.uint64(32)).astype(np.uint32), return_index=True)
        self._starts: Numbers = np.append(starts, len(keys))
        found_in = np.diff(self._starts)
        idf = np.log1p((self.size - found_in + 0.5) / (found_in + 0.5)).astype(np.float32)
        mean = max(1.0, float(lengths.mean())) if self.size else 1.0
        norm = (K1 * (1 - B + B * lengths / mean)).astype(np.float32)
        weights = counts * (K1 + 1) / (counts + norm[self._documents])
        self._weights: Numbers = (weights * np.repeat(idf, found_in)).astype(np.float32)
        self._idf = idf

    def search(self, query: Mapping[int, float], limit: int, without: Collection[int] = ()) -> list[tuple[int, float]]:
        """The best chunks, by number, with their scores; only such as share a term with the query.

        Args:
            query: terms and what each counts.
            without: chunks that do not count.
        """
        scores = np.zeros(self.size, dtype=np.float32)
        for term, weight in query.items():
            begin, end = self._span(term)
            if end > begin and (self.size < FEW or end - begin <= MOST_COMMON * self.size):
                scores[self._documents[begin:end]] += weight * self._weights[begin:end]
        if len(without):
            scores[np.fromiter(without, dtype=np.int64)] = 0.0
        best = np.argpartition(-scores, limit)[:limit] if self.size > limit else np.arange(self.size)
        ordered = best[np.argsort(-scores[best], kind="stable")]
        return [(int(one), float(scores[one])) for one in ordered if scores[one] > 0]

    def idf(self, term: int) -> float:
        """How much a term says; 0 for one that is in no chunk."""
        at = int(np.searchsorted(self._terms, np.uint32(term)))
        return float(self._idf[at]) if at < len(self._terms) and self._terms[at] == term else 0.0

    def _span(self, term: int) -> tuple[int, int]:
        at = int(np.searchsorted(self._terms, np.uint32(term)))
        if at == len(self._terms) or self._terms[at] != term:
            return 0, 0
        return int(self._starts[at]), int(self._starts[at + 1])

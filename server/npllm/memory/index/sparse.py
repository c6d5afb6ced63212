"""BM25 over the identifiers of a project's chunks, in memory: an inverted index of numpy arrays.

    score(c) = sum over the query's terms t of  w_t idf(t) tf(t, c)
    tf(t, c) = f (k1 + 1) / (f + k1 (1 - b + b |c| / mean |c|)),   idf(t) = ln(1 + (N - n_t + 1/2) / (n_t + 1/2))

with f how often t stands in c, n_t in how many of N chunks, w_t the query's weight (Robertson & Zaragoza 2009).

A search looks at `POSTINGS` postings at most: terms in the order of w_t idf(t), each one's best chunks first (an
impact-ordered index: Anh & Moffat 2006). The `CANDIDATES` that have most by then are scored again, exactly, by all
their terms, so also by those whose postings were not reached. So common terms count, and cost no more. It runs on the
event loop and holds the interpreter meanwhile: the two numbers bound how long. Knows numbers alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

K1 = 1.2
B = 0.75
POSTINGS = 300_000  # looked at in a search
CANDIDATES = 400  # scored exactly
ENOUGH = 50  # of them where all postings were looked at: what is added up is known to 1/255
MOST_DOCUMENTS = 1 << 24  # a document's number has 24 bits of a key
PAGE = 5_000  # documents taken in at a time: the interpreter is held for so long
GROUP = 64  # scores of which the highest is looked at first
TABLE = 1 << 12

Numbers = np.ndarray[Any, Any]


class SparseIndex:
    """About 5 bytes for each different term of each chunk, beside the chunks' terms. Not for two threads at once.

    Args:
        documents: the terms of each chunk, as `terms.packed` gives them; kept.

    Raises:
        ValueError: they are more than 16 million.
    """

    def __init__(self, documents: Sequence[bytes]) -> None:
        if len(documents) > MOST_DOCUMENTS:
            raise ValueError(f"{len(documents):,} chunks are more than can be numbered.")
        self._texts = documents
        self.size = len(documents)
        lengths = np.fromiter((len(one) // 4 for one in documents), dtype=np.int64, count=self.size)
        mean = max(1.0, float(lengths.mean())) if self.size else 1.0
        self._norms: Numbers = (K1 * (1 - B + B * lengths / mean)).astype(np.float32)
        keys = np.concatenate(
            [np.zeros(0, np.uint64), *(self._keys(begin, lengths) for begin in range(0, self.size, PAGE))]
        )
        keys.sort()
        self._documents: Numbers = (keys & np.uint64(MOST_DOCUMENTS - 1)).astype(np.int32)
        self._impacts: Numbers = ~(keys >> np.uint64(24)).astype(np.uint8)
        keys >>= np.uint64(32)
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.zeros(0, np.int64)
        self._terms: Numbers = keys[starts].astype(np.uint32)
        self._starts: Numbers = np.append(starts, len(keys))
        found_in = np.diff(self._starts)
        self._idf: Numbers = np.log1p((self.size - found_in + 0.5) / (found_in + 0.5)).astype(np.float32)
        self._scores: Numbers = np.zeros(-(-self.size // GROUP) * GROUP, dtype=np.float32)  # all 0 between searches

    def _keys(self, begin: int, lengths: Numbers) -> Numbers:
        """A number for each different term of a page of documents: term (32 bits), 255 - impact (8), document (24)."""
        lengths = lengths[begin : begin + PAGE]
        found = np.frombuffer(b"".join(self._texts[begin : begin + PAGE]), dtype="<u4")
        owners = np.repeat(np.arange(begin, begin + len(lengths)), lengths)
        firsts = np.flatnonzero(_new(found) | _new(owners))  # a document's terms are sorted
        often, owners = np.diff(np.append(firsts, len(found))), owners[firsts]
        impacts = _tf(often, self._norms[owners]) * (255 / (K1 + 1))
        keys: Numbers = found[firsts].astype(np.uint64) << np.uint64(32)
        keys |= (255 - impacts.astype(np.uint64)) << np.uint64(24)
        keys |= owners.astype(np.uint64)
        return keys

    def search(
        self,
        query: Mapping[int, float],
        limit: int,
        without: Collection[int] = (),
        *,
        postings: int = POSTINGS,
        candidates: int = CANDIDATES,
    ) -> list[tuple[int, float]]:
        """The best chunks, by number, with their scores; only such as share a term with the query.

        Args:
            query: terms and what each counts.
            without: chunks that do not count.
            postings: looked at, at most.
            candidates: scored exactly, if not all postings are looked at.
        """
        terms, weights, at = self._known(query)
        if not len(terms) or limit < 1:
            return []
        if self._add(weights, at, postings):
            candidates = min(candidates, ENOUGH)
        if len(without):
            self._scores[np.fromiter(without, dtype=np.int64)] = 0.0
        chosen = self._highest(max(candidates, 2 * limit))
        self._scores.fill(0.0)
        scores = self._exactly(chosen, terms, weights)
        best = np.argsort(-scores, kind="stable")[:limit]
        return [(int(chosen[one]), float(scores[one])) for one in best]

    def idf(self, term: int) -> float:
        """How much a term says; 0 for one that is in no chunk."""
        at = int(np.searchsorted(self._terms, np.uint32(term)))
        return float(self._idf[at]) if at < len(self._terms) and self._terms[at] == term else 0.0

    def _known(self, query: Mapping[int, float]) -> tuple[Numbers, Numbers, Numbers]:
        """The query's terms that some chunk has, ascending, w_t idf(t) of each, and its place among all terms."""
        terms = np.array(sorted(query), dtype=np.uint32)
        at = np.searchsorted(self._terms, terms)
        at[at == len(self._terms)] = 0
        known = self._terms[at] == terms if len(self._terms) else np.zeros(len(terms), bool)
        terms, at = terms[known], at[known]
        return terms, np.array([query[int(term)] for term in terms], dtype=np.float32) * self._idf[at], at

    def _add(self, weights: Numbers, at: Numbers, left: int) -> bool:
        """Add up what so many postings give to their chunks. Whether those are all."""
        for one in np.argsort(-weights, kind="stable"):
            begin = int(self._starts[at[one]])
            end = min(int(self._starts[at[one] + 1]), begin + left)
            given = self._impacts[begin:end] * np.float32(weights[one] * (K1 + 1) / 255)
            np.add.at(self._scores, self._documents[begin:end].astype(np.int64), given)  # far faster so than by int32
            left -= end - begin
            if end < self._starts[at[one] + 1]:
                return False
        return True

    def _highest(self, count: int) -> Numbers:
        """The numbers of about the `count` chunks with the highest scores above 0, ascending."""
        groups = self._scores.reshape(GROUP, -1)  # [GROUP, n]: maxima over the first axis are the fast ones
        maxima = groups.max(axis=0)
        some = np.argpartition(-maxima, count)[:count] if len(maxima) > count else np.arange(len(maxima))
        lowest = maxima[some].min() if len(maxima) > count else 0.0
        rows, columns = np.nonzero(groups[:, some] >= max(lowest, np.finfo(np.float32).tiny))
        found = rows * len(maxima) + some[columns]
        if len(found) > count:
            found = found[np.argpartition(-self._scores[found], count)[:count]]
        return np.sort(found)

    def _exactly(self, documents: Numbers, terms: Numbers, weights: Numbers) -> Numbers:
        """The scores of some chunks, from all their terms."""
        texts = [self._texts[one] for one in documents.tolist()]
        found = np.frombuffer(b"".join(texts), dtype="<u4")
        ends = np.cumsum([len(text) // 4 for text in texts])
        perhaps = np.zeros(TABLE, dtype=bool)  # most terms are none of the query's: their last bits tell
        perhaps[terms % TABLE] = True
        hits = np.flatnonzero(perhaps[found % TABLE])
        which = np.searchsorted(terms, found[hits])
        which[which == len(terms)] = 0
        same = terms[which] == found[hits]
        hits, which = hits[same], which[same]
        owners = np.searchsorted(ends, hits, side="right")
        firsts = np.flatnonzero(_new(which) | _new(owners))
        often, which, owners = np.diff(np.append(firsts, len(hits))), which[firsts], owners[firsts]
        scores: Numbers = np.bincount(
            owners, weights=weights[which] * _tf(often, self._norms[documents[owners]]), minlength=len(texts)
        )
        return scores


def _tf(often: Numbers, norms: Numbers) -> Numbers:
    tf: Numbers = often * (K1 + 1) / (often + norms)
    return tf


def _new(values: Numbers) -> Numbers:
    """Where a value is other than the one before it."""
    new = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new

"""The hot path: chunks by their identifiers, in memory, against BM25 that leaves no term out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from npllm.evaluation.bench.figures import Row, recall
from npllm.evaluation.bench.material import Place, more_chunks
from npllm.memory.index import sparse, terms
from npllm.memory.index.search import QUERY_LINES

WANTED = 10


def measure(real: Sequence[bytes], queries: Sequence[Place], size: int, seed: int) -> Iterator[Row]:
    """Latency of the search and of loading an index of so many chunks, and recall."""
    documents = list(more_chunks(real, size, seed))
    began = time.perf_counter()
    index = sparse.SparseIndex(documents)
    built = (time.perf_counter() - began) * 1000
    asked = [terms.weighted([line for line in q.prefix.splitlines() if line.strip()][-QUERY_LINES:]) for q in queries]
    latencies, cpu, found = _search(index, asked)
    _, _, exact = _search(index, asked, every_term=True)
    yield Row(size, "identifiers (hot path)", tuple(latencies), tuple(cpu), recall(found, exact))
    yield Row(size, "identifiers: load (background)", (built,))


def _search(
    index: sparse.SparseIndex, asked: Sequence[Mapping[int, float]], *, every_term: bool = False
) -> tuple[list[float], list[float], list[list[int]]]:
    kept = sparse.MOST_COMMON
    sparse.MOST_COMMON = 1.0 if every_term else kept
    latencies, cpu, found = [], [], []
    try:
        for query in asked:
            began, worked = time.perf_counter(), time.thread_time()
            hits = index.search(query, WANTED)
            cpu.append((time.thread_time() - worked) * 1000)
            latencies.append((time.perf_counter() - began) * 1000)
            found.append([number for number, _ in hits])
    finally:
        sparse.MOST_COMMON = kept
    return latencies, cpu, found

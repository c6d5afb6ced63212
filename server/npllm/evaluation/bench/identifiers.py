"""The hot path: chunks by their identifiers, in memory, against BM25 that looks at every posting."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from npllm.evaluation.bench.figures import Row, recall
from npllm.evaluation.bench.material import Place, more_chunks
from npllm.memory.index import terms
from npllm.memory.index.search import QUERY_LINES
from npllm.memory.index.sparse import SparseIndex

WANTED = 10
ROUNDS = 3  # in which all queries are asked
PAUSE_S = 0.02  # before each: a person's requests do not come back to back, and other programs use the caches meanwhile


def measure(
    real: Sequence[bytes],
    queries: Sequence[Place],
    size: int,
    seed: int,
    beside: Callable[[], AbstractContextManager[None]],
) -> Iterator[Row]:
    """Latency of the search and of loading an index of so many chunks, and recall.

    Args:
        beside: what goes on while it searches.
    """
    documents = list(more_chunks(real, size, seed))
    began = time.perf_counter()
    index = SparseIndex(documents)
    built = (time.perf_counter() - began) * 1000
    asked = [terms.weighted([line for line in q.prefix.splitlines() if line.strip()][-QUERY_LINES:]) for q in queries]
    exact = [_numbers(index.search(query, WANTED, postings=sys.maxsize)) for query in asked]
    with beside():
        latencies, cpu, found = _search(index, asked)
    yield Row(size, "identifiers (hot path)", tuple(latencies), tuple(cpu), recall(found, exact))
    yield Row(size, "identifiers: load (background)", (built,))


def _search(
    index: SparseIndex, asked: Sequence[Mapping[int, float]]
) -> tuple[list[float], list[float], list[list[int]]]:
    latencies, cpu, found = list[float](), list[float](), list[list[int]]()
    for query in [*asked] * ROUNDS:
        time.sleep(PAUSE_S)
        began, worked = time.perf_counter(), time.thread_time()
        hits = index.search(query, WANTED)
        cpu.append((time.thread_time() - worked) * 1000)
        latencies.append((time.perf_counter() - began) * 1000)
        found.append(_numbers(hits))
    return latencies, cpu, found[: len(asked)]


def _numbers(hits: Sequence[tuple[int, float]]) -> list[int]:
    return [number for number, _ in hits]

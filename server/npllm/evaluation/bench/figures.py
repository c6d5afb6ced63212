"""Figures of a benchmark: latencies in milliseconds, and how much of what an exact search finds is found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        latencies: milliseconds.
        cpu: milliseconds of this thread's own work, which no other program makes longer; () where it is not the work.
        recall: of the exact search's first ten; None where there is nothing to compare with.
        lost: by how much the cosine of what was found is lower, on the mean.
    """

    size: int
    path: str
    latencies: tuple[float, ...]
    cpu: tuple[float, ...] = ()
    recall: float | None = None
    lost: float | None = None

    def __str__(self) -> str:
        low, high = (float(np.percentile(self.latencies, at)) for at in (50, 95))
        cpu = f"{float(np.percentile(self.cpu, 95)):.2f}" if self.cpu else ""
        recall = "" if self.recall is None else f"{self.recall:.3f}"
        lost = "" if self.lost is None else f"{self.lost:.4f}"
        return f"{self.size:>9,}  {self.path:<42} {low:>8.2f} {high:>8.2f} {cpu:>8} {recall:>7} {lost:>7}"


HEADER = f"{'rows':>9}  {'path':<42} {'p50 ms':>8} {'p95 ms':>8} {'p95 cpu':>8} {'recall':>7} {'lost':>7}"


def recall(found: Sequence[Collection[object]], exact: Sequence[Collection[object]]) -> float:
    """The mean share of what the exact search found; a query to which nothing exists does not count."""
    shares = [len(set(some) & set(all)) / len(all) for some, all in zip(found, exact, strict=True) if all]
    return float(np.mean(shares)) if shares else 1.0

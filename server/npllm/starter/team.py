"""Data parallelism over processes of one thread each, on one machine.

Two threads of one process meet at a barrier after every operation, and on a machine with other work each barrier waits
for the scheduler; processes meet once per step. Rank 0 leads: it keeps time, logs and checkpoints. Helpers live no
longer than their leader. A team of one does nothing here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Team:
    """One process's place in the team."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the team."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def follow(self, figures: Sequence[float]) -> list[float]:
        """The leader's figures, for everyone."""
        if self.size == 1:
            return list(figures)
        shared = torch.tensor(figures, dtype=torch.float64)
        dist.broadcast(shared, src=0)
        return shared.tolist()

    def gather(self, parts: Tensor) -> Tensor:
        """The ranks' equally shaped parts, one after the other along the first dimension."""
        if self.size == 1:
            return parts
        whole = [torch.empty_like(parts) for _ in range(self.size)]
        dist.all_gather(whole, parts.contiguous())
        return torch.cat(whole)


def _join(rank: int, size: int, meeting: str) -> Team:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(minutes=10)
    )
    return Team(rank, size)


def _help(rank: int, size: int, meeting: str, work: Callable[[Team], object]) -> None:
    team = _join(rank, size, meeting)
    try:
        work(team)
    except RuntimeError:
        if dist.is_initialized():  # the leader is gone; its checkpoint is what counts
            raise SystemExit(1) from None
        raise


@contextmanager
def team_of(size: int, work: Callable[[Team], object]) -> Iterator[Team]:
    """Lead a team: `size - 1` helper processes run `work`, which must be picklable, while the body leads."""
    if size == 1:
        yield Team()
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        spawn = get_context("spawn")
        helpers = [
            spawn.Process(target=_help, args=(rank, size, meeting, work), daemon=True) for rank in range(1, size)
        ]
        for helper in helpers:
            helper.start()
        threads = torch.get_num_threads()
        try:
            yield _join(0, size, meeting)
            for helper in helpers:
                helper.join(30)
        finally:
            dist.destroy_process_group()
            torch.set_num_threads(threads)
            for helper in helpers:
                if helper.is_alive():
                    helper.terminate()

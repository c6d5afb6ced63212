"""The engine protocol: the little that stands between asking for text and a model's arithmetic.

An engine keeps the keys and values of the tokens it has seen. `prefill` keeps what the new prompt has in
common with them and computes the rest; `step` and `verify` append; `crop` takes back. It is used from one
thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import torch

from npllm.models.base import BaseInfo
from npllm.models.fim import Span

Logits = torch.Tensor  # float, [V] for one position, [T, V] for several


class Cancel(Protocol):
    """What an engine asks between two pieces of work; a `threading.Event` is one."""

    def is_set(self) -> bool: ...


class Cancelled(Exception):
    """The request was taken back; what was computed so far stays in the cache and is right."""


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """Which adapter versions act, and how strongly (1.0 = as trained, 0 = not at all)."""

    strengths: tuple[tuple[UUID, float], ...] = ()

    @property
    def versions(self) -> tuple[UUID, ...]:
        return tuple(version for version, _ in self.strengths)


NO_ADAPTERS = AdapterChoice()


class Engine(Protocol):
    """One model, one sequence."""

    @property
    def info(self) -> BaseInfo:
        """What model it is."""
        ...

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        ...

    def prefill(self, ids: Sequence[int], cancel: Cancel, spans: Sequence[Span] = ()) -> Logits:
        """Make the sequence `ids`, in which `spans` are remembered; logits [V] of what follows. Raises Cancelled,
        ModelError (too long, empty)."""
        ...

    def step(self, token: int) -> Logits:
        """Append one token; logits [V] of what follows."""
        ...

    def verify(self, tokens: Sequence[int]) -> Logits:
        """Append T tokens in one forward; logits [T, V], row i of what follows token i."""
        ...

    def crop(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        ...

    def use_adapters(self, choice: AdapterChoice) -> None:
        """From now on compute with these adapters. Raises ModelError: one of them is not loaded."""
        ...

    def forget(self) -> None:
        """Drop all keys and values."""
        ...

    def hidden(self) -> torch.Tensor:
        """The last hidden state [H] at the last position computed. Raises ModelError before the first
        forward."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of generated ids."""
        ...

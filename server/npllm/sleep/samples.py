"""Experiences and passages as training samples: prompt and answer by the builder that serves.

What stays apart is read and is no target (`apart`), nor is a remembered piece (`alike`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from uuid import UUID

from npllm.models import examples
from npllm.models.fim import PromptBuilder
from npllm.sleep.alike import Alike
from npllm.sleep.apart import Apart
from npllm.sleep.dataset import weight
from npllm.sleep.interruption import look
from npllm.sleep.objectives import Sample
from npllm.sleep.project import Passage
from npllm.types import Experience


class Samples:
    """Makes them, and keeps what stood remembered in their prompts.

    Args:
        stop: set when the person is back; every method then raises Interrupted.
        alike: None: nothing is remembered.
    """

    def __init__(self, builder: PromptBuilder, apart: Apart, stop: threading.Event, alike: Alike | None = None) -> None:
        self._builder, self._apart, self._stop, self._alike = builder, apart, stop, alike
        self.remembered: list[tuple[UUID, ...]] = []  # of each sample made, in order: whose pieces stand in its prompt

    def of(self, experiences: Sequence[Experience], importance: Mapping[UUID, float]) -> list[Sample]:
        """Those of experiences, with weights whose mean is 1.

        Args:
            importance: weights of those that were drawn, by id; 1 for others.
        """
        weights = [weight(item) * importance.get(item.id, 1.0) for item in experiences]
        mean = sum(weights) / len(weights) if weights else 1.0
        samples = []
        for item, own in zip(experiences, weights, strict=True):
            made = self._made(item.place.path, item.prefix, item.suffix, item.final_text, item.id)
            unlearned = self._apart.positions(item, made.ids[: made.loss_start], self._builder.codec)
            samples.append(Sample(made.ids, made.loss_start, own / mean, unlearned | made.positions))
        return samples

    def passage(self, passage: Passage) -> Sample:
        """That of a passage, with weight 1."""
        made = self._made(passage.path, passage.prefix, passage.suffix, passage.line)
        return Sample(made.ids, made.loss_start, 1.0, made.positions)

    def _made(self, path: str, prefix: str, suffix: str, target: str, own: UUID | None = None) -> examples.Example:
        look(self._stop)
        pieces = self._alike.pieces(prefix, suffix, own) if self._alike is not None else ()
        budget = self._alike.budget if self._alike is not None else 0
        made = examples.encode(self._builder, prefix, suffix, path, target, snippets=pieces, snippet_budget=budget)
        self.remembered.append(made.used)
        return made

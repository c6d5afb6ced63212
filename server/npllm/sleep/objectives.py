"""What learning minimises: the weighted negative log-likelihood of what the person ended up with.

    L = sum_i w_i sum_{t in answer_i} -log p(y_t) / sum_i w_i |answer_i|
      + mu * sum_i w_i sum_{t in prompt_i} -log p(y_t) / sum_i w_i |prompt_i|

over the examples i of one optimizer step. The answer is what stood at the cursor in the end, and the token that ends
it; the prompt is the person's own code around it (control tokens and what is `unlearned` are left out), of which there
is far more. w_i is the example's weight. An optimizer step is computed in pieces (micro-batches, and stretches of their
positions), so the denominators are given. Knows nothing of where examples come from, nor of adapters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Sample:
    """One training example: token ids, the answer's beginning, and how much it counts.

    Attributes:
        unlearned: positions in the prompt that are read and not learned.
    """

    ids: tuple[int, ...]
    loss_start: int
    weight: float = 1.0
    unlearned: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Denominators:
    """sum_i w_i |answer_i| and sum_i w_i |prompt_i| over an optimizer step."""

    answer: float
    prompt: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples padded at the right to one length: ids [B, T]; the weights of the targets ids[:, 1:], each [B, T-1]."""

    ids: torch.Tensor
    answer: torch.Tensor
    prompt: torch.Tensor


class Nll:
    """The objective above.

    Args:
        mu: weight of the prompt's own tokens.
        control: token ids that are never a prompt's target.
        pad: what shorter samples are filled up with; never attended to by what counts, never a target.
    """

    def __init__(self, mu: float, control: Collection[int], pad: int) -> None:
        self.mu = mu
        self._control = frozenset(control)
        self._pad = pad

    def denominators(self, samples: Sequence[Sample]) -> Denominators:
        """Of one optimizer step."""
        answer = prompt = 0.0
        for sample in samples:
            answer += sample.weight * (len(sample.ids) - sample.loss_start)
            prompt += sample.weight * sum(self._prompt(sample))
        return Denominators(max(answer, 1e-9), max(prompt, 1e-9))

    def collate(self, samples: Sequence[Sample], device: torch.device) -> Batch:
        """One micro-batch."""
        length = max(len(sample.ids) for sample in samples)
        ids = torch.full((len(samples), length), self._pad, dtype=torch.long)
        answer = torch.zeros(len(samples), length - 1)
        prompt = torch.zeros(len(samples), length - 1)
        for row, sample in enumerate(samples):
            ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
            answer[row, sample.loss_start - 1 : len(sample.ids) - 1] = sample.weight
            prompt[row, : sample.loss_start - 1] = torch.tensor(
                [sample.weight if counts else 0.0 for counts in self._prompt(sample)]
            )
        return Batch(ids.to(device), answer.to(device), prompt.to(device))

    def _prompt(self, sample: Sample) -> list[bool]:
        """Which of the prompt's tokens, from the second on, are learned."""
        return [
            token not in self._control and position not in sample.unlearned
            for position, token in enumerate(sample.ids[1 : sample.loss_start], 1)
        ]

    def loss(self, model: Any, batch: Batch, denominators: Denominators) -> torch.Tensor:
        """This micro-batch's part of L, differentiable, a scalar."""
        first, length = self._first(batch), batch.ids.shape[1]
        logits = self.run(model, input_ids=batch.ids, use_cache=False, logits_to_keep=length - first).logits[:, :-1]
        return self._total(logits, batch, denominators, first, length - 1)

    def parts(self, model: Any, batch: Batch, denominators: Denominators, positions: int) -> Iterator[torch.Tensor]:
        """L in parts of so many positions each, to be differentiated one after the other before the next is asked for.

        Only for a model in which nothing that is trained acts on keys and values: each part attends to the kept keys
        and values of those before it, and no gradient passes through them.
        """
        first, cache = self._first(batch), None
        for begin in range(0, batch.ids.shape[1] - 1, positions):
            ids = batch.ids[:, begin : begin + positions]
            if begin + positions >= batch.ids.shape[1]:
                ids = ids[:, :-1]  # nothing follows the last token
            end = begin + ids.shape[1]
            keep = max(1, end - max(begin, first))
            out = self.run(model, input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep)
            cache = out.past_key_values
            if end > first:
                yield self._total(out.logits, batch, denominators, end - keep, end)

    def run(self, model: Any, **inputs: Any) -> Any:
        """The model's output, with logits of the shape that `costs` wants."""
        return model(**inputs)

    def costs(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What each position costs, shaped like the targets: here its negative log-likelihood in nats."""
        return _cross_entropy(logits, targets)

    def _total(
        self, logits: torch.Tensor, batch: Batch, denominators: Denominators, begin: int, end: int
    ) -> torch.Tensor:
        """The part of L of the targets `begin` to `end`."""
        costs = self.costs(logits, batch.ids[:, 1 + begin : 1 + end])
        total = (costs * batch.answer[:, begin:end]).sum() / denominators.answer
        if self.mu > 0:
            total = total + self.mu * (costs * batch.prompt[:, begin:end]).sum() / denominators.prompt
        return total

    def _first(self, batch: Batch) -> int:
        """The first target position that counts in any row."""
        if self.mu > 0:
            return 0
        return int(batch.answer.any(dim=0).int().argmax())


def token_nll(model: Any, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
    """-log p of ids[:, 1 + first:] given what stands before each, [B, T - 1 - first], float32.

    No attention mask: padding stands at the right, where causal attention does not look.
    """
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=ids.shape[1] - first).logits[:, :-1]
    return _cross_entropy(logits, ids[:, 1 + first :])


@torch.no_grad()
def answer_nats(model: Any, sample: Sample, *, last: int | None = None) -> float:
    """-log p of a sample's answer (its first `last` tokens, where given) after its prompt, in nats."""
    device = next(model.parameters()).device
    ids = torch.tensor([sample.ids], device=device)
    nll = token_nll(model, ids, sample.loss_start - 1)[0]
    return float(nll[:last].sum())


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    flat = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return flat.view_as(targets)

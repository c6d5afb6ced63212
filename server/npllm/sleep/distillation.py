"""Rehearsal by distillation: on general code the adapter shall say what the base says, whatever that is.

    L_KL = lambda * n / n_mean * (mean over answers' positions of KL_t + mu * mean over prompts' positions of KL_t)
    KL_t = KL(p || q) = sum_v p_v (log p_v - log q_v)      p: the frozen base's next token at t, q: with the adapter

added to the objective of an optimizer step (`objectives`, whose mu and positions these are) that has n passages of
general code, of n_mean in the mean over the steps. It is the term for the old task of *learning without forgetting* (Li
& Hoiem 2016, 1606.09282; temperature 1), on other texts than the new ones. The gradient by the logits, q - p, is zero
where nothing was displaced. An adapter on the output layer leaves the last hidden state as it is, so p costs one more
output layer; one inside the base costs another forward.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any

import torch

from npllm.sleep.interruption import look
from npllm.sleep.objectives import Denominators, Nll, Sample


class Distillation(Nll):
    """The term above.

    Args:
        weight: lambda.
        mu, control, pad: see `objectives.Nll`.
        on_output: the adapter sits on the output layer alone.
        stop: looked at between two forwards; `loss` then raises Interrupted.
    """

    def __init__(
        self, weight: float, mu: float, control: Collection[int], pad: int, *, on_output: bool, stop: threading.Event
    ) -> None:
        super().__init__(mu, control, pad)
        self._weight = weight
        self._on_output = on_output
        self._stop = stop

    def shared(self, samples: Sequence[Sample], usual: float) -> Denominators:
        """What a step with these samples divides by, where `usual` is how many a step has in the mean: with less than
        one in each, the steps that have one make up for those that have none."""
        own, ratio = self.denominators(samples), usual / len(samples)
        return Denominators(own.answer * ratio, own.prompt * ratio)

    def run(self, model: Any, **inputs: Any) -> Any:
        """The output with the adapter's logits and, below them, the base's, [2 B, T, vocabulary]."""
        if not self._on_output:
            with torch.no_grad(), model.disable_adapter():
                base = model(**inputs).logits
            look(self._stop)
            out = model(**inputs)
            out.logits = torch.cat([out.logits, base])
            return out
        # In the head itself, so that what a model does to its logits afterwards (a scale, a soft cap) is done to both.
        handle = model.get_output_embeddings().register_forward_hook(_both)
        try:
            return model(**inputs)
        finally:
            handle.remove()

    def costs(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """lambda KL_t in nats; what really followed does not matter."""
        adapted, base = logits.float().chunk(2)
        q, p = torch.log_softmax(adapted, dim=-1), torch.log_softmax(base.detach(), dim=-1)
        return self._weight * (p.exp() * (p - q)).sum(dim=-1)


def _both(head: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        base = head.base_layer(inputs[0])
    return torch.cat([output, base])

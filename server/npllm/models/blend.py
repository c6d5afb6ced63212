"""The cerebellum has its say: its prediction of each token is mixed into the base's.

    p(w) ~ p_base(w)^(1 - lambda) p_cerebellum(w)^lambda

Log-linear interpolation of language models (Klakow 1998; a product of experts, Hinton 2002): a token is likely where
neither thinks little of it. The base is frozen and the cerebellum, all of whose parameters learn in sleep, is an eighth
of its size: it knows less of code in general and more of this person's. So what is written, which its first token
decides, is the base's word alone, and the cerebellum has its say from the second on, in how that is spelled: with a say
in the first, lines cost up to 0.3 % less and fewer are right (docs/experiments.md). lambda is chosen in each sleep on
lines that nothing has learned (`sleep.saying`), 0 where it does not help. What the project says word for word
(`continuations`) is mixed in after that. Both must have the same tokens. Used from the engine's thread; nothing here
learns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

from npllm.models.decoding import Known
from npllm.models.engine import Cancel, Cancelled, Engine, Logits

SHARES = (0.0, 0.15)  # lambda, of which a sleep chooses one; more of it writes fewer lines right


class Blend:
    """What the cerebellum says at one place, and what is known beside it. Implements `decoding.Known`.

    Args:
        engine: the cerebellum's.
        prompt_ids: the place, as the cerebellum reads it.
        share: lambda, below 1.
        most: tokens of prompt and answer together that the cerebellum was trained for; behind them the base is alone.
        cancel: once set, the base is alone.
        known: has its say after that.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_ids: Sequence[int],
        share: float,
        most: int,
        cancel: Cancel,
        known: Known | None = None,
    ) -> None:
        self._engine = engine
        self._prompt = tuple(prompt_ids)
        self._share = share
        self._most = most
        self._cancel = cancel
        self._known = known

    def mix(self, logits: Logits, ids: Sequence[int]) -> Logits:
        """Log-probabilities [V] of what follows the place and `ids`, from the base's logits [V] for it."""
        said = logits
        if self._share > 0 and ids and len(self._prompt) + len(ids) < self._most:
            with contextlib.suppress(Cancelled):  # nobody waits for the answer any more
                said = mixed(logits, self._engine.prefill((*self._prompt, *ids), self._cancel), self._share)
        return self._known.mix(said, ids) if self._known is not None else said.log_softmax(-1)


def mixed(base: Logits, cerebellum: Logits, share: float) -> Logits:
    """Log-probabilities [..., V] of the interpolation of two models' logits [..., V]; `share` is the second's."""
    if share <= 0:
        return base.log_softmax(-1)
    said = cerebellum.to(base.device, base.dtype)
    return ((1 - share) * base + share * said).log_softmax(-1)


def of_answer(base: Logits, cerebellum: Logits, share: float) -> Logits:
    """Log-probabilities [T, V] of what follows a place, token by token, from two models' logits [T, V]; of the first
    token they are the base's alone."""
    return torch.cat([base[:1].log_softmax(-1), mixed(base[1:], cerebellum[1:], share)])

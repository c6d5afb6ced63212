"""Learning the gains of neuromodulated attention: layers x heads numbers, by gradient; all else is frozen.

    min over g of  sum_i w_i sum_{t in answer_i} -log p(y_t | prompt_i; g) / sum_i w_i |answer_i|,   |g_lh| <= max_gain

where prompt_i is the prompt as it was served, with what was remembered in it, and g acts on the attention scores as
`npllm.models.attention` says. Adam (Kingma & Ba, 1412.6980), a few steps, from 0 (standard attention) or from the gains
in use. What is done in step k depends on the seed and k alone, so an interrupted training ends as an uninterrupted
one. Knows nothing of the database, nor of where the prompts come from.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from npllm.models.attention import Bias, Gains, acting
from npllm.models.fim import Span
from npllm.sleep import checkpoint
from npllm.sleep.checkpoint import Position
from npllm.sleep.interruption import look
from npllm.sleep.objectives import Sample, answer_nats, token_nll

OnStep = Callable[[int, int, float], None]  # step, of so many, loss in nats per answer token


@dataclass(frozen=True, slots=True)
class Remembered:
    """A prompt in which something remembered stood, and what the person ended up with."""

    sample: Sample
    spans: tuple[Span, ...]
    context: str = ""  # whose adapters act
    reward: float = 0.0  # of the experience, [-1, 1]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but the prompts that decides what is learned."""

    learning_rate: float = 0.05
    max_gain: float = 2.0
    batch: int = 16  # prompts in an optimizer step
    epochs: int = 2  # passes over the prompts
    budget_s: float = math.inf  # then it ends where it is
    seed: int = 0


def centre_of(prompts: Sequence[Remembered]) -> float:
    """The mean satisfaction of what stood in the prompts."""
    felt = [span.satisfaction for prompt in prompts for span in prompt.spans]
    return sum(felt) / len(felt) if felt else 0.0


def learn(
    model: Any,
    prompts: Sequence[Remembered],
    start: Gains,
    recipe: Recipe,
    *,
    stop: threading.Event,
    activate: Callable[[str], None] = lambda _: None,
    file: Path | None = None,
    key: str = "",
    on_step: OnStep = lambda *_: None,
) -> tuple[Gains, Position]:
    """Learn gains for a model whose attention is `prepare`d and whose parameters are frozen.

    Args:
        activate: makes a context's adapters act.
        file: a checkpoint that is gone on with, if it has this `key`, and written after each step.

    Raises:
        Interrupted: the person is back; at most the step under way is lost.
    """
    gains = start.values.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([gains], lr=recipe.learning_rate)
    a_pass = math.ceil(len(prompts) / recipe.batch)
    position = Position(total=a_pass * recipe.epochs, samples=len(prompts))
    kept = checkpoint.read(file, key) if file is not None else None
    if kept is not None:
        tensors, position = kept
        gains.data.copy_(tensors["gains"])
        moments = {name: tensors[name].to(gains.device) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[gains] = {**moments, "step": torch.tensor(float(position.step))}
    began, before = time.monotonic(), position.seconds
    while position.step < position.total and position.seconds < recipe.budget_s:
        epoch, part = divmod(position.step, a_pass)
        order = list(range(len(prompts)))
        random.Random(f"{recipe.seed}:{epoch}").shuffle(order)
        batch = [prompts[index] for index in order[part * recipe.batch : (part + 1) * recipe.batch]]
        loss = _step(model, batch, replace(start, values=gains), optimizer, stop, activate)
        with torch.no_grad():
            gains.clamp_(-recipe.max_gain, recipe.max_gain)
        position.step += 1
        position.tokens += sum(len(one.sample.ids) for one in batch)
        position.seconds = before + time.monotonic() - began
        if file is not None:
            state = {name: optimizer.state[gains][name] for name in ("exp_avg", "exp_avg_sq")}
            checkpoint.write(file, {"gains": gains, **state}, position, key)
        on_step(position.step, position.total, loss)
    return Gains(gains.detach(), start.centre), position


def _step(
    model: Any,
    batch: Sequence[Remembered],
    gains: Gains,
    optimizer: torch.optim.Optimizer,
    stop: threading.Event,
    activate: Callable[[str], None],
) -> float:
    """One optimizer step, prompt by prompt; nats per answer token."""
    optimizer.zero_grad()
    tokens = weighed_tokens(batch)
    total = 0.0
    for one in batch:
        look(stop)
        activate(one.context)
        loss = one.sample.weight * answer_nll(model, one, bias_of(gains, one)).sum() / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    optimizer.step()
    return total


def weighed_tokens(batch: Sequence[Remembered]) -> float:
    """sum_i w_i |answer_i|."""
    return max(sum(one.sample.weight * (len(one.sample.ids) - one.sample.loss_start) for one in batch), 1e-9)


def answer_nll(model: Any, prompt: Remembered, bias: Bias) -> torch.Tensor:
    """-log p of each token of the answer [1, T], under a bias, differentiable."""
    ids = torch.tensor([prompt.sample.ids], device=bias.gains.device)
    with acting(bias):
        return token_nll(model, ids, prompt.sample.loss_start - 1)


def nats(model: Any, prompt: Remembered, gains: Gains | None, *, last: int | None = None) -> float:
    """-log p of what the person ended up with (its first `last` tokens, where given), under gains or none, in nats."""
    with acting(None if gains is None else bias_of(gains, prompt)):
        return answer_nats(model, prompt.sample, last=last)


def bias_of(gains: Gains, prompt: Remembered) -> Bias:
    """What gains add to the attention of a prompt."""
    felt = gains.felt(len(prompt.sample.ids), prompt.spans)
    return Bias(gains.values, torch.tensor([felt], device=gains.values.device))

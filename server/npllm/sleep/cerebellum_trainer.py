"""Training all of the cerebellum's parameters, in steps small enough to stop at any moment, exactly resumable.

AdamW (Loshchilov & Hutter, 1711.05101); linear warm-up, then a cosine to a tenth. What is done in step k depends on the
seed and k alone: interrupted and resumed it ends bit-identical. The objective is `objectives.Nll`, and a penalty on the
parameters where one is given (MAS). Knows nothing of the database, nor of how its samples were made.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from npllm.sleep import checkpoint
from npllm.sleep.batches import micro_batches, plan
from npllm.sleep.checkpoint import Position
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.mas import Penalty
from npllm.sleep.objectives import Nll, Sample
from npllm.sleep.trainer import OVERTIME, Step

WRITING_SHARE = 0.05  # of the time may go into checkpoints, however large the model


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but samples, model and penalty that decides what a training makes."""

    learning_rate: float = 1e-3
    mu: float = 1.0  # weight of the prompt's own tokens, see `objectives`
    batch_tokens: int = 2048
    micro_tokens: int = 512  # in one forward and backward, padding counted
    epochs: int = 2
    warmup: float = 0.08
    floor: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    mas_lambda: float = 0.0
    seed: int = 0


class CerebellumTrainer:
    """One training.

    Args:
        model: a causal LM in float32 with its starting weights; all of its parameters are trained.
        key: says what the starting weights are, so that another model's checkpoint is not taken up.
        control, pad: see `objectives.Nll`.
        file: the checkpoint's.
        stop: set by another thread when the person is back.
        penalty: added to the loss.
    """

    def __init__(
        self,
        model: Any,
        samples: Sequence[Sample],
        recipe: Recipe,
        *,
        key: str,
        control: frozenset[int],
        pad: int,
        file: Path,
        stop: threading.Event,
        checkpoint_s: float = 20.0,
        on_step: Callable[[Step], None] = lambda _: None,
        penalty: Penalty | None = None,
    ) -> None:
        self._model = model
        self._samples = samples
        self._recipe = recipe
        self._objective = Nll(recipe.mu, control, pad)
        self._file = file
        self._stop = stop
        self._checkpoint_s = checkpoint_s
        self._on_step = on_step
        self._penalty = penalty
        self._parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        self._optimizer = torch.optim.AdamW(
            list(self._parameters.values()),
            lr=0.0,
            betas=(0.9, 0.99),
            weight_decay=recipe.weight_decay,
            foreach=False,
        )
        lengths = [len(sample.ids) for sample in samples]
        self._plan, _ = plan(lengths, batch_tokens=recipe.batch_tokens, epochs=recipe.epochs, seed=recipe.seed)
        self._key = _key(key, samples, recipe)
        self._recent: list[tuple[float, int, float]] = []  # the last steps: loss, tokens, seconds
        self.position = Position()

    def run(self, budget_s: float) -> Position:
        """Train, or go on training. How many steps fit into `budget_s` is measured when it begins, and then fixed.

        Raises:
            Interrupted: `stop` was set; the checkpoint is written.
        """
        self._model.eval()  # no dropout: it learns as it serves
        for parameter in self._parameters.values():
            parameter.requires_grad = True
        try:
            self._run(budget_s)
        finally:
            self._optimizer.zero_grad(set_to_none=True)
            for parameter in self._parameters.values():
                parameter.requires_grad = False
        return self.position

    def _run(self, budget_s: float) -> None:
        started = saved = time.monotonic()
        if not self._resume():
            self.position.samples = len(self._samples)
            self.position.total = min(len(self._plan), self._steps_in(budget_s))
        position, earlier = self.position, self.position.seconds
        pause = self._checkpoint_s
        try:
            while not position.over and position.step < position.total:
                if position.seconds > budget_s * OVERTIME:  # the machine is slower than it was at the start
                    break
                if time.monotonic() - saved > pause:
                    before = time.monotonic()
                    self.save()
                    saved = time.monotonic()
                    pause = max(pause, (saved - before) / WRITING_SHARE)
                self._step()
                position.seconds = earlier + time.monotonic() - started
        except Interrupted:
            position.seconds = earlier + time.monotonic() - started
            self.save()
            raise
        if not position.over:
            position.over = True
            self.save()

    @property
    def learned(self) -> frozenset[int]:
        """The numbers of the samples that were learned so far."""
        return frozenset(index for step in self._plan[: self.position.step] for index in step)

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {f"model.{name}": parameter.data for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{moment}.{name}"] = value
        checkpoint.write(self._file, tensors, self.position, self._key)

    def _resume(self) -> bool:
        """Take up the checkpoint, if there is one of this very training."""
        found = checkpoint.read(self._file, self._key)
        if found is None:
            return False
        tensors, self.position = found
        for name, parameter in self._parameters.items():
            parameter.data.copy_(tensors[f"model.{name}"])
            state = {
                moment: tensors[f"optimizer.{moment}.{name}"].to(parameter.device if moment != "step" else "cpu")
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{moment}.{name}" in tensors
            }
            if state:
                self._optimizer.state[parameter] = state
        return True

    def _step(self) -> None:
        """One optimizer step. Raises Interrupted between two micro-batches; the step is then as if never begun."""
        position = self.position
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * self._rate(position.step)
        samples = [self._samples[index] for index in self._plan[position.step]]
        started = time.monotonic()
        loss, tokens = self._gradients(samples)
        if self._penalty is not None:
            self._penalty.add_gradient(self._parameters)
        torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._recipe.clip)
        self._optimizer.step()
        position.step += 1
        position.tokens += tokens
        self._recent = [*self._recent[-9:], (loss / (1 + self._recipe.mu), tokens, time.monotonic() - started)]
        losses, counts, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        self._on_step(Step(position.step, position.total, losses / len(self._recent), counts / max(1e-6, seconds)))

    def _gradients(self, samples: Sequence[Sample]) -> tuple[float, int]:
        """Of the objective over the samples of a step; its value, and how many tokens they have."""
        denominators = self._objective.denominators(samples)
        device = next(iter(self._parameters.values())).device
        total = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        for micro in micro_batches(samples, self._recipe.micro_tokens):
            look(self._stop)
            loss = self._objective.loss(self._model, self._objective.collate(micro, device), denominators)
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total, sum(len(sample.ids) for sample in samples)

    def _rate(self, step: int) -> float:
        """Share of the peak rate at a step."""
        recipe, total = self._recipe, max(1, self.position.total)
        warmup = max(1, round(recipe.warmup * total))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * done))

    def _steps_in(self, budget_s: float) -> int:
        """How many optimizer steps fit, by timing the gradients of the first one, twice; at least 1."""
        samples = [self._samples[index] for index in self._plan[0]]
        seconds = math.inf
        for _ in range(2):  # the first also pays for what is made once
            started = time.monotonic()
            _, tokens = self._gradients(samples)
            seconds = min(seconds, time.monotonic() - started)
        self._optimizer.zero_grad(set_to_none=True)
        left, steps = budget_s * tokens / seconds, 0
        for step in self._plan:
            left -= sum(len(self._samples[index].ids) for index in step)
            if left < 0:
                break
            steps += 1
        return max(1, steps)


def _key(start: str, samples: Sequence[Sample], recipe: Recipe) -> str:
    """Says what training this is: the model it begins with, samples and recipe."""
    total = hashlib.sha256(json.dumps([start, asdict(recipe)], sort_keys=True).encode())
    for sample in samples:
        total.update(f"{sample.loss_start} {sample.weight} {sample.ids}".encode())
    return total.hexdigest()

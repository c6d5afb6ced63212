"""Training one adapter, in steps small enough to stop at any moment, exactly resumable.

AdamW (Loshchilov & Hutter, 1711.05101) with a higher rate for B than for A (LoRA+, 2402.12354); linear warm-up, then
a cosine to a tenth. An inner validation part, where there is one, decides which state is kept, and when to stop. What
is done in step k depends on the seed and k alone, so that an interrupted and resumed training ends bit-identical to
an uninterrupted one. Knows nothing of the database, nor of how its samples were made.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from npllm.sleep import checkpoint, lora, preferences
from npllm.sleep.batches import micro_batches, plan
from npllm.sleep.checkpoint import Position
from npllm.sleep.distillation import Distillation
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.mas import Penalty
from npllm.sleep.objectives import Denominators, Nll, Sample, answer_nats
from npllm.sleep.preferences import Preference
from npllm.sleep.recipe import Recipe, key

__all__ = ["Outcome", "Recipe", "Step", "Trainer"]

PIECE_S = 0.15  # of work between two looks, as measured when the training begins; a busy machine may need twice that
SMALLEST_PIECE = 128  # tokens; these cost a tenth of the speed, half as many a quarter
OVERTIME = 1.25  # times the time given; then the training ends where it is


@dataclass(frozen=True, slots=True)
class Step:
    """What `on_step` hears after each optimizer step."""

    step: int
    total: int
    loss: float  # the objective per unit of weight, in nats a token; the mean of the last steps
    tokens_per_s: float  # over the last steps


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to."""

    position: Position
    epochs: float
    stopped_by: str  # "epochs" | "validation" | "time"
    seconds_now: float  # of position.seconds, those spent in this sleep


class Trainer:
    """One adapter's training.

    Args:
        model: with the adapter attached, and its parent's weights in it, where it has one.
        samples: to learn from; at least one.
        optional: the last so many of them are left out, as far as the time does not suffice for all.
        rehearsed: general code on which the adapter shall say what the base says, if the recipe gives that a weight;
            see `distillation`.
        preferred: learned beside the samples, if the recipe gives them a weight; the reference is the model as it is.
            Where a sample does not fit into the time, the preference of the same experience is left out, too.
        penalty: on moving what mattered.
        inner: to validate with; may be empty.
        recipe: how.
        control, pad: see `objectives.Nll`.
        file: the checkpoint's.
        stop: set by another thread when the person is back.
    """

    def __init__(
        self,
        model: PeftModel,
        samples: Sequence[Sample],
        inner: Sequence[Sample],
        recipe: Recipe,
        *,
        control: frozenset[int],
        pad: int,
        file: Path,
        stop: threading.Event,
        optional: int = 0,
        rehearsed: Sequence[Sample] = (),
        preferred: Sequence[Preference] = (),
        penalty: Penalty | None = None,
        checkpoint_s: float = 20.0,
        on_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self._model = model
        self._samples = samples
        self._inner = inner
        self._recipe = recipe
        self._objective = Nll(recipe.mu, control, pad)
        self._file = file
        self._stop = stop
        self._checkpoint_s = checkpoint_s
        self._on_step = on_step
        self._parameters = lora.trainable(model)
        self._optimizer = _optimizer(self._parameters, recipe)
        self._best: dict[str, torch.Tensor] = {}
        self._recent: list[tuple[float, int, float]] = []  # the last steps: loss, tokens, seconds
        self._optional = optional
        self._plan, self._epoch_ends = self._planned(len(samples))
        self._preferred = preferred
        self._reference: list[list[float]] = []
        self._preferences: preferences.Objective | None = None
        self._penalty = penalty
        self._splits = lora.after_the_cache(model)
        self._rehearsed = rehearsed if recipe.kl_weight else ()
        self._distillation = Distillation(recipe.kl_weight, recipe.mu, control, pad, on_output=self._splits, stop=stop)
        self._key = key((*samples, *self._rehearsed), inner, preferred, recipe, penalty is not None)
        self.position = Position()

    def run(self, budget_s: float) -> Outcome:
        """Train, or go on training; afterwards the model has the best adapter found.

        Args:
            budget_s: for the training, over all the sleeps that it takes. How many steps fit is measured when it
                begins, and is fixed from then on, so that the rate falls to its end in time.

        Raises:
            Interrupted: `stop` was set.
        """
        self._model.eval()  # no dropout anywhere: the base must answer as it serves
        started = time.monotonic()
        self._resume()
        position = self.position
        earlier = position.seconds
        saved = started
        try:
            if not position.total:
                self._begin(budget_s)
            self._refer()
            stopped_by = "epochs" if position.total == len(self._plan) else "time"
            while not position.over:
                # Asked here, not after the step: an interruption may have come between the two.
                if position.judged != position.step and (
                    position.step in self._epoch_ends or position.step == position.total
                ):
                    self._judge()
                if position.step >= position.total:
                    break
                if self._inner and position.worse >= self._recipe.patience:
                    stopped_by = "validation"
                    break
                if position.seconds > budget_s * OVERTIME:  # the machine is slower than it was at the start
                    stopped_by = "time"
                    self._judge()
                    break
                if time.monotonic() - saved > self._checkpoint_s:
                    self.save()
                    saved = time.monotonic()
                self._step()
                position.seconds = earlier + time.monotonic() - started
        except Interrupted:
            self._optimizer.zero_grad(set_to_none=True)
            position.seconds = earlier + time.monotonic() - started
            self.save()
            raise
        if not position.over:
            position.over = True
            self.save()
        if self._inner:
            lora.put(self._model, self._best)
        epochs = self._recipe.epochs * position.step / len(self._plan)
        return Outcome(position, epochs, stopped_by, position.seconds - earlier)

    @property
    def rehearsed(self) -> Sequence[Sample]:
        """Of the general code, what is rehearsed: where the time does not suffice for all samples, a part of it."""
        position = self.position
        share = position.samples / len(self._samples) * position.total / max(position.total, len(self._plan))
        return self._rehearsed[: round(len(self._rehearsed) * share)]

    @property
    def learned(self) -> frozenset[int]:
        """The numbers of the samples from which the adapter, as it is kept, has learned."""
        return self._until(self.position.best_step if self._inner else self.position.step)

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {f"adapter.{name}": tensor for name, tensor in lora.weights(self._model).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for name, parameter in self._parameters.items():
            for moment, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{moment}.{name}"] = value
        tensors["generator"] = torch.random.get_rng_state()
        if self._reference:
            tensors["reference"] = torch.tensor(self._reference, dtype=torch.float64)
        checkpoint.write(self._file, tensors, self.position, self._key)

    def _begin(self, budget_s: float) -> None:
        """Fix what a measurement decides: how many steps there are, of which samples, and in which pieces."""
        fit = self._steps_in(budget_s, self._speed())
        samples = self._samples_in(fit)
        self._plan, self._epoch_ends = self._planned(samples)
        first = self._validate()
        self._best = self._copy()
        position = self.position
        position.samples, position.total = samples, min(len(self._plan), fit)
        position.first_inner = position.best_inner = first

    @property
    def preferring(self) -> frozenset[int]:
        """The numbers of the samples of whose experiences preferences are learned, wherever the training then ended."""
        return frozenset(one.sample for one in self._preferred if one.sample >= 0)

    def _until(self, steps: int) -> frozenset[int]:
        """The numbers of the samples of the first so many steps."""
        return frozenset(index for step in self._plan[:steps] for index in step)

    def _refer(self) -> None:
        """The preferences' log-probabilities before the first step, once; a checkpoint keeps them."""
        planned = {-1, *self._until(self.position.total)}
        self._preferred = [one for one in self._preferred if one.sample in planned]
        if self._preferred:
            reference = preferences.reference_of(self._model, self._preferred, self._stop, self._reference)
            recipe = self._recipe
            self._preferences = preferences.Objective(
                self._preferred,
                reference,
                dpo_weight=recipe.dpo_weight,
                kto_weight=recipe.kto_weight,
                beta=recipe.beta,
            )

    def _resume(self) -> None:
        """Take up the checkpoint, if there is one of this very training."""
        found = checkpoint.read(self._file, self._key)
        if found is None:
            return
        tensors, self.position = found
        self._reference = tensors["reference"].tolist() if "reference" in tensors else []
        if self.position.total:
            self._plan, self._epoch_ends = self._planned(self.position.samples)
        lora.put(self._model, _under(tensors, "adapter."))
        self._best = _under(tensors, "best.")
        torch.random.set_rng_state(tensors["generator"])
        for name, parameter in self._parameters.items():
            state = {
                moment: tensors[f"optimizer.{moment}.{name}"].to(parameter.device if moment != "step" else "cpu")
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{moment}.{name}" in tensors
            }
            if state:
                self._optimizer.state[parameter] = state

    def _step(self) -> None:
        """One optimizer step. Raises Interrupted between two micro-batches; the step is then as if never begun."""
        position = self.position
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate(position.step)
        samples = [self._samples[index] for index in self._plan[position.step]]
        denominators = self._objective.denominators(samples)
        started = time.monotonic()
        total, tokens = 0.0, 0
        self._optimizer.zero_grad(set_to_none=True)
        for micro in micro_batches(samples, min(self._recipe.micro_tokens, position.piece)):
            total += self._gradients(micro, self._objective, denominators, position.piece)
            tokens += sum(len(sample.ids) for sample in micro)
        tokens += self._rehearse()
        if self._preferences is not None:
            epochs, seed, count = self._recipe.epochs, self._recipe.seed, len(self._preferred)
            now = preferences.spread(count, epochs=epochs, step=position.step, total=position.total, seed=seed)
            self._preferences.add_gradients(self._model, now, self._stop)
        if self._penalty is not None:
            self._penalty.add_gradient(self._parameters)
        torch.nn.utils.clip_grad_norm_(list(self._parameters.values()), self._recipe.clip)
        self._optimizer.step()
        position.step += 1
        position.tokens += tokens
        self._recent = [*self._recent[-9:], (total / (1 + self._recipe.mu), tokens, time.monotonic() - started)]
        losses, counts, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        speed = counts / max(1e-6, seconds)
        self._on_step(Step(position.step, position.total, losses / len(self._recent), speed))

    def _rehearse(self) -> int:
        """Add the gradients of what is rehearsed in this step; returns how many tokens that is."""
        position, recipe, rehearsed = self.position, self._recipe, self.rehearsed
        now = preferences.spread(
            len(rehearsed), epochs=recipe.epochs, step=position.step, total=position.total, seed=recipe.seed
        )
        if not now:
            return 0
        samples = [rehearsed[index] for index in now]
        denominators = self._distillation.shared(samples, len(rehearsed) * recipe.epochs / position.total)
        piece = max(1, position.piece // 2)  # with twice the logits
        for micro in micro_batches(samples, min(recipe.micro_tokens, piece)):
            self._gradients(micro, self._distillation, denominators, piece)
        return sum(len(sample.ids) for sample in samples)

    def _gradients(self, micro: Sequence[Sample], objective: Nll, denominators: Denominators, piece: int) -> float:
        """Add a micro-batch's gradients, in pieces where the model allows it; returns its part of the objective."""
        batch = objective.collate(micro, next(iter(self._parameters.values())).device)
        rows, length = batch.ids.shape
        whole = rows * length <= piece or not self._splits
        look(self._stop)
        if whole:
            loss = objective.loss(self._model, batch, denominators)
            torch.autograd.backward(loss)
            return float(loss.detach())
        total = 0.0
        for part in objective.parts(self._model, batch, denominators, max(1, piece // rows)):
            torch.autograd.backward(part)
            total += float(part.detach())
            look(self._stop)
        return total

    def _judge(self) -> None:
        """Validate, and remember the adapter if it is the best so far."""
        position = self.position
        loss = self._validate()
        position.judged = position.step
        if loss < position.best_inner:
            position.best_inner, position.best_step, position.worse = loss, position.step, 0
            self._best = self._copy()
        else:
            position.worse += 1

    def _validate(self) -> float:
        """Nats per answer token on the inner validation part; inf without one."""
        nats, tokens = 0.0, 0
        for sample in self._inner:
            look(self._stop)
            nats += answer_nats(self._model, sample)
            tokens += len(sample.ids) - sample.loss_start
        return nats / tokens if tokens else math.inf

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in lora.weights(self._model).items()}

    def _rate(self, step: int) -> float:
        """Share of the peak rate at a step."""
        recipe, total = self._recipe, max(1, self.position.total)
        warmup = max(1, round(recipe.warmup * total))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        return recipe.floor + (1 - recipe.floor) * 0.5 * (1 + math.cos(math.pi * done))

    def _planned(self, count: int) -> tuple[list[list[int]], frozenset[int]]:
        """The steps over the first `count` samples."""
        recipe = self._recipe
        lengths = [len(sample.ids) for sample in self._samples[:count]]
        return plan(lengths, batch_tokens=recipe.batch_tokens, epochs=recipe.epochs, seed=recipe.seed)

    def _samples_in(self, steps: int) -> int:
        """How many samples are learned in so many steps of the present plan: the wanted ones, then optional ones."""
        if steps >= len(self._plan):
            return len(self._samples)
        lengths = [len(sample.ids) for sample in self._samples]
        room = sum(lengths[index] for step in self._plan[:steps] for index in step) / self._recipe.epochs
        count = len(lengths) - self._optional
        room -= sum(lengths[:count])
        while count < len(lengths) and room >= lengths[count]:
            room -= lengths[count]
            count += 1
        return count

    def _speed(self) -> float:
        """Tokens per second, by timing the beginning of the first step's longest sample; fixes the size of a piece.

        First a short one, which pays for what is made once and says how large the pieces can be; then a longer one.
        """
        sample = max((self._samples[index] for index in self._plan[0]), key=lambda one: len(one.ids))
        position, speed = self.position, 1.0
        position.piece = SMALLEST_PIECE
        for most in (SMALLEST_PIECE, 4 * SMALLEST_PIECE):
            cut = Sample(sample.ids[:most], min(sample.loss_start, most - 1, len(sample.ids) - 1))
            started = time.monotonic()
            self._gradients([cut], self._objective, self._objective.denominators([cut]), position.piece)
            speed = len(cut.ids) / max(1e-6, time.monotonic() - started)
            position.piece = min(self._recipe.micro_tokens, max(SMALLEST_PIECE, int(PIECE_S * speed)))
        self._optimizer.zero_grad(set_to_none=True)
        return speed

    def _steps_in(self, budget_s: float, speed: float) -> int:
        """How many optimizer steps fit at so many tokens per second; at least 1."""
        beside = sum(len(row.ids) for one in self._preferred for row in one.rows)
        beside = (beside + sum(len(sample.ids) for sample in self._rehearsed)) * self._recipe.epochs
        tokens, steps = 0.0, 0
        for step in self._plan:
            tokens += sum(len(self._samples[index].ids) for index in step) + beside / len(self._plan)
            if tokens / speed > budget_s:
                break
            steps += 1
        return max(1, steps)


def _optimizer(parameters: dict[str, torch.nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    matrices: dict[bool, list[torch.nn.Parameter]] = {False: [], True: []}
    for name, parameter in parameters.items():
        matrices["lora_B" in name].append(parameter)
    groups = [
        {"params": found, "peak": recipe.learning_rate * (recipe.b_ratio if is_b else 1.0), "lr": 0.0}
        for is_b, found in matrices.items()
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, foreach=False)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

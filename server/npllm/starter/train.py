"""Train the starter: a budget of time or steps, and a checkpoint to go on from.

Hidden matrices are Muon's, embeddings and norms AdamW's; both rates follow the same trapezoid. Works in bfloat16
under autocast where the hardware has it, and compiles on CUDA. Knows the rows only as arrays of ids.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from npllm.starter.checkpoint import Progress, load_checkpoint, save_checkpoint
from npllm.starter.head import linear_cross_entropy
from npllm.starter.muon import Muon
from npllm.starter.network import new_network, supports_bfloat16
from npllm.starter.presets import Phase, Preset
from npllm.starter.progress import tqdm
from npllm.starter.rows import Rows, load_rows
from npllm.starter.schedule import Budget, phase_at, rate_at
from npllm.starter.team import Team
from npllm.starter.tokens import PAD, SPECIAL_TOKENS

Validate = Callable[[LlamaForCausalLM], float]

_PAD_ID = SPECIAL_TOKENS.index(PAD)


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps its things. Creating `decay` asks it to begin its last, falling stretch now."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def curve(self) -> Path:
        return self.folder / "curve.jsonl"

    @property
    def decay(self) -> Path:
        return self.folder / "decay"


class RowOrder:
    """Deals a phase's rows in an order that depends on seed and epoch alone, so a count says where one is."""

    def __init__(self, rows: Rows, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def take(self, served: int, count: int) -> Tensor:
        """The `count` rows after the first `served`, int64 of shape (count, length)."""
        picked = [self._index(served + k) for k in range(count)]
        return torch.from_numpy(self._rows[picked].astype(np.int64))

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self._rows))
        if epoch != self._epoch:
            generator = np.random.default_rng([self._seed, epoch])
            self._epoch, self._order = epoch, generator.permutation(len(self._rows))
        return int(self._order[place])


def make_optimizers(network: LlamaForCausalLM, preset: Preset, team: Team) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the layers' matrices, AdamW for everything else."""
    settings = preset.optimisation
    hidden = [p for name, p in network.named_parameters() if ".layers." in name and p.ndim == 2]
    chosen = {id(p) for p in hidden}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    return (
        Muon(hidden, settings.muon_rate, settings.momentum, settings.weight_decay, team),
        torch.optim.AdamW(rest, settings.adam_rate, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0),
    )


def next_token_loss(network: LlamaForCausalLM, rows: Tensor, bfloat16: bool) -> Tensor:
    """Mean cross-entropy in nats over the rows' tokens, padding left out. `rows` has shape (batch, length)."""
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=bfloat16):
        hidden = network.model(input_ids=rows[:, :-1]).last_hidden_state.flatten(0, 1)
    if bfloat16:
        hidden = hidden.to(torch.bfloat16)
    return linear_cross_entropy(hidden, network.lm_head.weight, rows[:, 1:].flatten(), _PAD_ID)


class Trainer:
    """One training run, new or resumed from its folder's checkpoint."""

    def __init__(self, preset: Preset, packed: Path, files: RunFiles, budget: Budget, team: Team | None = None) -> None:
        self.preset, self.files, self.budget = preset, files, budget
        self.team = team or Team()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bfloat16 = supports_bfloat16(self.device)
        files.folder.mkdir(parents=True, exist_ok=True)
        self.network = new_network(preset.shape, preset.seed).to(self.device)
        self.optimizers = make_optimizers(self.network, preset, self.team)
        self.progress = Progress(served=(0,) * len(preset.phases))
        if files.checkpoint.exists():
            self.progress = load_checkpoint(files.checkpoint, self.network, self.optimizers)
        if self.device.type == "cuda":
            self.network.model.compile(dynamic=False)  # one graph for each phase's row length
        self._orders = [
            RowOrder(load_rows(packed, phase.length), preset.seed + n) for n, phase in enumerate(preset.phases)
        ]
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask the run to checkpoint and return after the step in hand. Safe from a signal handler."""
        self._stop.set()

    @property
    def fraction(self) -> float:
        """How much of the budget is used."""
        return self.budget.progress(self.progress.seconds, self.progress.step)

    def run(
        self,
        every_seconds: float = 120.0,
        validate: Validate | None = None,
        validate_every: float = 300.0,
        leg_seconds: float | None = None,
    ) -> bool:
        """Train until the budget is used (True), or until `stop` was called or the leg is over (False).

        A checkpoint is left either way, and every so many seconds. `validate` is called now and then on the
        network and its figure written into the loss curve."""
        if self.team.rank == 0 and self.fraction < 1.0:
            self._record(on=self._hardware())
        clock = _Clock(self.progress.seconds)
        saved = validated = clock.started
        losses: list[Tensor] = []
        first = self.progress.step
        quiet = self.team.rank > 0
        with tqdm(total=1000, initial=int(1000 * self.fraction), desc="training", unit="‰", disable=quiet) as bar:
            while self._goes_on(clock, leg_seconds):
                losses.append(self._step())
                now = time.monotonic()
                bar.update(int(1000 * self.fraction) - bar.n)
                if quiet:
                    continue
                if len(losses) == 20:
                    mean = float(torch.stack(losses).mean())  # asked seldom: a GPU would wait for each answer
                    bar.set_postfix(loss=f"{mean:.3f}", tokens=f"{self.progress.tokens / 1e6:.2f}M")
                    self._record(loss=mean)
                    losses.clear()
                if validate is not None and now - validated > validate_every:
                    self._record(validation=self._validated(validate))
                    validated = time.monotonic()
                if now - saved > every_seconds:
                    self.save()
                    saved = time.monotonic()
        if not quiet and self.progress.step > first:
            self.save()
            if validate is not None and self.fraction >= 1.0:
                self._record(validation=self._validated(validate))
        return self.fraction >= 1.0

    def _goes_on(self, clock: _Clock, leg_seconds: float | None) -> bool:
        """Take the time, see who wants to stop, and have the whole team agree on both."""
        if self.files.decay.exists() and self.team.rank == 0:
            begin = self.preset.optimisation.decay_from
            self.budget = self.budget.shortened(self.progress.seconds, self.progress.step, begin)
        if leg_seconds is not None and clock.running() > leg_seconds and self.progress.step > 0:
            self.stop()
        ends = float(self._stop.is_set())
        seconds, ends, total = self.team.follow([clock.seconds(), ends, self.budget.total])
        self.budget = Budget(seconds=total) if self.budget.steps is None else Budget(steps=int(total))
        self.progress = dataclasses.replace(self.progress, seconds=seconds)
        return self.fraction < 1.0 and not ends

    def save(self) -> None:
        """Leave a checkpoint."""
        save_checkpoint(self.files.checkpoint, self.network, self.optimizers, self.progress)

    def _step(self) -> Tensor:
        number = phase_at(self.fraction, self.preset.phases)
        phase: Phase = self.preset.phases[number]
        served = list(self.progress.served)
        self._attend(phase.length)
        share = phase.batch // self.team.size
        rows = self._orders[number].take(served[number] + self.team.rank * share, share).to(self.device)
        loss = next_token_loss(self.network, rows, self.bfloat16)
        loss.backward()  # type: ignore[no-untyped-call]
        settings = self.preset.optimisation
        self.team.average_gradients(list(self.network.parameters()))
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip)
        factor = rate_at(self.fraction, self.progress.step, settings)
        for optimizer, rate in zip(self.optimizers, (settings.muon_rate, settings.adam_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        served[number] += share * self.team.size
        tokens = self.progress.tokens + rows.numel() * self.team.size
        self.progress = Progress(self.progress.step + 1, self.progress.seconds, tokens, tuple(served))
        return loss.detach()

    def _attend(self, length: int) -> None:
        """Plain matrix products beat the fused attention on a CPU for short rows, by a fifth of the whole step."""
        wanted = "eager" if self.device.type == "cpu" and length <= 512 else "sdpa"
        if self.network.config._attn_implementation != wanted:
            self.network.set_attn_implementation(wanted)

    def _validated(self, validate: Validate) -> float:
        self.network.eval()
        # Validation asks in every length: not worth a compiled graph each.
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            figure = validate(self.network)
        self.network.train()
        return figure

    def _hardware(self) -> str:
        if self.device.type == "cuda":
            return f"one {torch.cuda.get_device_name(self.device)}, {'bfloat16' if self.bfloat16 else 'fp32'}"
        return f"{self.team.size} CPU process{'es' if self.team.size > 1 else ''} of one thread"

    def _record(self, **figures: float | str) -> None:
        now = self.progress
        entry = {"step": now.step, "seconds": round(now.seconds, 1), "tokens": now.tokens, **figures}
        with self.files.curve.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")


class _Clock:
    """Seconds of training, those of earlier calls included."""

    def __init__(self, before: float) -> None:
        self.started, self._before = time.monotonic(), before

    def running(self) -> float:
        return time.monotonic() - self.started

    def seconds(self) -> float:
        return self._before + self.running()


@contextmanager
def stopped_by_signals(trainer: Trainer) -> Iterator[None]:
    """While active, SIGTERM and SIGINT make the trainer leave a checkpoint and return."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: trainer.stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""How fast is the sleep's trainer beside a bare training loop with the same model and batches?

    python -m tests.benchmarks.sleep_speed --steps 6
    python -m tests.benchmarks.sleep_speed --steps 6 --mas 0.001 --dpo 0.3 --kto 0.3

After each optimizer step of the sleep's trainer a bare loop (transformers' own loss, AdamW, clipping, nothing else)
takes one on the same samples, so both meet the same machine. Printed are tokens per second of wall and of CPU time, and
their ratios; everything the trainer does beside steps (timing itself, references, checkpoints) counts against it. Where
the machine is busy, trust the ratio of CPU time.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

import torch

from npllm.models import examples
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import lora, trainer
from npllm.sleep.batches import micro_batches, plan
from npllm.sleep.learner import control_tokens
from npllm.sleep.lora import Layers, Shape
from npllm.sleep.mas import Importance, Penalty
from npllm.sleep.objectives import Sample
from npllm.sleep.plan import STATE
from npllm.sleep.preferences import Preference
from npllm.sleep.recipe import Recipe
from npllm.sleep.trainer import Step, Trainer

SOURCE = Path(__file__).resolve().parents[2] / "server" / "npllm"


class Clock:
    """Wall and CPU seconds."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def add(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = self.wall + wall, self.cpu + cpu


def now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def samples_of(builder: PromptBuilder, count: int) -> list[Sample]:
    """Lines of this project where they stand."""
    chance = random.Random(0)
    files = sorted(SOURCE.rglob("*.py"))
    made = []
    while len(made) < count:
        rows = chance.choice(files).read_text(encoding="utf-8").splitlines(keepends=True)
        if len(rows) > 60:
            at = chance.randrange(30, len(rows))
            one = examples.encode(
                builder, "".join(rows[:at])[-6000:], "\n" + "".join(rows[at + 1 :])[:2000], "a.py", rows[at].rstrip()
            )
            made.append(Sample(one.ids, one.loss_start))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--layers", choices=["output", "all"], default="output")
    parser.add_argument("--mas", type=float, default=0.0)
    parser.add_argument("--dpo", type=float, default=0.0)
    parser.add_argument("--kto", type=float, default=0.0)
    parser.add_argument("--piece", type=int, help="tokens between two looks, in place of what the speed says")
    args = parser.parse_args()
    if args.piece:
        trainer.SMALLEST_PIECE, trainer.PIECE_S = args.piece, 0.0
    layers: Layers = args.layers
    base = Base.load(args.base, device="cpu", threads=1)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 1024)
    adapted = lora.attach(base.model, Shape(64, 64, False, layers), seed=0)
    recipe = Recipe(
        Shape(64, 64, False, layers),
        1e-3,
        batch_tokens=4096,
        epochs=1,
        mas_lambda=args.mas,
        dpo_weight=args.dpo,
        kto_weight=args.kto,
    )
    learned = samples_of(builder, 5 * args.steps)
    batches = plan([len(one.ids) for one in learned], batch_tokens=4096, epochs=1, seed=recipe.seed)[0]
    others = samples_of(builder, 2 * args.steps)
    preferred = [Preference(one, two) for one, two in zip(others[::2], others[1::2], strict=True)] if args.dpo else []
    preferred += [Preference(None, one, 1.0, two) for one, two in zip(others[::2], others[1::2])] if args.kto else []
    parameters = lora.trainable(adapted)
    flat = Importance({name: torch.ones_like(value) for name, value in parameters.items()})
    penalty = Penalty(args.mas, flat, parameters, rate=1e-3) if args.mas else None
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4)
    bare, bare_tokens = Clock(), 0

    def bare_step(step: Step) -> None:
        nonlocal bare_tokens
        wall, cpu = now()
        batch = [learned[index] for index in batches[step.step - 1]]
        optimizer.zero_grad(set_to_none=True)
        for micro in micro_batches(batch, recipe.micro_tokens):
            ids = torch.full((len(micro), len(micro[0].ids)), builder.end_id or 0)
            labels = torch.full_like(ids, -100)
            for row, one in enumerate(micro):
                ids[row, : len(one.ids)] = labels[row, : len(one.ids)] = torch.tensor(one.ids)
            (adapted(input_ids=ids, labels=labels, use_cache=False).loss / len(batch)).backward()
            bare_tokens += sum(len(one.ids) for one in micro)
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        after = now()
        bare.add(after[0] - wall, after[1] - cpu)

    with tempfile.TemporaryDirectory() as folder:
        training = Trainer(
            adapted,
            learned,
            [],
            recipe,
            control=control_tokens(base, builder),
            pad=builder.end_id or 0,
            file=Path(folder) / STATE,
            stop=threading.Event(),
            preferred=preferred,
            penalty=penalty,
            on_step=bare_step,
        )
        wall, cpu = now()
        outcome = training.run(36000.0)
        after = now()
    tokens = outcome.position.tokens
    wall, cpu = after[0] - wall - bare.wall, after[1] - cpu - bare.cpu
    print(f"{outcome.position.step} steps, {tokens} tokens, pieces of at most {outcome.position.piece} tokens")
    print(f"sleep {tokens / wall:.0f} tokens/s of wall time, {tokens / cpu:.0f} of CPU time")
    print(f"bare  {bare_tokens / bare.wall:.0f} tokens/s of wall time, {bare_tokens / bare.cpu:.0f} of CPU time")
    print(f"ratio {tokens / wall / (bare_tokens / bare.wall):.2f}, {tokens / cpu / (bare_tokens / bare.cpu):.2f}")


if __name__ == "__main__":
    main()

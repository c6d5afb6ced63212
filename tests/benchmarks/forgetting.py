"""What does a sleep on a second project cost what was learned of the first, with and without MAS? No server, no memory.

    python -m tests.benchmarks.forgetting --lambdas 0 0.001 0.01 0.1

One adapter learns a morning of the first project, then, from that, one of the second; bits per UTF-8 byte of held-out
lines of both, before, between and after. Releases are downloaded once, into `.eval/wheels`.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import lora, mas
from npllm.sleep.learner import control_tokens
from npllm.sleep.lora import Shape
from npllm.sleep.mas import Penalty
from npllm.sleep.objectives import Sample
from npllm.sleep.plan import STATE
from npllm.sleep.recipe import Recipe
from npllm.sleep.trainer import Trainer
from tests.benchmarks.adapter_layers import asked, bits

QUIET = threading.Event()


@dataclass(frozen=True)
class Project:
    name: str
    learned: list[Sample]
    judged: list[tuple[Sample, int]]


def project(spec: str, builder: PromptBuilder, args: argparse.Namespace) -> Project:
    name, old, new = spec.split(":")
    pair = sources.package(name, old, new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
    return Project(
        name, [sample for sample, _ in asked(builder, parts.morning)], asked(builder, parts.held_out)[: args.heldout]
    )


def train(adapted: Any, base: Base, builder: PromptBuilder, samples: list[Sample], recipe: Recipe, **more: Any) -> None:
    control = control_tokens(base, builder)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / STATE
        Trainer(
            adapted, samples, [], recipe, control=control, pad=builder.end_id or 0, file=file, stop=QUIET, **more
        ).run(3600.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", default="textual:0.40.0:0.60.0")
    parser.add_argument("--second", default="trio:0.20.0:0.27.0")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0.0, 0.001, 0.01, 0.1])
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--morning", type=int, default=120)
    parser.add_argument("--heldout", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    base = Base.load("starter", device="cpu", threads=1)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), args.context)
    first, second = (project(spec, builder, args) for spec in (args.first, args.second))
    recipe = Recipe(Shape(64, 64, False, "output"), args.rate, batch_tokens=2048, epochs=args.passes)
    adapted = lora.attach(base.model, recipe.shape, seed=0)

    def tell(what: str) -> None:
        print(f"{what:24} {bits(adapted, first.judged):.4f} {bits(adapted, second.judged):.4f}", flush=True)

    print(f"{'bits per byte of':24} {first.name} {second.name}")
    tell("base")
    train(adapted, base, builder, first.learned, recipe)
    tell(f"after {first.name}")
    kept = {name: tensor.clone() for name, tensor in lora.weights(adapted).items()}
    began = time.monotonic()
    omega = mas.estimate(adapted, first.learned[:: max(1, len(first.learned) // mas.EXAMPLES)], stop=QUIET)
    print(f"importance measured in {time.monotonic() - began:.1f} s; highest, of a mean of 1:", end=" ")
    print(", ".join(f"{name.split('.')[-3]} {float(tensor.max()):.0f}" for name, tensor in omega.items()))
    flat = {name: torch.ones_like(tensor) for name, tensor in omega.items()}
    for weight in args.lambdas:
        for kind, held in (("MAS", omega), ("L2 alike", flat)):
            if not weight and kind != "MAS":
                continue
            lora.put(adapted, kept)
            penalty = Penalty(weight, mas.Importance(held), lora.trainable(adapted), rate=args.rate)
            held_recipe = replace(recipe, mas_lambda=weight)
            train(adapted, base, builder, second.learned, held_recipe, penalty=penalty if weight else None)
            tell(f"then {second.name}, {kind} {weight:g}")


if __name__ == "__main__":
    main()

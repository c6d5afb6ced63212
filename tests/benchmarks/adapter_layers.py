"""Which layers should a small base learn in? The sleep's own trainer on a replayed morning, without server or memory.

    python -m tests.benchmarks.adapter_layers --seed 10 --layers output --rate 1e-3
    python -m tests.benchmarks.adapter_layers --seed 10 --layers all --rate 2e-3
    python -m tests.benchmarks.adapter_layers --seed 0 --project-share 0.7

Prints bits per UTF-8 byte of held-out lines before and after. Releases are downloaded once, into `.eval/wheels`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.models import examples
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import lora, project
from npllm.sleep.learner import control_tokens
from npllm.sleep.lora import Shape
from npllm.sleep.objectives import Sample, answer_nats
from npllm.sleep.plan import STATE
from npllm.sleep.trainer import Recipe, Trainer
from tests.fixtures_sleep import experience

CONTEXT = 1024


def asked(builder: PromptBuilder, visits: Sequence[days.Visit]) -> list[tuple[Sample, int]]:
    """Each line asked for as a sample, and its bytes."""
    made = []
    for visit in visits:
        for ask in visit.asks:
            above, below = visit.change.around(ask.number)
            line, truth = visit.change.new[ask.number], visit.truth(ask)
            prefix, suffix = above + line[: ask.column], line[len(lines.content(line)) :] + below
            one = examples.encode(builder, prefix[-6000:], suffix[:2000], visit.path, truth)
            made.append((Sample(one.ids, one.loss_start), len(truth.encode())))
    return made


def bits(model: Any, judged: Sequence[tuple[Sample, int]]) -> float:
    nats = sum(answer_nats(model, sample, last=len(sample.ids) - sample.loss_start - 1) for sample, _ in judged)
    return nats / math.log(2) / sum(size for _, size in judged)


def beside(builder: PromptBuilder, pair: sources.Pair, visits: Sequence[days.Visit], count: int) -> list[Sample]:
    """Passages of the older release's other files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / pair.project
        sources.unpack(pair.old, root)
        places = {visit.path: (root / visit.path).as_uri() for visit in visits}
        opened = [
            replace(one, place=replace(one.place, uri=uri, project=str(root)))
            for path, uri in places.items()
            for one in [experience(path=path)]
        ]
        found = project.passages(
            "python", opened, count=count, characters=3 * CONTEXT, seed="0", stop=threading.Event()
        )
    made = [examples.encode(builder, one.prefix, one.suffix, one.path, one.line) for one in found]
    return [Sample(one.ids, one.loss_start) for one in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="textual")
    parser.add_argument("--old", default="0.40.0")
    parser.add_argument("--new", default="0.60.0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", choices=["output", "all"], default="output")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--project-share", type=float, default=0.0)
    parser.add_argument("--morning", type=int, default=200)
    parser.add_argument("--heldout", type=int, default=200)
    args = parser.parse_args()
    pair = sources.package(args.package, args.old, args.new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
    base = Base.load("starter", device="cpu", threads=1)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), CONTEXT)
    judged = asked(builder, parts.held_out)
    learned = [sample for sample, _ in asked(builder, parts.morning)]
    count = round(len(learned) * args.project_share / (1 - args.project_share))
    learned += beside(builder, pair, parts.morning, count)
    recipe = Recipe(Shape(args.rank, args.rank, False, args.layers), args.rate, batch_tokens=4096, epochs=1)
    adapted = lora.attach(base.model, recipe.shape, seed=0)
    before = bits(adapted, judged)
    control, stop = control_tokens(base, builder), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / STATE
        trainer = Trainer(adapted, learned, [], recipe, control=control, pad=builder.end_id or 0, file=file, stop=stop)
        began = time.monotonic()
        tokens = trainer.run(3600.0).position.tokens
    after = bits(adapted, judged)
    print(f"{before:.4f} -> {after:.4f} bits per byte ({after / before - 1:+.1%}) of {len(judged)} held-out lines")
    print(f"learned from {len(learned)} samples, {tokens} tokens, {tokens / (time.monotonic() - began):.0f} tokens/s")


if __name__ == "__main__":
    main()

"""Which layers should a small base learn in? The sleep's own trainer on a replayed morning, without server or memory.

    python -m tests.benchmarks.adapter_layers --seed 10 --layers output --rate 1e-3
    python -m tests.benchmarks.adapter_layers --seed 10 --layers all --rate 2e-3
    python -m tests.benchmarks.adapter_layers --seed 0 --project-share 0.7
    python -m tests.benchmarks.adapter_layers --seed 0 --heldout 100 --project-share 0.7 --general-share 0.15 --kl 1

Prints bits per UTF-8 byte before and after: of held-out lines, of the general code that the gate judges by, and of
another project's lines (`--elsewhere`), which is general code that nothing here rehearses. Releases are downloaded
once, into `.eval/wheels`.
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
from npllm.sleep import lora, project, rehearsal
from npllm.sleep.general import general
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
    """Passages of the older release's other files; where they do not suffice, of those that were written in."""
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
            "python", opened, learned=opened, count=count, characters=3 * CONTEXT, seed="0", stop=threading.Event()
        )
    return [sample(builder, one) for one in found]


def sample(builder: PromptBuilder, passage: project.Passage) -> Sample:
    made = examples.encode(builder, passage.prefix, passage.suffix, passage.path, passage.line)
    return Sample(made.ids, made.loss_start)


def general_code(builder: PromptBuilder) -> list[tuple[Sample, int]]:
    """What the gate judges by, and its bytes."""
    return [(sample(builder, passage), len(passage.line.encode())) for passage in general("python")[0]]


def elsewhere(builder: PromptBuilder, spec: str) -> list[tuple[Sample, int]]:
    """Sixty lines of another project."""
    name, old, new = spec.split(":")
    pair = sources.package(name, old, new, Path(".eval/wheels"))
    return asked(builder, days.make(lines.changes(pair), morning=60, held_out=60, seed=0).held_out)


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
    parser.add_argument("--general-share", type=float, default=0.0)
    parser.add_argument("--kl", type=float, default=0.0, help="rehearse general code by distillation, with this weight")
    parser.add_argument("--ways", type=float, nargs="+", default=[1.0], help="parts of the way, as the gate tries them")
    parser.add_argument("--elsewhere", default="httpx:0.18.0:0.27.0", help="another project, NAME:OLD:NEW")
    parser.add_argument("--morning", type=int, default=200)
    parser.add_argument("--heldout", type=int, default=200)
    args = parser.parse_args()
    pair = sources.package(args.package, args.old, args.new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
    base = Base.load("starter", device="cpu", threads=1)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), CONTEXT)
    judged = {
        "held-out lines": asked(builder, parts.held_out),
        "lines of the standard library": general_code(builder),
        f"lines of {args.elsewhere.split(':')[0]}": elsewhere(builder, args.elsewhere),
    }
    learned = [sample for sample, _ in asked(builder, parts.morning)]
    learned += beside(builder, pair, parts.morning, rehearsal.beside(len(learned), args.project_share))
    found = rehearsal.passages(
        "python",
        count=rehearsal.beside(len(learned), args.general_share),
        characters=3 * CONTEXT,
        seed="0",
        stop=threading.Event(),
    )
    rehearsed = [sample(builder, passage) for passage in found]
    if not args.kl:
        learned += rehearsed
    shape = Shape(args.rank, args.rank, False, args.layers)
    recipe = Recipe(shape, args.rate, batch_tokens=4096, epochs=1, kl_weight=args.kl)
    adapted = lora.attach(base.model, shape, seed=0)
    before = {name: bits(adapted, part) for name, part in judged.items()}
    control, pad, stop = control_tokens(base, builder), builder.end_id or 0, threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"control": control, "pad": pad, "file": Path(folder) / STATE, "stop": stop}
        trainer = Trainer(adapted, learned, [], recipe, rehearsed=rehearsed, **options)
        began = time.monotonic()
        tokens = trainer.run(3600.0).position.tokens
        speed = tokens / (time.monotonic() - began)
    whole = {name: tensor.clone() for name, tensor in lora.weights(adapted).items()}
    for share in args.ways:
        lora.put(adapted, lora.between(None, whole, share))
        for name, part in judged.items():
            after = bits(adapted, part)
            told = f"({after / before[name] - 1:+.2%}) of {len(part)} {name}"
            print(f"{share:.0%}: {before[name]:.4f} -> {after:.4f} bits per byte {told}", flush=True)
    way = "by distillation" if args.kl else "as examples"
    print(
        f"learned from {len(learned)} samples ({len(rehearsed)} of general code, {way}), {tokens} tokens, {speed:.0f}/s"
    )


if __name__ == "__main__":
    main()

"""Is the small cerebellum, having slept, ahead of the frozen base on the person's next lines?

    python -m tests.benchmarks.cerebellum --seed 10
    python -m tests.benchmarks.cerebellum --seed 10 --model server/npllm/starter/model --morning 80   # a stand-in

A real project's older and newer release give a morning's lines and the next ones. The cerebellum sleeps with the
sleep's trainer on the morning and on passages of the project's files, then its plastic layer lives through the
morning. Prints bits per UTF-8 byte of the next lines: frozen base, cerebellum as it came, after the sleep, with the
plastic layer (retroactive and simple), and with its trace zeroed; and how many lines are right exactly. `--beside`
prints instead what the base gains where the cerebellum has its say (`models.blend`), as it came and after the sleep,
alone and with what the older release says word for word, and how many lines are right then. `--ways` prints both at
each part of the way (`sleep.ways`), `--seconds` bounds the training. Releases are downloaded once, into `.eval/wheels`.
The reward of a line is 0: nobody was there to judge.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.models import plastic
from npllm.models.base import Base
from npllm.models.blend import mixed, of_answer
from npllm.models.cerebellum import origin
from npllm.models.continuations import Index
from npllm.models.reading import known_at
from npllm.sleep import plastic_days
from npllm.sleep.cerebellum_trainer import CerebellumTrainer, Recipe
from npllm.sleep.learner import control_tokens
from npllm.sleep.objectives import Sample, answer_nats
from npllm.sleep.plan import STATE
from npllm.sleep.ways import ways
from tests.benchmarks.adapter_layers import asked, beside
from tests.benchmarks.continuations import SIDE, Reading, places

Judged = Sequence[tuple[Sample, int]]
SHARES = (0.0, 0.1, 0.2, 0.3)


def bits(base: Base, judged: Judged) -> tuple[float, float]:
    """Bits per byte of the lines (the token that ends them left out), and the share that is right token by token."""
    nats, right = 0.0, 0
    for sample, _ in judged:
        count = len(sample.ids) - sample.loss_start - 1
        nats += answer_nats(base.model, sample, last=count)
        ids = torch.tensor([sample.ids])
        with torch.inference_mode():
            rows = base.model(input_ids=ids, use_cache=False, logits_to_keep=count + 2).logits[0, -count - 2 : -1]
        right += bool(torch.equal(rows.argmax(-1)[:count], ids[0, sample.loss_start :][:count]))
    return nats / math.log(2) / sum(size for _, size in judged), right / len(judged)


def beside_the_base(reading: Reading, small: Reading, parts: days.Plan, index: Index) -> str:
    """What the next lines cost the base with shares of the cerebellum's, alone and with what is known, and how many of
    them are right, token by token; with its say from the second token on, as it serves, and in the first one, too."""
    found = []
    for name, say in (("", of_answer), ("in the first token, too: ", mixed)):
        alone, known, size = dict.fromkeys(SHARES, 0.0), dict.fromkeys(SHARES, 0.0), 0
        right = dict.fromkeys(SHARES, 0)
        for path, prefix, suffix, truth in places(parts.held_out):
            size += len(truth.encode())
            answer, rows = reading.rows(prefix, suffix, path, truth)
            beside = small.rows(prefix, suffix, path, truth)[1]
            said = known_at(reading.reader, prefix[-SIDE:], suffix[:SIDE], reading.vocabulary, index, path)
            for share in SHARES:
                every = True
                for at, row in enumerate(say(rows, beside, share)):
                    both = said.mix(row, answer[:at])
                    alone[share] -= float(row[answer[at]])
                    known[share] -= float(both[answer[at]])
                    every = every and int(both.argmax()) == answer[at]
                right[share] += every
        scale = math.log(2) * size
        costs = [
            f"{share:g}: {alone[share] / scale:.4f} / {known[share] / scale:.4f} / {right[share]}" for share in SHARES
        ]
        found.append(name + ", ".join(costs))
    return "\n  ".join(found)


def say(name: str, found: tuple[float, float], against: float) -> None:
    print(f"{name:44} {found[0]:.4f}  {found[0] / against - 1:+7.1%}  {found[1]:6.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="textual")
    parser.add_argument("--old", default="0.40.0")
    parser.add_argument("--new", default="0.60.0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--model", default="starter", help="the cerebellum: starter, a folder, or a Hugging Face id")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--project-share", type=float, default=0.7)
    parser.add_argument("--morning", type=int, default=200)
    parser.add_argument("--heldout", type=int, default=200)
    parser.add_argument("--beside", action="store_true", help="what the base gains by it")
    parser.add_argument("--ways", action="store_true", help="the same, at each part of the way that it learned")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of training, at most")
    args = parser.parse_args()
    pair = sources.package(args.package, args.old, args.new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)

    reading = Reading(args.base, 1024)
    base, wide = reading.base, reading.builder
    frozen = bits(base, asked(wide, parts.held_out))
    print(f"{'':44} bits    to base   exact")
    say(f"frozen base, {base.info.parameters / 1e6:.2f}M parameters", frozen, frozen[0])

    folder = origin(args.model)
    sister = Reading(str(folder), args.context)
    small, builder = sister.base, sister.builder
    judged = asked(builder, parts.held_out)
    say(f"cerebellum as it came, {small.info.parameters / 1e6:.2f}M", bits(small, judged), frozen[0])
    if args.beside or args.ways:
        index = reading.index(pair)
        print("base, its share: bits alone / with what the project says / lines right then")
        print("as it came,", beside_the_base(reading, sister, parts, index), flush=True)

    morning = [sample for sample, _ in asked(builder, parts.morning)]
    count = round(len(morning) * args.project_share / (1 - args.project_share))
    learned = [*morning, *beside(builder, pair, parts.morning, count)]
    recipe = Recipe(learning_rate=args.rate, epochs=args.epochs)
    stop, began = threading.Event(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        trainer = CerebellumTrainer(
            small.model,
            learned,
            recipe,
            key=small.info.fingerprint,
            control=control_tokens(small, builder),
            pad=builder.end_id or 0,
            file=Path(temporary) / STATE,
            stop=stop,
        )
        position = trainer.run(args.seconds)
    seconds = time.monotonic() - began
    say(f"after a sleep of {seconds:.0f} s, {position.tokens} tokens", bits(small, judged), frozen[0])

    if args.beside or args.ways:
        print("after the sleep,", beside_the_base(reading, sister, parts, index), flush=True)
        there = ways(small.model, Base.load(str(folder), shared=False).model) if args.ways else {}
        for way, go in there.items():
            if way == 1:
                continue
            go()
            say(f"{way:.0%} of the way", bits(small, judged), frozen[0])
            print(f"{way:.0%} of the way,", beside_the_base(reading, sister, parts, index), flush=True)
        return
    episode = [plastic_days.moment(small, sample, 0.0) for sample in morning]
    for name, retroactive in (("retroactive", True), ("simple", False)):
        tensors = plastic_days.live_through(
            small, [episode], episode, start=folder, seed=args.seed, stop=stop, retroactive=retroactive
        )
        for zeroed in (False, True):
            plastic.attach(small.model, plastic.of(tensors, zeroed=zeroed))
            shown = f"with plastic layer, {name}" + (", trace zeroed" if zeroed else "")
            say(shown, bits(small, judged), frozen[0])
        plastic.attach(small.model, None)


if __name__ == "__main__":
    main()

"""What do continuations gain, and how much should a match count? The next lines of real projects, without a server.

    python -m tests.benchmarks.continuations --package textual=0.40.0,0.60.0 --seed 0
    python -m tests.benchmarks.continuations --package httpx=0.17.0,0.19.0 --morning 30 --heldout 300
    python -m tests.benchmarks.continuations --package flask=2.0.0,3.0.0 --small
    python -m tests.benchmarks.continuations --fit weighing.safetensors
    python -m tests.benchmarks.continuations --weighing weighing.safetensors

For each project: bits per UTF-8 byte of held-out lines by the bare base and with what the older release and the rest of
the document say word for word, at some trusts, and how many lines are right token by token; `--small` the same for the
cerebellum as it came. `--fit` makes the
network of `models.weighing` from the lines of `PROJECTS`, as the base and the cerebellum see them, apart and mixed,
and writes it to a file, which `--weighing` judges. Releases are downloaded once, into `.eval/wheels`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import npllm
from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.models import continuations, examples
from npllm.models.base import Base
from npllm.models.blend import mixed
from npllm.models.continuations import Index
from npllm.models.fim import PromptBuilder, choose
from npllm.models.reading import Reader, known_at
from npllm.models.weighing import LEVELS, Weighing, features

JUDGED = ("textual=0.40.0,0.60.0", "flask=2.0.0,3.0.0", "rich=10.0.0,13.7.0", "httpx=0.22.0,0.28.1")
PROJECTS = (
    "anyio=2.0.0,4.3.0",
    "attrs=20.1.0,23.2.0",
    "black=22.1.0,24.1.0",
    "click=7.1.2,8.1.7",
    "hypothesis=6.0.0,6.100.0",
    "marshmallow=3.0.0,3.21.0",
    "poetry=1.2.0,1.8.0",
    "pytest=6.0.0,8.0.0",
    "scrapy=2.0.0,2.11.0",
    "starlette=0.20.0,0.37.0",
    "trio=0.20.0,0.27.0",
    "werkzeug=1.0.1,3.0.0",
)
WAYS = (0.0, 0.1, 0.2, 1.0)  # shares of the cerebellum in what a match is weighed against
SIDE = 40_000  # characters of the document before and after the cursor
HIDDEN, STEPS, AT_ONCE, RATE, DECAY = 32, 500, 8, 1e-2, 0.1  # chosen on four of `PROJECTS`, by the others


@dataclass(frozen=True)
class Asked:
    """For each token asked, what the mixture is made of: N tokens, L levels.

    Attributes:
        probability: the model's own of the token, [N].
        share: the token's among what followed, [N, L].
        found: whether anything followed, [N, L].
        x: `weighing.features` where anything did, [M, F].
    """

    probability: torch.Tensor
    share: torch.Tensor
    found: torch.Tensor
    x: torch.Tensor

    def nats(self, gates: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of each token [N], where a level counts as much as its gate [M] says."""
        p, every = self.probability, torch.zeros_like(self.share).masked_scatter(self.found, gates)
        for level in range(LEVELS):
            mixture = (1 - every[:, level]) * p + every[:, level] * self.share[:, level]
            p = torch.where(self.found[:, level], mixture, p)
        return -p.clamp(min=1e-12).log()


class Reading:
    """A model and what it makes of a project's lines."""

    def __init__(self, model: str, context: int) -> None:
        self.base = Base.load(model, device="cpu", threads=1, shared=model == "starter")
        self.builder = PromptBuilder(self.base.tokenizer, choose(self.base.tokenizer), context)
        self.reader = Reader(self.builder.codec)
        self.vocabulary = int(self.base.model.config.vocab_size)

    def index(self, pair: sources.Pair) -> Index:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            sources.unpack(pair.old, root)
            files = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(root.rglob("*.py"))}
        return Index({name: self.reader.tokens(text) for name, text in files.items()}, self.vocabulary)

    def rows(self, prefix: str, suffix: str, path: str, truth: str) -> tuple[tuple[int, ...], torch.Tensor]:
        """The tokens of a text at a place, and what the model expects of each, logits [T, V]."""
        one = examples.encode(self.builder, prefix[-6000:], suffix[:2000], path, truth)
        begin, end = one.loss_start, len(one.ids) - (one.ids[-1] == self.builder.end_id)
        with torch.inference_mode():
            found = self.base.model(torch.tensor([one.ids])).logits[0, begin - 1 : end - 1].float().clone()
        return one.ids[begin:end], found

    def nats(
        self, visits: Sequence[days.Visit], index: Index, trusts: Sequence[float], weighing: Weighing | None = None
    ) -> tuple[dict[float, float], dict[float, int], int]:
        """Of all lines asked: nats and how many are right, by trust (0: the model alone), and their bytes."""
        nats, right, size = dict.fromkeys(trusts, 0.0), dict.fromkeys(trusts, 0), 0
        for path, prefix, suffix, truth in places(visits):
            answer, rows = self.rows(prefix, suffix, path, truth)
            size += len(truth.encode())
            for trust in trusts:
                sides = prefix[-SIDE:], suffix[:SIDE]
                known = known_at(self.reader, *sides, self.vocabulary, index, path, trust, weighing)
                expected = [known.mix(row, answer[:at]) for at, row in enumerate(rows)]
                nats[trust] -= sum(float(one[token]) for one, token in zip(expected, answer, strict=True))
                right[trust] += all(int(one.argmax()) == token for one, token in zip(expected, answer, strict=True))
        return nats, right, size


def places(visits: Sequence[days.Visit]) -> list[tuple[str, str, str, str]]:
    """For each line asked: path, text before and after the cursor, and what was written there."""
    made = []
    for visit in visits:
        for ask in visit.asks:
            above, below = visit.change.around(ask.number)
            line = visit.change.new[ask.number]
            suffix = line[len(lines.content(line)) :] + below
            made.append((visit.path, above + line[: ask.column], suffix, visit.truth(ask)))
    return made


def asked(base: Reading, small: Reading, visits: Sequence[days.Visit], index: Index) -> list[Asked]:
    """What all tokens asked are mixed of, in each of `WAYS`."""
    made: list[list[tuple[float, np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in WAYS]
    for path, prefix, suffix, truth in places(visits):
        answer, rows = base.rows(prefix, suffix, path, truth)
        beside = small.rows(prefix, suffix, path, truth)[1]
        known = known_at(base.reader, prefix[-SIDE:], suffix[:SIDE], base.vocabulary, index, path)
        for at, token in enumerate(answer):
            found = known.found(answer[:at])
            share = np.zeros(LEVELS)
            for one in found:
                share[one.level] = one.counts[one.tokens == token].sum() / one.total
            for way, into in zip(WAYS, made, strict=True):
                logs = beside[at].log_softmax(-1) if way == 1 else mixed(rows[at], beside[at], way)
                matches, surest, entropy = continuations.levels(found, logs.exp().numpy(), logs.numpy())
                x = features(matches, surest, entropy)
                into.append((float(logs[token].exp()), share, matches.total > 0, x))
    return [stacked(*zip(*rows, strict=True)) for rows in made]


def stacked(
    probability: Sequence[float], share: Sequence[np.ndarray], found: Sequence[np.ndarray], x: Sequence[np.ndarray]
) -> Asked:
    where = torch.from_numpy(np.stack(found))
    inputs = torch.from_numpy(np.stack(x)).float()[where]
    return Asked(torch.tensor(probability), torch.from_numpy(np.stack(share)).float(), where, inputs)


class Network(torch.nn.Module):
    """`weighing.Weighing`, to be fitted; its inputs are standardised."""

    def __init__(self, inputs: torch.Tensor) -> None:
        super().__init__()
        self.centre, self.scale = inputs.mean(0), inputs.std(0) + 1e-3
        self.inner = torch.nn.Linear(inputs.shape[1], HIDDEN)
        self.outer = torch.nn.Linear(HIDDEN, 1)
        torch.nn.init.zeros_(self.outer.weight)
        torch.nn.init.constant_(self.outer.bias, -2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.inner((x - self.centre) / self.scale))
        return torch.sigmoid(self.outer(hidden))[:, 0]

    def parts(self) -> dict[str, np.ndarray]:
        """As `weighing` reads it."""
        scaled = self.inner.weight / self.scale
        parts = {
            "A": scaled,
            "a": self.inner.bias - scaled @ self.centre,
            "v": self.outer.weight[0],
            "b": self.outer.bias,
        }
        return {name: part.detach().double().numpy() for name, part in parts.items()}


def fit(sets: Sequence[Asked], seed: int = 0) -> dict[str, np.ndarray]:
    """What makes tokens likeliest, each project and each of `WAYS` counting alike."""
    torch.manual_seed(seed)
    network = Network(torch.cat([one.x for one in sets]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        chosen = [sets[number] for number in torch.randperm(len(sets))[:AT_ONCE]]
        optimizer.zero_grad()
        loss = torch.stack([one.nats(network(one.x)).mean() for one in chosen]).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return network.parts()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", metavar="NAME=OLD,NEW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--morning", type=int, default=150)
    parser.add_argument("--heldout", type=int, default=150)
    parser.add_argument("--fit", type=Path, metavar="FILE")
    parser.add_argument("--weighing", type=Path, metavar="FILE", help="what --fit wrote, in place of what is shipped")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    sister = Path(npllm.__file__).parent / "starter" / "cerebellum"
    if args.fit:
        write(args.fit, args.package or PROJECTS, sister, args.morning + args.heldout, args.seed)
        return
    reading = Reading(str(sister), 512) if args.small else Reading("starter", 1024)
    weighing = Weighing(load_file(args.weighing)) if args.weighing else None
    trusts = (0.0, 1.0, 2.0, 4.0, 8.0) if args.small else (0.0, 0.5, 1.0, 1.25, 1.5, 2.0)
    for spec in args.package or JUDGED:
        name, parts, index = project(reading, spec, args.morning, args.heldout, args.seed)
        nats, right, size = reading.nats(parts.held_out, index, trusts, weighing)
        scale, alone = math.log(2) * size, nats[0.0]
        shown = (
            f"{nats[t] / scale:.4f} ({nats[t] / alone - 1:+.1%}) and {right[t]} right at trust {t:g}"
            for t in trusts[1:]
        )
        count = sum(len(visit.asks) for visit in parts.held_out)
        print(
            f"{name}: {alone / scale:.4f} bits per byte and {right[0.0]} of {count} lines right alone; "
            f"{', '.join(shown)}; {len(index)} tokens known",
            flush=True,
        )


def project(
    reading: Reading, spec: str, morning: int, held_out: int, seed: int
) -> tuple[str, days.Plan, continuations.Index]:
    """Its name, its lines, and what its older release says."""
    name, _, versions = spec.partition("=")
    old, new = versions.split(",")
    pair = sources.package(name, old, new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=morning, held_out=held_out, seed=seed)
    return name, parts, reading.index(pair)


def write(file: Path, specs: Sequence[str], sister: Path, count: int, seed: int) -> None:
    """Fit on `count` lines of each project, and write what comes of it."""
    base, small = Reading("starter", 1024), Reading(str(sister), 1024)
    sets = []
    for spec in specs:
        name, parts, index = project(base, spec, count // 3, count - count // 3, seed)
        sets += asked(base, small, [*parts.morning, *parts.held_out], index)
        print(f"{name}: {len(sets[-1].probability)} tokens", flush=True)
    parts_of = fit(sets)
    save_file(parts_of, file, metadata={"projects": ", ".join(specs), "licence": "as npllm's", "seed": str(seed)})
    held = Weighing(parts_of)
    told = sum(float(one.nats(torch.from_numpy(held(one.x.numpy())).float()).sum()) for one in sets)
    print(f"{told / sum(len(one.probability) for one in sets):.4f} nats a token on what it was fitted on", flush=True)


if __name__ == "__main__":
    main()

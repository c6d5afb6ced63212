"""What do continuations gain, and which weights should they have? The next lines of real projects, without a server.

    python -m tests.benchmarks.continuations --package textual=0.40.0,0.60.0 --seed 0
    python -m tests.benchmarks.continuations --package flask=2.0.0,3.0.0 --small
    python -m tests.benchmarks.continuations --fit

For each project: bits per UTF-8 byte of held-out lines by the bare base and with what the older release and the
document above the cursor say word for word; `--small` the same for the cerebellum as it came, at some trusts. `--fit`
finds the weights on each project's morning and tells, for each, what those of the *other* projects' mornings gain on
its held-out lines. Releases are downloaded once, into `.eval/wheels`.
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

import npllm
from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.models import examples
from npllm.models.base import Base
from npllm.models.continuations import ORDERS, Index, Tokens
from npllm.models.fim import PromptBuilder, choose
from npllm.models.reading import Reader, known_at

PROJECTS = ("textual=0.40.0,0.60.0", "trio=0.20.0,0.27.0", "httpx=0.18.0,0.27.0", "starlette=0.20.0,0.37.0")
ABOVE = 40_000
STEPS = 300


@dataclass(frozen=True)
class Counts:
    """For each token asked: the model's log-probability, and its share among what followed, by order (-1: nothing)."""

    logprobs: torch.Tensor  # [N]
    shares: torch.Tensor  # [N, orders]
    sizes: int  # bytes of all

    def nats(self, weights: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of all with some weights."""
        p = self.logprobs.exp()
        for order in range(len(ORDERS)):
            share = self.shares[:, order]
            p = torch.where(share >= 0, (1 - weights[order]) * p + weights[order] * share, p)
        return -p.clamp(min=1e-12).log().sum()


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

    def asked(
        self, visits: Sequence[days.Visit], index: Index, trusts: Sequence[float]
    ) -> tuple[Counts, dict[float, float]]:
        """Counts of all tokens asked, and the nats with the weights of now at some trusts."""
        logprobs, shares, size = list[float](), list[list[float]](), 0
        nats = dict.fromkeys(trusts, 0.0)
        for visit in visits:
            for ask in visit.asks:
                above, below = visit.change.around(ask.number)
                line, truth = visit.change.new[ask.number], visit.truth(ask)
                prefix, suffix = above + line[: ask.column], line[len(lines.content(line)) :] + below
                one = examples.encode(self.builder, prefix[-6000:], suffix[:2000], visit.path, truth)
                begin, end = one.loss_start, len(one.ids) - (one.ids[-1] == self.builder.end_id)
                answer = one.ids[begin:end]
                with torch.inference_mode():
                    rows = self.base.model(torch.tensor([one.ids])).logits[0, begin - 1 : end - 1].float()
                size += len(truth.encode())
                for trust in trusts:
                    known = known_at(self.reader, prefix[-ABOVE:], self.vocabulary, index, visit.path, trust)
                    for at, row in enumerate(rows):
                        nats[trust] -= float(known.mix(row, answer[:at])[answer[at]])
                own = self.reader.tokens(prefix[-ABOVE:])
                local = Index({"": own}, self.vocabulary)
                for at, row in enumerate(rows.log_softmax(-1)):
                    logprobs.append(float(row[answer[at]]))
                    shares.append(_shares([*own.tolist(), *answer[:at]], answer[at], local, index, visit.path))
        return Counts(torch.tensor(logprobs).double(), torch.tensor(shares).double(), size), nats


def _shares(context: list[int], token: int, local: Index, index: Index, path: str) -> list[float]:
    each: list[list[Tokens]] = [[] for _ in ORDERS]
    for found in (local.followers(context), index.followers(context, path)):
        for order, followers in enumerate(found):
            each[order].append(followers)
    return [float((np.concatenate(parts) == token).mean()) if parts else -1.0 for parts in each]


def fit(counts: Sequence[Counts]) -> torch.Tensor:
    """The weights that make tokens likeliest, each project counting alike."""
    raw = torch.full((len(ORDERS),), -1.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.stack([one.nats(raw.sigmoid()) / len(one.logprobs) for one in counts]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return raw.detach().sigmoid()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", metavar="NAME=OLD,NEW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--morning", type=int, default=200)
    parser.add_argument("--heldout", type=int, default=200)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    sister = Path(npllm.__file__).parent / "starter" / "cerebellum"
    reading = Reading(str(sister), 512) if args.small else Reading("starter", 1024)
    trusts = (1.0, 1.5, 2.0, 3.0) if args.small else (0.5, 1.0, 1.5)
    learned, judged = dict[str, Counts](), dict[str, Counts]()
    for spec in args.package or PROJECTS:
        name, _, versions = spec.partition("=")
        old, new = versions.split(",")
        pair = sources.package(name, old, new, Path(".eval/wheels"))
        parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
        index = reading.index(pair)
        judged[name], nats = reading.asked(parts.held_out, index, trusts)
        if args.fit:
            learned[name], _ = reading.asked(parts.morning, index, ())
        bare = -float(judged[name].logprobs.sum())
        scale = math.log(2) * judged[name].sizes
        mixed = ", ".join(f"{nats[t] / scale:.4f} ({nats[t] / bare - 1:+.1%}) at trust {t:g}" for t in trusts)
        print(f"{name}: {bare / scale:.4f} bits per byte alone; {mixed}; {len(index)} tokens known", flush=True)
    if args.fit:
        for name, one in judged.items():
            others = fit([found for other, found in learned.items() if other != name] or [learned[name]])
            gain = float(one.nats(others)) / -float(one.logprobs.sum()) - 1
            print(f"{name}: {gain:+.1%} with the weights of the other projects' mornings")
        weights = fit([*learned.values(), *judged.values()])
        print("fitted on all lines:", ", ".join(f"{order}: {w:.3f}" for order, w in zip(ORDERS, weights.tolist())))


if __name__ == "__main__":
    main()

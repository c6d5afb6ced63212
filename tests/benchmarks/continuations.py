"""What do continuations gain, and which weights should they have? The next lines of real projects, without a server.

    python -m tests.benchmarks.continuations --package textual=0.40.0,0.60.0 --seed 0
    python -m tests.benchmarks.continuations --package flask=2.0.0,3.0.0 --small
    python -m tests.benchmarks.continuations --fit

For each project: bits per UTF-8 byte of held-out lines by the bare base and with what the older release and the rest of
the document say word for word; `--small` the same for the cerebellum as it came, at some trusts. `--fit` finds the
weights on the lines of all projects but `JUDGED`, and tells what they gain on those. Releases are downloaded once, into
`.eval/wheels`.
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
from npllm.models import continuations, examples
from npllm.models.base import Base
from npllm.models.continuations import ORDERS, Index
from npllm.models.fim import PromptBuilder, choose
from npllm.models.reading import Reader, known_at

JUDGED = ("textual=0.40.0,0.60.0", "flask=2.0.0,3.0.0", "rich=10.0.0,13.7.0")
PROJECTS = (
    "trio=0.20.0,0.27.0",
    "click=7.1.2,8.1.7",
    "httpx=0.18.0,0.27.0",
    "starlette=0.20.0,0.37.0",
    "werkzeug=1.0.1,3.0.0",
)
SIDE = 40_000  # characters of the document before and after the cursor
STEPS = 300
DECAY = 1e-3


@dataclass(frozen=True)
class Asked:
    """For each token asked, what the mixture is made of: N tokens, L levels (orders and, in each, sources).

    Attributes:
        probability: the model's own of the token, [N].
        share: the token's among what followed, [N, L].
        found: whether anything followed, [N, L].
        features: x of the module's equation, [N, L, 4].
        size: bytes of all.
    """

    probability: torch.Tensor
    share: torch.Tensor
    found: torch.Tensor
    features: torch.Tensor
    size: int

    def nats(self, weights: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of all: with w [4] and b [L]."""
        p, gates = self.probability, (biases + self.features @ weights).sigmoid()
        for level in range(self.share.shape[1]):
            gate = gates[:, level]
            p = torch.where(self.found[:, level], (1 - gate) * p + gate * self.share[:, level], p)
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
    ) -> tuple[Asked, dict[float, float]]:
        """What all tokens asked are mixed of, and the nats with the weights of now at some trusts."""
        probabilities, levels, size = list[float](), list[list[list[float]]](), 0
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
                document = prefix[-SIDE:], suffix[:SIDE]
                for trust in trusts:
                    known = known_at(self.reader, *document, self.vocabulary, index, visit.path, trust)
                    for at, row in enumerate(rows):
                        nats[trust] -= float(known.mix(row, answer[:at])[answer[at]])
                known = known_at(self.reader, *document, self.vocabulary, index, visit.path)
                for at, row in enumerate(rows.softmax(-1).numpy()):
                    probabilities.append(float(row[answer[at]]))
                    levels.append(_levels(known.found(answer[:at]), row, answer[at]))
        table = torch.tensor(levels).double().view(len(levels), -1, 6)
        asked = Asked(torch.tensor(probabilities).double(), table[..., 1], table[..., 0] > 0, table[..., 2:], size)
        return asked, nats


def _levels(found: Sequence[continuations.Followers], row: np.ndarray, token: int) -> list[list[float]]:
    """For each level whether anything was found, the token's share, and the features."""
    levels = [[0.0] * 6 for _ in range(2 * len(ORDERS))]
    for one in found:
        share = float(one.counts[one.tokens == token].sum()) / one.total
        levels[2 * one.order + one.source] = [1.0, share, *one.features(float(row.max()), float(row[one.often]))]
    return levels


def fit(sets: Sequence[Asked]) -> tuple[torch.Tensor, torch.Tensor]:
    """w and b that make tokens likeliest, each project counting alike."""
    centre = torch.cat([one.features[one.found] for one in sets]).mean(0)
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    biases = torch.full((2 * len(ORDERS),), -1.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights, biases], lr=0.05)
    for _ in range(STEPS):
        optimizer.zero_grad()
        moved = biases - centre @ weights
        loss = torch.stack([one.nats(weights, moved) / len(one.probability) for one in sets]).mean()
        (loss + DECAY * (weights**2).sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights.detach(), (biases - centre @ weights).detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", metavar="NAME=OLD,NEW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--morning", type=int, default=150)
    parser.add_argument("--heldout", type=int, default=150)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    sister = Path(npllm.__file__).parent / "starter" / "cerebellum"
    reading = Reading(str(sister), 512) if args.small else Reading("starter", 1024)
    trusts = (1.0, 2.0, 4.0, 8.0) if args.small else (0.5, 1.0, 2.0)
    learned, judged = list[Asked](), dict[str, Asked]()
    for spec in args.package or (*(PROJECTS if args.fit else ()), *JUDGED):
        name, _, versions = spec.partition("=")
        old, new = versions.split(",")
        pair = sources.package(name, old, new, Path(".eval/wheels"))
        parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
        index = reading.index(pair)
        asked, nats = reading.asked(parts.held_out, index, trusts)
        if args.fit and spec not in JUDGED:
            learned += [asked, reading.asked(parts.morning, index, ())[0]]
        else:
            judged[name] = asked
        bare = -float(asked.probability.log().sum())
        scale = math.log(2) * asked.size
        mixed = ", ".join(f"{nats[t] / scale:.4f} ({nats[t] / bare - 1:+.1%}) at trust {t:g}" for t in trusts)
        print(f"{name}: {bare / scale:.4f} bits per byte alone; {mixed}; {len(index)} tokens known", flush=True)
    if args.fit:
        weights, biases = fit(learned)
        for name, one in judged.items():
            gain = float(one.nats(weights, biases)) / -float(one.probability.log().sum()) - 1
            print(f"{name}: {gain:+.1%} with what was fitted on the others")
        print("w:", ", ".join(f"{w:.3f}" for w in weights.tolist()))
        for source, name in enumerate(("project", "document")):
            print(f"b, {name}:", ", ".join(f"{b:.3f}" for b in biases.tolist()[source::2]))


if __name__ == "__main__":
    main()

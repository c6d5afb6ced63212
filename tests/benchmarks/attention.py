"""Does satisfaction steer attention well? The sleep's own learning on a replayed morning, without server or database.

    python -m tests.benchmarks.attention --package textual --old 0.40.0 --new 0.60.0 --seed 0

A morning's lines are asked for one after the other as the server does (retrieval from what was written before, the
base's own say on whether that helps, a suggestion, a reward by what the person wrote), then gains are learned from
those in whose prompts something remembered stood. Prints bits per UTF-8 byte of the held-out lines in whose prompts
something remembered stands: standard attention; learned gains; gains learned and judged with satisfaction shuffled
among the memories; and with the same satisfaction for all; with `--plastic` only plastic gains beside the learned ones,
and the same with their trace zeroed. Intervals are the gate's, by file where there are enough.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import torch

from npllm.assist import context, worker, writing
from npllm.assist.worker import Desk
from npllm.config import BaseConfig, CompletionConfig, Config
from npllm.evaluation import lines, metrics, sources
from npllm.evaluation import plan as days
from npllm.feedback import reward
from npllm.feedback.survival import survival
from npllm.memory.embedder import Embedder
from npllm.memory.retrieval import on_screen
from npllm.memory.texts import embedding_text, snippet_text
from npllm.models import attention as mechanism
from npllm.models.fim import Span
from npllm.sleep import attention, plastic_gains
from npllm.sleep.attending import prompts_of
from npllm.sleep.attention import Recipe, Remembered
from npllm.sleep.dataset import file_of
from npllm.sleep.gate import Scored, interval
from npllm.types import Experience, OutcomeKind, Place, Snippet
from tests.fixtures_sleep import experience

CONTEXT = 1024


class Morning:
    """Asks, remembers, and finds again, as the server does."""

    def __init__(self, desk: Desk, config: Config) -> None:
        self.desk, self.config = desk, config
        self._embedder = Embedder(threads=1)
        self._loop = asyncio.new_event_loop()
        self._vectors: list[tuple[float, ...]] = []
        self._snippets: list[Snippet] = []

    def request(self, visit: days.Visit, ask: days.Ask) -> writing.Request:
        above, below = visit.change.around(ask.number)
        line = visit.change.new[ask.number]
        prefix = (above + line[: ask.column])[-context.PREFIX_CHARS :]
        suffix = (line[len(lines.content(line)) :] + below)[: context.SUFFIX_CHARS]
        place = Place(f"file:///{visit.path}", visit.path, "python", "/p", len(prefix))
        return writing.Request(place, prefix, suffix, self._alike(prefix, suffix), self.config)

    def remember(self, item: Experience) -> None:
        self._vectors += self._embed(embedding_text(item.prefix, item.final_text))
        text = snippet_text(item.prefix, item.final_text)
        self._snippets.append(Snippet(item.place.path, text, 0.0, item.id, item.reward))

    def _embed(self, text: str) -> list[tuple[float, ...]]:
        return self._loop.run_until_complete(self._embedder.embed([text]))

    def _alike(self, prefix: str, suffix: str) -> tuple[Snippet, ...]:
        if not self._vectors:
            return ()
        alike = torch.tensor(self._vectors) @ torch.tensor(self._embed(embedding_text(prefix))[0])
        chosen: dict[str, Snippet] = {}
        for index in alike.argsort(descending=True).tolist():
            snippet = replace(self._snippets[index], score=float(alike[index]))
            enough = len(chosen) == self.config.memory.snippets
            if enough or snippet.score < self.config.memory.min_similarity:
                break
            if not on_screen(snippet, prefix, suffix):
                chosen.setdefault("".join(snippet.text.split()), snippet)
        return tuple(chosen.values())


def became(suggested: str | None, truth: str) -> tuple[OutcomeKind, float]:
    """What the person of `npllm eval replay` makes of a suggestion, and the implicit reward."""
    if suggested is None:
        return OutcomeKind.UNSEEN, 0.0
    kind = OutcomeKind.REJECTED
    if metrics.is_exact(suggested, truth):
        kind = OutcomeKind.ACCEPTED
    elif metrics.similarity(suggested, truth) >= metrics.CLOSE:
        kind = OutcomeKind.EDITED
    survived = survival(suggested, truth)
    base = reward.base(kind, survived)
    return kind, base * reward.weight(base, survived * reward.size(suggested))


def lived(request: writing.Request, truth: str, suggested: str | None, number: int) -> Experience:
    kind, got = became(suggested, truth)
    made = experience(number, prefix=request.prefix, suffix=request.suffix, final=truth, suggested=suggested or "")
    return replace(made, place=request.place, outcome=kind, implicit=got, reward=got, relevance=reward.relevance(got))


def served(
    morning: Morning, visits: Sequence[days.Visit], *, work: bool
) -> tuple[list[Experience], dict[UUID, tuple[Snippet, ...]]]:
    """The lines of some visits, and what stood in the prompt of each.

    Args:
        work: suggest, and remember what became of it; else only look.
    """
    made, memories, never = [], {}, threading.Event()
    for visit in visits:
        for ask in visit.asks:
            request, truth = morning.request(visit, ask), visit.truth(ask)
            shown = writing._recalled(morning.desk, request, never).snippets
            suggested = None
            if work:
                found = writing.suggest(morning.desk, replace(request, snippets=shown), never, "inline")
                suggested = None if found is None else found.text
            item = lived(request, truth, suggested, len(made))
            made.append(item)
            memories[item.id] = shown
            if work:
                morning.remember(item)
    return made, memories


def felt(prompts: Mapping[UUID, Remembered], change: Callable[[Span], float]) -> dict[UUID, Remembered]:
    """The prompts with another satisfaction for each memory."""
    return {
        id: replace(one, spans=tuple(replace(span, satisfaction=change(span)) for span in one.spans))
        for id, one in prompts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="textual")
    parser.add_argument("--old", default="0.40.0")
    parser.add_argument("--new", default="0.60.0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--morning", type=int, default=300)
    parser.add_argument("--heldout", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--plastic", action="store_true")
    args = parser.parse_args()
    pair = sources.package(args.package, args.old, args.new, Path(".eval/wheels"))
    parts = days.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
    desk = worker._load(BaseConfig(model=args.base, device="cpu", threads=1, context_tokens=CONTEXT))
    base, builder = desk.base, desk.builder
    completion = CompletionConfig(multiline=False, min_mean_logprob=-100.0)
    config = Config(home=Path(".eval"), completion=completion)
    morning = Morning(desk, config)
    began = time.monotonic()
    with torch.inference_mode():
        learned, stood = served(morning, parts.morning, work=True)
        held_out, stands = served(morning, parts.held_out, work=False)
    stop = threading.Event()
    learn = prompts_of(builder, learned, stood, config, stop)
    judged = prompts_of(builder, held_out, stands, config, stop)
    rewards = [span.satisfaction for one in learn.values() for span in one.spans]
    print(f"Something remembered stands in {len(learn)} of {len(learned)} prompts of the morning")
    print(f"and in {len(judged)} of {len(held_out)} held-out ones (served in {time.monotonic() - began:.0f} s).")
    print(f"Its satisfaction: {statistics.mean(rewards):.2f} +- {statistics.pstdev(rewards):.2f}", flush=True)
    shape = mechanism.prepare(base.model)
    held = {item.id: item for item in held_out}
    last = {id: len(one.sample.ids) - one.sample.loss_start - 1 for id, one in judged.items()}  # without its end
    standard = {id: attention.nats(base.model, one, None, last=last[id]) for id, one in judged.items()}
    size = {id: len(held[id].final_text.encode()) for id in judged}
    total = math.log(2) * sum(size.values())
    print(f"standard attention: {sum(standard.values()) / total:.4f} bits per byte", flush=True)
    values = rewards.copy()
    random.Random(args.seed).shuffle(values)
    chance = random.Random(args.seed + 1)
    variants: dict[str, Callable[[Span], float]] = {
        "learned": lambda span: span.satisfaction,
        "shuffled": lambda _: chance.choice(values),
        "the same for all": lambda _: 1.0,
    }
    if args.plastic:
        variants = dict.fromkeys(("learned", "plastic"), variants["learned"])
    for name, change in variants.items():
        prompts, judges = felt(learn, change), felt(judged, change)
        centre = 0.0 if name == "the same for all" else attention.centre_of(list(prompts.values()))
        recipe = Recipe(learning_rate=args.rate, epochs=args.epochs, seed=args.seed)
        start = mechanism.Gains.none(shape, centre)
        began = time.monotonic()
        learn_gains = (plastic_gains if name == "plastic" else attention).learn
        gains, position = learn_gains(base.model, list(prompts.values()), start, recipe, stop=stop)
        seconds = time.monotonic() - began
        for title, acts in ((name, gains), (f"{name}, trace zeroed", plastic_gains.zeroed(gains))):
            if acts is None:
                continue
            nats = {id: attention.nats(base.model, one, acts, last=last[id]) for id, one in judges.items()}
            scored = [Scored(file_of(held[id]), size[id], standard[id], nats[id]) for id in judged]
            low, high = interval(scored, args.seed)
            change_of = sum(nats.values()) / sum(standard.values()) - 1
            print(
                f"{title}: {sum(nats.values()) / total:.4f} ({change_of:+.2%}, {-high:+.2%} to {-low:+.2%}); |g| "
                f"{acts.values.abs().mean():.3f}, {position.step} steps in {seconds:.0f} s",
                flush=True,
            )
        if gains.parts:
            trace, alpha = (gains.parts[part].abs().mean() for part in ("hebb", "alpha"))
            print(f"|Hebb| {trace:.3f}, |alpha| {alpha:.3f}, v {gains.parts['v'].tolist()}", flush=True)


if __name__ == "__main__":
    main()

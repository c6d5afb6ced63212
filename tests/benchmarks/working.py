"""Does working memory help? The next lines of real projects, typed at a desk where the other files lie open.

    python -m tests.benchmarks.working --package textual=0.40.0,0.60.0 --heldout 40 --seed 0

The project's older release lies on disk; the morning's changes are typed in, file after file, and stay open; then the
held-out lines are asked for, with nothing recorded and no adapters. Printed for each way of serving: bits per UTF-8
byte, exact lines, in how many prompts a piece stood, and, against the same without, the change with its 95 % interval
(bootstrap by file).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from npllm.config import Config, MemoryConfig
from npllm.evaluation import metrics, plan
from npllm.evaluation.ablation import desk
from npllm.evaluation.hands import walk
from npllm.evaluation.metrics import LineResult
from tests.benchmarks.served import PACKAGE, fresh_home, prepared, served, told

WAYS: dict[str, tuple[str | None, MemoryConfig]] = {  # by name: what it is compared with
    "continuations": (None, MemoryConfig(working=False)),
    "+ working memory": ("continuations", MemoryConfig(working=True)),
    "neither": (None, MemoryConfig(continuations=False, working=False)),
    "working memory alone": ("neither", MemoryConfig(continuations=False, working=True)),
}


class Tabs(desk.Desk):
    """A window in which no document is closed."""

    def open(self, path: str, text: str, language: str) -> str:
        uri = super().open(path, text, language)
        self.assistant.opened(self._place(uri, 0), text)
        return uri

    def close(self, uri: str) -> None:
        """It stays open, behind the next one."""


async def written(config: Config, workspace: Path, parts: plan.Plan, *, ask: bool, budget_s: float) -> list[LineResult]:
    """The held-out lines with one way of serving, after the morning was typed."""
    made: list[LineResult] = []
    began = time.monotonic()
    async with desk.awake(config) as assistant:
        tabs = Tabs(assistant, workspace)
        for visit in parts.morning:
            async with aclosing(walk(tabs, visit)) as stops:
                async for _ in stops:
                    pass
        for visit in parts.held_out:
            async with aclosing(served(tabs, visit, ask=ask)) as results:
                async for line in results:
                    made.append(line)
                    if time.monotonic() - began > budget_s:
                        return made
    return made


def exact(found: Sequence[LineResult]) -> int:
    """How many lines were suggested as they were then written."""
    return sum(metrics.is_exact(line.offered, line.truth) for line in found)


async def measured(args: argparse.Namespace, spec: str, home: Path) -> dict[str, list[LineResult]]:
    config, workspace, parts = prepared(spec, home, morning=args.morning, held_out=args.heldout, seed=args.seed)
    found: dict[str, list[LineResult]] = {}
    print(f"{spec}, seed {args.seed}:", flush=True)
    for way in args.ways:
        against, memory = WAYS[way]
        memory = replace(memory, record=False, wait_ms=60_000, token_budget=args.budget)
        made = await written(
            replace(config, memory=memory), workspace, parts, ask=not args.score_only, budget_s=args.seconds
        )
        before = found.get(against or "")
        found[way] = made
        if before is not None:  # both of the lines that both have had time for
            made, before = made[: len(before)], before[: len(made)]
        print(told(way, made, before, ask=not args.score_only), f"{exact(made)} of {len(made)} exact", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", metavar="NAME=OLD,NEW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--morning", type=int, default=100)
    parser.add_argument("--heldout", type=int, default=40)
    parser.add_argument("--budget", type=int, default=MemoryConfig().token_budget)
    parser.add_argument("--seconds", type=float, default=3600.0, help="then a way of serving is cut short")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=["continuations", "+ working memory"])
    parser.add_argument("--score-only", action="store_true", help="ask for no suggestions: bits per byte alone")
    args = parser.parse_args()
    for spec in args.package or [PACKAGE]:
        with fresh_home() as home:
            asyncio.run(measured(args, spec, home))


if __name__ == "__main__":
    main()

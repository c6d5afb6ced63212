"""Does the index of the project's code help? The next lines of real projects, through the path that serves.

    python -m tests.benchmarks.index --package textual=0.40.0,0.60.0 --heldout 60 --seed 0

The project's older release lies on disk and is indexed by the real process; the held-out lines are written on top of
it, one after the other, with nothing recorded and no adapters. Printed for each way of serving: bits per UTF-8 byte,
the share of characters saved, in how many prompts code of the index stood, and, against the same without the index, the
change with its 95 % interval (bootstrap by file). Releases are downloaded once, into `.eval/wheels`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path

from npllm.config import Config, MemoryConfig
from npllm.evaluation import plan
from npllm.evaluation.ablation.desk import Desk, awake
from npllm.evaluation.metrics import LineResult
from tests.benchmarks.served import PACKAGE, fresh_home, prepared, served, told

WAYS: dict[str, tuple[str | None, MemoryConfig]] = {  # by name: what it is compared with
    "continuations": (None, MemoryConfig()),
    "+ index, identifiers": ("continuations", MemoryConfig(index="identifiers")),
    "+ index, fused": ("continuations", MemoryConfig(index="identifiers+meaning")),
    "neither": (None, MemoryConfig(continuations=False)),
    "index alone, fused": ("neither", MemoryConfig(continuations=False, index="identifiers+meaning")),
}


async def written(config: Config, workspace: Path, visits: Sequence[plan.Visit], *, ask: bool) -> list[LineResult]:
    """The held-out lines with one way of serving."""
    made: list[LineResult] = []
    async with awake(config) as assistant:
        desk = Desk(assistant, workspace)
        began = time.monotonic()
        await assistant.resources.indexed(str(workspace), 3600)
        print(f"    indexed after {time.monotonic() - began:.1f} s: {assistant.resources.indexer.state}", flush=True)
        for visit in visits:
            async with aclosing(served(desk, visit, ask=ask)) as results:
                made += [line async for line in results]
    return made


async def measured(args: argparse.Namespace, spec: str, home: Path) -> dict[str, list[LineResult]]:
    config, workspace, parts = prepared(spec, home, morning=args.morning, held_out=args.heldout, seed=args.seed)
    found: dict[str, list[LineResult]] = {}
    print(f"{spec}, seed {args.seed}:", flush=True)
    for way in args.ways or WAYS:
        against, memory = WAYS[way]
        memory = replace(memory, record=False, wait_ms=60_000, token_budget=args.budget, snippets=args.snippets)
        found[way] = await written(replace(config, memory=memory), workspace, parts.held_out, ask=args.ask)
        print(told(way, found[way], found.get(against or ""), ask=args.ask), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", metavar="NAME=OLD,NEW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--morning", type=int, default=200)
    parser.add_argument("--heldout", type=int, default=60)
    parser.add_argument("--budget", type=int, default=MemoryConfig().token_budget)
    parser.add_argument("--snippets", type=int, default=MemoryConfig().snippets)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), metavar="WAY")
    parser.add_argument("--ask", action="store_true", help="also ask for suggestions: characters saved")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="append every line's result there, as JSON")
    args = parser.parse_args()
    pooled: dict[str, list[LineResult]] = {}
    for spec in args.package or [PACKAGE]:
        with fresh_home() as home:
            found = asyncio.run(measured(args, spec, home))
        for way, made in found.items():
            pooled.setdefault(way, []).extend(replace(line, cluster=f"{spec}:{line.path}") for line in made)
        if args.lines is not None:
            with args.lines.open("a", encoding="utf-8") as stream:
                for way, made in found.items():
                    stream.writelines(json.dumps([spec, args.seed, way, asdict(line)]) + "\n" for line in made)
    if len(args.package or ()) > 1:
        print("all together:")
        for way, made in pooled.items():
            print(told(way, made, pooled.get(WAYS[way][0] or ""), ask=args.ask))


if __name__ == "__main__":
    main()

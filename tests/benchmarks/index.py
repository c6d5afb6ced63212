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
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path

from npllm.config import Config, MemoryConfig
from npllm.evaluation import lines, metrics, plan, sources
from npllm.evaluation.ablation.desk import Desk, awake
from npllm.evaluation.hands import walk
from npllm.evaluation.metrics import LineResult
from npllm.memory.postgres import destroy

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
            async with aclosing(walk(desk, visit)) as stops:
                async for stop in stops:
                    asked = time.perf_counter()
                    offered = await desk.complete(stop.uri, stop.offset) if ask else None
                    took_ms = (time.perf_counter() - asked) * 1000
                    score = await desk.score(stop.uri, stop.offset, stop.truth)
                    made.append(
                        LineResult(
                            *(visit.path, visit.path, stop.ask.number, stop.ask.column, stop.truth),
                            *(offered.text.split("\n", 1)[0] if offered else None, score.nats, score.utf8_bytes),
                            *(score.memories, took_ms),
                        )
                    )
    return made


def told(name: str, found: Sequence[LineResult], before: Sequence[LineResult] | None, *, ask: bool) -> str:
    bits = metrics.overall(found, metrics.bits_per_byte)
    used = sum(line.memories > 0 for line in found)
    parts = [f"  {name}: {bits:.4f} bits per byte"]
    if ask:
        parts.append(f"{metrics.overall(found, metrics.saved_share):.1%} saved")
        parts.append(f"{metrics.percentile([line.latency_ms for line in found], 0.5):.0f} ms")
    parts.append(f"code in {used} of {len(found)} prompts")
    if before is not None:
        change = metrics.difference(found, before, metrics.bits_per_byte)
        base = metrics.overall(before, metrics.bits_per_byte)
        parts.append(f"{change.value / base:+.2%} [{change.low / base:+.2%}, {change.high / base:+.2%}]")
        touched = {(line.path, line.number, line.column) for line in found if line.memories}
        if touched:
            one, other = (
                metrics.overall(
                    [line for line in each if (line.path, line.number, line.column) in touched], metrics.bits_per_byte
                )
                for each in (found, before)
            )
            parts.append(f"where code stood {one / other - 1:+.2%}")
        if ask:
            gain = metrics.difference(found, before, metrics.saved_share)
            parts.append(f"saved {gain.value:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]")
    return ", ".join(parts)


async def measured(args: argparse.Namespace, spec: str, home: Path) -> dict[str, list[LineResult]]:
    name, _, versions = spec.partition("=")
    old, new = versions.split(",")
    pair = sources.package(name, old, new, Path(".eval/wheels"))
    parts = plan.make(lines.changes(pair), morning=args.morning, held_out=args.heldout, seed=args.seed)
    workspace = home / "workspace" / name
    sources.unpack(pair.old, workspace)
    config = Config(home=home)
    config = replace(
        config,
        base=replace(config.base, threads=1),
        completion=replace(config.completion, multiline=False, min_mean_logprob=-100.0, timeout_ms=120_000),
        pacing=replace(config.pacing, enabled=False),
        sleep=replace(config.sleep, enabled=False),
        cerebellum=replace(config.cerebellum, enabled=False),
    )
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
    for spec in args.package or ["textual=0.40.0,0.60.0"]:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            home.mkdir(mode=0o700)
            try:
                found = asyncio.run(measured(args, spec, home))
            finally:
                destroy(home)
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

"""What the benchmarks that serve held-out lines in several ways share: the project, the lines, one line of a report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path

from npllm.config import Config
from npllm.evaluation import lines, metrics, plan, sources
from npllm.evaluation.ablation.desk import Desk
from npllm.evaluation.hands import walk
from npllm.evaluation.metrics import LineResult
from npllm.memory.postgres import destroy

PACKAGE = "textual=0.40.0,0.60.0"


@contextmanager
def fresh_home() -> Iterator[Path]:
    """A data folder of its own, and its database, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        try:
            yield home
        finally:
            destroy(home)


def prepared(spec: str, home: Path, *, morning: int, held_out: int, seed: int) -> tuple[Config, Path, plan.Plan]:
    """Settings that serve alone, the older release of `spec` (NAME=OLD,NEW) on disk, and what is typed in it.

    Releases are downloaded once, into `.eval/wheels`.
    """
    name, _, versions = spec.partition("=")
    old, new = versions.split(",")
    pair = sources.package(name, old, new, Path(".eval/wheels"))
    parts = plan.make(lines.changes(pair), morning=morning, held_out=held_out, seed=seed)
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
    return config, workspace, parts


async def served(desk: Desk, visit: plan.Visit, *, ask: bool) -> AsyncIterator[LineResult]:
    """Each held-out line of a visit: what is suggested there (if asked for), and how well it is predicted."""
    async with aclosing(walk(desk, visit)) as stops:
        async for stop in stops:
            asked = time.perf_counter()
            offered = await desk.complete(stop.uri, stop.offset) if ask else None
            took_ms = (time.perf_counter() - asked) * 1000
            score = await desk.score(stop.uri, stop.offset, stop.truth)
            yield LineResult(
                *(visit.path, visit.path, stop.ask.number, stop.ask.column, stop.truth),
                *(offered.text.split("\n", 1)[0] if offered else None, score.nats, score.utf8_bytes),
                *(score.memories, took_ms),
            )


def told(name: str, found: Sequence[LineResult], before: Sequence[LineResult] | None, *, ask: bool) -> str:
    """What one way of serving gives, and the change against another."""
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

"""What does a sleeping child cost the editor before, and in the half second after, the person comes back?

    python -m tests.benchmarks.waking --rounds 5

One process a core does the editor's side of the work (hashing). Its speed is counted over half a second without a
child, beside one that learns with all cores, and right after it was told to go. Prints ratios to the speed without a
child (1 = no slowdown; medians, and the worst round), which share of the cores the child still used in that half
second, and how long it took to be gone. Other processes on the machine blur all of it alike: compare ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psutil

from npllm.config import Config
from npllm.memory.postgres import destroy
from npllm.memory.store import Store
from npllm.sleep.protocol import Phase, Progress
from npllm.sleep.supervisor import Sleeper
from npllm.types import new_id
from tests.fixtures_sleep import config_for, from_source
from tests.tiny import make_tiny_model

WINDOW_S = 0.5


def work(count: Synchronized[int]) -> None:
    """Hash for ever, and count."""
    block = os.urandom(1 << 16)
    while True:
        for _ in range(20):
            block = hashlib.sha256(block).digest() * 2048
        with count.get_lock():
            count.value += 1


@contextmanager
def workers() -> Iterator[Synchronized[int]]:
    """One a core, at the usual priority."""
    context = multiprocessing.get_context("spawn")
    count: Synchronized[int] = context.Value("q", 0)
    running = [context.Process(target=work, args=(count,), daemon=True) for _ in range(os.cpu_count() or 1)]
    for one in running:
        one.start()
    try:
        yield count
    finally:
        for one in running:
            one.kill()
            one.join()


async def speed(count: Synchronized[int]) -> float:
    """Units of work a second, over one window."""
    began, before = time.monotonic(), count.value
    await asyncio.sleep(WINDOW_S)
    return (count.value - before) / (time.monotonic() - began)


def used(pid: int) -> float | None:
    """CPU seconds of a process, None when it has gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return times.user + times.system


async def one_round(config: Config, count: Synchronized[int]) -> tuple[float, float, float, float]:
    """Ratio beside the child and after, the child's share of all cores after, seconds until it was gone."""
    alone = statistics.mean([await speed(count), await speed(count)])
    learning = asyncio.Event()

    def heard(progress: Progress) -> None:
        if progress.phase is Phase.LEARNING and progress.step >= 2:
            learning.set()

    sleeper = Sleeper(config, on_progress=heard)
    await sleeper.start(new_id(), "measured")
    await asyncio.wait_for(learning.wait(), 600.0)
    pid = sleeper.pid
    assert pid is not None
    beside = statistics.mean([await speed(count), await speed(count)])
    before = used(pid)
    began = time.monotonic()
    leaving = asyncio.create_task(sleeper.wake("measured"))
    after = await speed(count)
    spent = used(pid)
    await leaving
    gone = time.monotonic() - began
    share = 0.0 if spent is None or before is None else (spent - before) / WINDOW_S / (os.cpu_count() or 1)
    return beside / alone, after / alone, share, gone


async def measure(home: Path, model: Path, rounds: int, nice: int) -> None:
    threads = os.cpu_count() or 1
    config = config_for(home, model, epochs=1000, batch_tokens=2048, threads=threads, nice=nice, checkpoint_s=5.0)
    store = await Store.connect(config)
    try:
        await store.write(from_source(40))
        with workers() as count:
            await asyncio.sleep(2.0)
            found = [await one_round(config, count) for _ in range(rounds)]
    finally:
        await store.close()
    beside, after, share, gone = zip(*found, strict=True)
    print(f"speed beside the learning child   {statistics.median(beside):.2f} of that without, worst {min(beside):.2f}")
    print(f"in the half second after          {statistics.median(after):.2f}, worst {min(after):.2f}")
    print(f"the child's share of the cores    {statistics.median(share):.1%} in it, worst {max(share):.1%}")
    print(f"gone after                        {statistics.median(gone):.2f} s, worst {max(gone):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nice", type=int, default=10, help="sleep.nice of the child")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        try:
            model = make_tiny_model(Path(folder) / "base", hidden=256, layers=4)
            asyncio.run(measure(home, model, args.rounds, args.nice))
        finally:
            destroy(home)


if __name__ == "__main__":
    main()

"""`npllm bench memory`: latency, recall and insert rates of memory at several sizes.

Runs over an embedded PostgreSQL of its own, which goes at the end (`--keep` keeps it: the next run goes on from the
rows that are there, also after it was cut short). The rows are made: real embeddings and chunks of Python's library,
perturbed (`material` says how). While it searches, a busy process plays the editor (`--busy`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from npllm import config
from npllm.evaluation.bench import identifiers, material, meaning
from npllm.evaluation.bench.figures import HEADER
from npllm.evaluation.bench.material import Numbers
from npllm.memory.database import Database
from npllm.memory.embedder import Embedder
from npllm.memory.postgres import destroy
from npllm.memory.store import Store
from npllm.types import NpllmError, StoreError

REAL = 600  # embeddings that the others are made of
QUERIES = 100
FOLDER = "memory-bench"  # in which all lies that is deleted at the end
BUSY = "import json\nwhile True: json.loads(json.dumps([{'line': n, 'text': 'x' * 40} for n in range(500)]))"


def main(arguments: Sequence[str]) -> int:
    """Run `npllm bench memory ...`; its exit status.

    Raises:
        NpllmError: with cause and mend.
    """
    args = _parser().parse_args(arguments)
    home = (Path(args.folder) if args.folder else config.load().home).absolute() / FOLDER
    try:
        asyncio.run(_run(args, home))
    finally:
        if not args.keep:
            _remove(home)
    if args.keep and home.exists():
        print(f"kept: {home}. The next run goes on from it; `--sizes 0` without --keep removes it.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm bench memory", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="10000", help="rows, ascending, e.g. 10000,100000,1000000 (default: 10000)")
    parser.add_argument(
        "--folder", help="in which its database lies, in a folder of its own (default: the data folder)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the database for the next run")
    parser.add_argument(
        "--busy",
        type=int,
        default=1,
        metavar="N",
        help="processes that keep a core busy each while it searches (default: 1)",
    )
    parser.add_argument(
        "--only",
        choices=("identifiers", "meaning"),
        help="one path (default: both); the first needs no database",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _sizes(text: str) -> list[int]:
    try:
        return sorted(size for size in map(int, text.replace("_", "").split(",")) if size > 0)
    except ValueError:
        raise NpllmError(f"--sizes {text!r} are no numbers: say, e.g., 10000,100000.") from None


async def _run(args: argparse.Namespace, home: Path) -> None:
    sizes = _sizes(args.sizes)
    if not sizes:
        return
    _room_for(sizes[-1], home)
    searched, apart = material.sources(args.seed)
    real_places = material.places(searched, REAL, args.seed)
    query_places = material.places(apart, QUERIES, args.seed + 1)
    chunks = material.real_chunks(searched)
    print(
        f"{len(chunks):,} real chunks and {REAL:,} real embeddings of Python's library; the others are made by "
        f"perturbing these. {QUERIES} queries from files apart. While it searches: {args.busy} busy processes, of "
        f"its own priority ({psutil.Process().nice()}; 0 is ordinary).\n\n{HEADER}",
        flush=True,
    )
    beside = partial(_busy, args.busy)
    if args.only != "meaning":
        for size in sizes:
            for row in identifiers.measure(chunks, query_places, size, args.seed, beside):
                print(row, flush=True)
    if args.only == "identifiers":
        return
    real, queries = await _embedded([p.text for p in real_places], [p.text for p in query_places], home, args.seed)
    settings = replace(config.Config(home=home), database=config.DatabaseConfig(connect_timeout_s=60))
    store, database = await Store.connect(settings), Database(settings)
    try:
        await meaning.tidy(database)
        for size in sizes:
            if (there := (await store.counts()).experiences) > size:
                print(f"{size:>9,}  there are {there:,} rows already: left out", flush=True)
                continue
            filled = await meaning.fill(database, store, size, real, real_places, args.seed)
            with beside():
                for row in await meaning.measure(database, store, size, queries):
                    print(row, flush=True)
                rows, rate = await meaning.while_writing(store, home / "journal", size, queries, real)
            for row in rows:
                print(row, flush=True)
            await meaning.tidy(database)
            disk = (await store.looking.sizes()).bytes_by_table["experiences"] / 1e6
            made = filled.made / max(filled.copied, 1e-9)
            print(
                f"{'':>9}  {rate:,.0f} experiences/s written with the index; {made:,.0f}/s copied without, then "
                f"{filled.indexed:.0f} s to build it; {disk:,.0f} MB on disk\n",
                flush=True,
            )
    finally:
        await store.close()
        await database.close()


async def _embedded(real: list[str], queries: list[str], home: Path, seed: int) -> tuple[Numbers, Numbers]:
    """Their embeddings, kept beside the database for a run that goes on."""
    kept = home / f"embeddings-{seed}.npz"
    if kept.exists():
        with np.load(kept) as arrays:
            return arrays["real"], arrays["queries"]
    embedder = Embedder()
    made = [np.array(await embedder.embed(texts), dtype=np.float32) for texts in (real, queries)]
    embedder.close()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    np.savez(kept, real=made[0], queries=made[1])
    return made[0], made[1]


def _room_for(size: int, home: Path) -> None:
    probe = home
    while not probe.exists():
        probe = probe.parent
    needed, free = size * 6000 + 500_000_000, shutil.disk_usage(probe).free
    if free < needed:
        raise NpllmError(
            f"{size:,} rows take {needed / 1e9:.1f} GB at most, {probe} has {free / 1e9:.1f} GB: say another --folder."
        )


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Processes that leave the benchmark as much of the machine as an editor at work would."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _remove(home: Path) -> None:
    for _ in range(100):
        try:
            destroy(home)
            break
        except StoreError:  # the server is still on its way out
            time.sleep(0.1)
    shutil.rmtree(home, ignore_errors=True)

# ruff: noqa: F811
"""Full disks and kills, with what was acknowledged counted against what is stored. Real file systems, really full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from npllm import config
from npllm.assist.recorder import Recorder
from npllm.config import FeedbackConfig, JournalConfig
from npllm.memory.journal import Journal
from npllm.memory.postgres import destroy
from npllm.memory.pump import Pump
from npllm.memory.store import Store
from npllm.types import StoreError
from tests.fixtures_memory import database_url, make_suggestion, postgres, store, store_config  # noqa: F401
from tests.integration.test_memory_postgres import eventually, postmasters

PATIENCE_S = 90.0
REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of its own that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="npllm-disk-", dir="/tmp"))
    folder.chmod(0o711)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        eventually(lambda: subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0)
        folder.rmdir()


def fill(folder: Path, leaving: int = 0) -> Path:
    """Use up the room of a file system but for so many bytes; deleting what is returned gives it back."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize - leaving
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(free, 1))
    return ballast


async def until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def no_embedding(texts: list[str]) -> list[tuple[float, ...]]:
    raise StoreError("nothing is embedded here")


def pump_for(journal: Journal, store: Store, told: list[str]) -> Pump:
    async def provider() -> Store:
        return store

    return Pump(journal, provider, no_embedding, JournalConfig(flush_ms=20), told.append)


async def stored(store: Store) -> set[UUID]:
    return {record.id async for record in store.looking.records()}


@pytest.fixture
async def embedded(home: Path) -> AsyncIterator[Store]:
    """A store of its own, whose server may be killed."""
    made = await Store.connect(config.load(home))
    yield made
    await made.close()


async def test_a_full_disk_under_the_journal_loses_nothing_and_is_told(store: Store) -> None:
    with small_disk("1m") as disk:
        journal, problems = Journal(disk / "journal"), list[str]()
        recorder = Recorder(journal, FeedbackConfig(), lambda _: None, problems.append)
        recorder.start()
        records = [make_suggestion(prefix=f"{number:06} " + "x = 1\n" * 300) for number in range(200)]
        for record in records[:50]:
            recorder.suggestion(record)
        await recorder.flush()
        assert journal.backlog() == 50 and set(problems) == {""}
        ballast = fill(disk, leaving=50_000)
        for record in records[50:]:
            recorder.suggestion(record)
        await until(lambda: "cannot be written" in problems[-1])
        assert "No space left" in problems[-1] and "waits in memory" in problems[-1]
        with pytest.raises(StoreError, match="make room"):
            journal.append([make_suggestion(prefix="y" * 60_000)])
        told: list[str] = []
        pump = pump_for(journal, store, told)
        await pump.drain(0.5)  # what is on the disk already can be carried meanwhile, or not; neither loses any
        ballast.unlink()
        async with asyncio.timeout(PATIENCE_S):
            await recorder.flush()
        assert problems[-1] == ""
        assert await pump.drain(PATIENCE_S)
        assert await stored(store) == {record.id for record in records}
        await recorder.close()
        journal.close()


async def test_a_full_disk_under_the_database_loses_nothing_and_is_told(tmp_path: Path) -> None:
    with small_disk("160m") as disk:
        home = disk / "home"
        home.mkdir(mode=0o711)
        store = await Store.connect(config.load(home))
        assert (home / "postgres").resolve().is_relative_to(disk), "else another disk would be full"
        journal, told = Journal(tmp_path / "journal"), list[str]()
        pump = pump_for(journal, store, told)
        running = asyncio.create_task(pump.run())
        acknowledged: set[UUID] = set()

        async def happens(count: int) -> None:
            for _ in range(count):
                noise = random.Random(len(acknowledged)).randbytes(8_000).hex()  # so that it is not stored in less
                batch = [make_suggestion(prefix=noise) for _ in range(20)]
                await asyncio.to_thread(journal.append, batch)
                acknowledged.update(record.id for record in batch)

        await happens(5)
        await until(lambda: journal.waiting() == 0)
        ballast = fill(disk, leaving=4_000_000)
        await happens(30)
        await until(lambda: bool(told) and told[-1] != "")
        assert "waits in the journal" in told[-1]
        assert journal.backlog() > 0
        await happens(2)  # and recording goes on
        ballast.unlink()
        await until(lambda: journal.waiting() == 0)  # a full file that is being carried is in no backlog
        await until(lambda: told[-1] == "")
        assert await stored(store) == acknowledged and len(acknowledged) == 740
        running.cancel()
        journal.close()
        await store.close()
        eventually(lambda: _destroyed(home))


def _destroyed(home: Path) -> bool:
    try:
        destroy(home)
    except StoreError:
        return False
    return True


WRITER = """
import sys
from pathlib import Path
from npllm.memory.journal import Journal
from tests.fixtures_memory import make_suggestion
journal = Journal(Path(sys.argv[1]), rotate_at=20_000)
while True:
    batch = [make_suggestion() for _ in range(3)]
    journal.append(batch)
    print(*(record.id for record in batch), flush=True)
"""


def writer(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'server'}:{REPOSITORY}"},
    )


async def test_kills_at_random_moments_and_the_counts_agree(embedded: Store, home: Path, tmp_path: Path) -> None:
    """Writers and PostgreSQL are killed over and over, while others carry what the dead left."""
    folder = tmp_path / "journal"
    rng, told = random.Random(7), list[str]()
    acknowledged: set[UUID] = set()
    half_said = 0
    running = asyncio.create_task(pump_for(Journal(folder), embedded, told).run())
    for turn in range(6):
        child = writer(folder)
        assert child.stdout is not None
        first = await asyncio.to_thread(child.stdout.readline)
        await asyncio.sleep(rng.uniform(0, 0.3))
        if turn % 2:
            for postmaster in postmasters(home):
                postmaster.kill()
        await asyncio.sleep(rng.uniform(0, 0.3))
        child.send_signal(signal.SIGKILL)
        lines = (first + await asyncio.to_thread(child.stdout.read)).splitlines(keepends=True)
        child.stdout.close()
        child.wait()
        for line in lines:
            if line.endswith("\n"):
                acknowledged.update(map(UUID, line.split()))
        half_said += 3  # written, and killed before it could say so
    await until(lambda: not list(folder.glob("*.jsonl")))
    running.cancel()
    found = await stored(embedded)
    assert len(acknowledged) > 50
    assert acknowledged <= found, f"{len(acknowledged - found)} of {len(acknowledged)} are missing"
    assert len(found) <= len(acknowledged) + half_said
    assert not list(folder.glob("*.corrupt"))

"""`python -m npllm.memory.index.child`: keeps the index of some projects fresh, at low priority, apart from the server.

Standard input: a line of JSON with the settings of the database, then lines with the whole of what is wanted from then
on (`protocol.Wanted`); its end is the end. Standard output: lines that say how it stands (`protocol.Said`). It connects
to the database itself. A project that another process keeps is asked for again now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil

from npllm.config import Config, DatabaseConfig
from npllm.memory.database import Database
from npllm.memory.embedder import Embedder
from npllm.memory.embeddings import Embeddings
from npllm.memory.forgetting import Forgetting
from npllm.memory.index import protocol
from npllm.memory.index.indexing import look
from npllm.memory.index.protocol import Said, Wanted
from npllm.memory.index.records import ChunkRecords, Claims
from npllm.memory.index.watching import Watcher
from npllm.types import ModelError, NpllmError, StoreError

log = logging.getLogger(__name__)

NICE = 15
LOOK_AGAIN_S = 60.0  # at a project, whatever was heard of it
RETRY_S = 10.0  # after the database was away, and for a project that another process keeps
#: After a look at a project failed for a reason that nobody foresaw: once, twice, more often.
FAILED_S = (10.0, 60.0, 600.0)
MODEL_AGAIN_S = 600.0  # after the model could not be loaded, or as soon as something else is wanted
EMBEDDED = 16  # chunks at a time
EMBEDDED_CHARACTERS = 900  # of each, from its beginning: the model reads no more, and would take the end
REST_SHARE = 5  # times as long as a look took, so long until the next


class Keeper:
    """The process's work, on its event loop.

    Args:
        embed_with: makes an embedder of what `memory.embedder` says.
    """

    def __init__(self, database: Database, embed_with: Callable[[str], Embedder] = Embedder) -> None:
        self._embeddings = Embeddings(database)
        self._records = ChunkRecords(database, self._embeddings)
        self._forgetting = Forgetting(database)
        self._embed_with = embed_with
        self._embedder: Embedder | None = None
        self._wanted = Wanted((), False)
        self._news = asyncio.Event()
        self._heard: set[str] = set()  # projects in which something has changed
        self._due: dict[str, float] = {}  # of the projects that are ours: when to look again at the latest, monotonic
        self._rests: dict[str, float] = {}  # and at the earliest
        self._asked_again = 0.0  # when to ask for projects of other processes
        self._embed_at = 0.0  # not earlier
        self._without = ""  # why nothing is embedded
        self._outdated = False  # another embedder's vectors are in use
        self._failed: dict[str, tuple[int, str]] = {}  # projects that cannot be looked at: how often in a row, and why
        self._unforeseen = 0  # errors in a row that had to do with none
        self._done = self._said = Said(-1)

    def want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._due = dict.fromkeys(self._due, 0.0)
        self._rests.clear()
        self._asked_again = self._embed_at = 0.0
        self._without = ""
        self._news.set()

    async def run(self) -> None:
        """Keep the index until cancelled."""
        watcher = Watcher(self._changed)
        try:
            while True:
                try:
                    async with self._records.claim() as claims:
                        await self._keep(claims, watcher)
                except NpllmError as error:
                    self._say(problem=str(error))
                    rest = RETRY_S
                except Exception as error:
                    log.exception("the index could not be kept")
                    self._say(problem=f"The index of the projects' code cannot be kept: {error}. It is tried again.")
                    rest = _rest(self._unforeseen)
                    self._unforeseen += 1
                for project in self._due:
                    watcher.leave(project)
                self._due.clear()
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), rest)
        finally:
            watcher.close()
            if self._embedder is not None:
                self._embedder.close()

    def _changed(self, project: str) -> None:
        self._heard.add(project)
        self._news.set()

    async def _keep(self, claims: Claims, watcher: Watcher) -> None:
        while True:
            if claims.lost:
                raise StoreError("The connection to the database was lost.")
            self._news.clear()
            wanted = self._wanted
            await self._claim(claims, watcher, wanted)
            for project in self._to_look_at():
                await self._try(project, watcher)
                self._say()  # it works again
            if self._news.is_set() or (wanted.embed and await self._embed(wanted)):
                continue
            if not self._to_look_at():
                done = not (self._failed or (wanted.embed and self._outdated))
                self._say(number=wanted.number if done else None)
                self._unforeseen = 0
                await self._wait()

    async def _claim(self, claims: Claims, watcher: Watcher, wanted: Wanted) -> None:
        for project in set(self._due) - set(wanted.projects):
            watcher.leave(project)
            del self._due[project]
            self._failed.pop(project, None)
            await claims.give_back(project)
        if time.monotonic() >= self._asked_again:
            for project in wanted.projects:
                if project not in self._due and await claims.take(project):
                    self._due[project] = 0.0
            self._asked_again = time.monotonic() + RETRY_S
        for project in self._failed.keys() - self._due.keys():
            del self._failed[project]  # another process has it now

    def _to_look_at(self) -> list[str]:
        now = time.monotonic()
        return [
            project
            for project, due in self._due.items()
            if now >= due or (project in self._heard and now >= self._rests.get(project, 0.0))
        ]

    async def _try(self, project: str, watcher: Watcher) -> None:
        """Look at a project. What nobody foresaw stops the index of no other, and is tried less and less often."""
        wanted = self._wanted
        try:
            await self._look(project, watcher)
        except NpllmError:  # the database is away: for all of them
            raise
        except Exception as error:
            log.exception("%s could not be looked at", project)
            times = self._failed.get(project, (0, ""))[0]
            self._failed[project] = times + 1, f"The index of {project} cannot be kept: {error}. It is tried again."
            if self._wanted is wanted:  # else it is due again: what is wanted now may mend it
                self._due[project] = self._rests[project] = time.monotonic() + _rest(times)
        else:
            self._failed.pop(project, None)

    async def _look(self, project: str, watcher: Watcher) -> None:
        began, wanted = time.monotonic(), self._wanted
        self._heard.discard(project)
        limits = await self._forgetting.off_limits()
        looked = await look(
            project, self._records, wanted.ignore, limits, lambda: self._wanted is wanted, keep=wanted.keep
        )
        if self._wanted is not wanted:
            return  # it is due again
        if watcher.watch(project, looked.folders):
            self._heard.add(project)
        now = time.monotonic()
        if looked.read or looked.gone:
            log.info(
                "%s: %d files, %d read, %d gone, %.1f s", project, looked.files, looked.read, looked.gone, now - began
            )
        self._due[project] = now + max(LOOK_AGAIN_S, REST_SHARE * (now - began))
        self._rests[project] = now + REST_SHARE * (now - began)
        self._done = replace(self._done, files=self._done.files + looked.files, read=self._done.read + looked.read)

    async def _embed(self, wanted: Wanted) -> bool:
        """Embed some chunks; False when there was nothing to embed."""
        if time.monotonic() < self._embed_at:
            return False
        found = await self._records.without_embedding([*self._due], EMBEDDED)
        if not found:
            return False
        embedder = self._embedder = self._embedder or self._embed_with(wanted.embedder)
        try:
            self._embeddings.mine = self._embeddings.mine or await embedder.fingerprint()
            self._outdated = not await self._embeddings.in_use()
            if self._outdated:  # it is being changed, or another process has changed it
                return self._other_embedder(wanted, RETRY_S)
            vectors = await embedder.embed([content[:EMBEDDED_CHARACTERS] for _, content in found])
        except StoreError:
            raise
        except Exception as error:  # the rest of the index does without
            if not isinstance(error, ModelError):
                log.exception("nothing could be embedded")
            self._without = str(error) or repr(error)
            return self._other_embedder(wanted, MODEL_AGAIN_S)
        self._without = ""
        await self._records.embed({hash: vector for (hash, _), vector in zip(found, vectors, strict=True)})
        self._done = replace(self._done, embedded=self._done.embedded + len(found))
        return True

    def _other_embedder(self, wanted: Wanted, rest_s: float) -> bool:
        """Take the one that is wanted by now in the place of one that is of no use; False where it is the same."""
        assert self._embedder is not None
        if self._embedder.name == wanted.embedder:
            self._embed_at = time.monotonic() + rest_s
            return False
        self._embedder.close()
        self._embedder, self._embeddings.mine, self._without = None, None, ""
        return True

    async def _wait(self) -> None:
        """Until there is something to do."""
        now = time.monotonic()
        times = [*self._due.values(), *(self._rests.get(project, now) for project in self._heard)]
        if set(self._wanted.projects) - set(self._due):
            times.append(self._asked_again)
        if self._wanted.embed and self._embed_at > now:
            times.append(self._embed_at)
        try:
            await asyncio.wait_for(self._news.wait(), timeout=max(0.05, min(times, default=now + LOOK_AGAIN_S) - now))
        except TimeoutError:
            pass

    def _say(self, *, number: int | None = None, problem: str = "") -> None:
        """How it stands now, unless that was the last thing said."""
        failed = next((why for _, why in self._failed.values()), "")
        self._done = replace(
            self._done,
            number=self._done.number if number is None else number,
            problem=problem or failed or self._without,
        )
        if self._done != self._said:
            self._said = self._done
            sys.stdout.buffer.write(protocol.encode(self._said))
            sys.stdout.buffer.flush()


async def _serve(home: Path) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = json.loads(await lines.readline())
    config = Config(home=home, database=DatabaseConfig(**settings["database"]))
    database = Database(config)
    keeper = Keeper(database, partial(Embedder, threads=settings["threads"]))
    work = asyncio.create_task(keeper.run())
    try:
        while line := await lines.readline():
            keeper.want(protocol.wanted(line))
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await database.close()


def _rest(failures: int) -> float:
    """How long not to try again after so many failures before this one."""
    return FAILED_S[min(failures, len(FAILED_S) - 1)]


def _give_way() -> None:
    """The person's programs come first, for the CPU and for the disk."""
    try:
        process = psutil.Process()
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
            return
        process.nice(NICE)
        if sys.platform == "linux":
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError) as error:  # a container may forbid it
        log.info("the priority stays as it is: %s", error)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")  # to stderr
    _give_way()
    asyncio.run(_serve(args.home))


if __name__ == "__main__":
    main()

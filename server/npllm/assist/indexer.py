"""The server's hold on the process that keeps the index of the projects' code (`npllm.memory.index.child`).

Started when the first project is opened, told what is wanted, started again when it dies; it ends with its standard
input. All methods are called on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable

from npllm.config import Config
from npllm.logs import LogFile
from npllm.memory.index import protocol
from npllm.memory.index.protocol import Said, Wanted

log = logging.getLogger(__name__)

PROJECTS = 8  # whose index is kept, those opened last
AGAIN_S = (1.0, 10.0, 60.0, 600.0)  # how long after its death the process is started again
GRACE_S = 2.0  # between the end of its input and its death


class Indexer:
    """At most one process at a time.

    Args:
        on_problem: called with a sentence, "" when all is well again.
    """

    def __init__(self, config: Config, on_problem: Callable[[str], None] = lambda _: None) -> None:
        self._config = config
        self._on_problem = on_problem
        self._projects: list[str] = []
        self._number = 0
        self._process: Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._said = asyncio.Condition()
        self.state = Said(-1)

    @property
    def wanted(self) -> bool:
        return self._config.memory.enabled and self._config.memory.index != "off"

    @property
    def pid(self) -> int | None:
        """The process's id, or None."""
        return self._process.pid if self._process else None

    def open(self, project: str) -> None:
        """Keep a project's index from now on."""
        if not project or not self.wanted or project in self._projects:
            return
        self._projects = [*self._projects, project][-PROJECTS:]
        self._tell()
        if self._life is None:
            self._life = asyncio.create_task(self._live(), name="npllm-indexer")

    def look_again(self) -> None:
        """What is off limits, or to be ignored, may have changed."""
        if self._projects:
            self._tell()

    async def settled(self, timeout_s: float) -> bool:
        """Wait until the index of all open projects is as their files are now; False when that did not come in time."""
        if self._life is None:
            return True
        self._tell()
        number = self._number
        try:
            async with asyncio.timeout(timeout_s), self._said:
                await self._said.wait_for(lambda: self.state.number >= number or self._life is None)
        except TimeoutError:
            return False
        return self.state.number >= number

    async def configure(self, config: Config) -> None:
        """Take new settings."""
        old, self._config = self._config, config
        if not self.wanted:
            await self.close()
            self._projects = []
        elif config.memory != old.memory:
            self.look_again()

    async def close(self) -> None:
        """End the process."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    def _tell(self) -> None:
        self._number += 1
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it has died: the next one is told
                self._process.stdin.write(protocol.encode(self._word()))

    def _word(self) -> Wanted:
        memory = self._config.memory
        meaning = memory.index == "identifiers+meaning"
        return Wanted(tuple(self._projects), meaning, memory.ignore, self._number, memory.keep_chunks, memory.embedder)

    async def _live(self) -> None:
        deaths = 0
        while True:
            try:
                process = await self._start()
            except OSError as error:
                self._on_problem(f"The process that indexes the projects' code cannot be started: {error}.")
            else:
                try:
                    if await self._listen(process):
                        deaths = 0
                finally:
                    self._process = None
                    await _end(process)
                log.warning("the process that indexes the projects' code ended; see logs/index.log")
            await asyncio.sleep(AGAIN_S[min(deaths, len(AGAIN_S) - 1)])
            deaths += 1

    async def _start(self) -> Process:
        home = self._config.home
        with LogFile(home, "index") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "npllm.memory.index.child", "--home", str(home)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr or DEVNULL,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"},
                cwd=home,  # and -P: nothing in the person's project is ever imported
            )
        assert process.stdin is not None
        memory = self._config.memory
        settings = {"database": dataclasses.asdict(self._config.database), "threads": memory.threads}
        process.stdin.write(json.dumps(settings).encode() + b"\n" + protocol.encode(self._word()))
        self._process = process
        return process

    async def _listen(self, process: Process) -> bool:
        """Until it ends. Whether it has done what was wanted in between."""
        assert process.stdout is not None
        served = False
        while line := await _line(process.stdout):
            try:
                said = protocol.said(line)
            except (ValueError, TypeError):  # of a library that prints
                log.warning("the process that indexes the projects' code said what is no message: %.200r", line)
                continue
            served = served or (said.number >= 0 and not said.problem)
            if said.problem:
                log.warning("the index: %s", said.problem)
            self._on_problem(said.problem)
            async with self._said:
                self.state = said
                self._said.notify_all()
        return served


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or what there is of one that is too long; b"" at the end."""
    try:
        return await stream.readline()
    except ValueError:
        return b"(too long)\n"


async def _end(process: Process) -> None:
    """Let it end by itself; it holds nothing that cannot be cut short."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), GRACE_S)
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

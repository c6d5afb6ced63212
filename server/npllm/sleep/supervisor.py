"""The parent's hold on the sleeping child: starts it, hears it, sends it away.

The child gets the settings as the first line of its standard input, which then stays open as long as we live; what
it says comes on its standard output (`protocol`), what it complains of goes to `logs/sleep.log`. Knows nothing of
when to sleep. All methods are called on the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from npllm.config import SECTIONS, Config
from npllm.logs import LogFile
from npllm.sleep.process import give_way, let_die, threads
from npllm.sleep.protocol import Ending, Failed, Finished, NotAMessage, Progress, decode
from npllm.sleep.report import Report
from npllm.types import NpllmError

log = logging.getLogger(__name__)

GRACE_S = 1.9  # between SIGTERM and SIGKILL, so that it is gone within 2 s
_LINE_BYTES = 1 << 22


class SleepError(NpllmError):
    """Sleep cannot begin, or went wrong."""


class SleeperState(enum.Enum):
    """Where the child is in its life."""

    ABSENT = "absent"
    STARTING = "starting"  # the process is there, and has not said anything yet
    WORKING = "working"
    LEAVING = "leaving"  # it was told to go


@dataclass(frozen=True, slots=True)
class Ended:
    """How a sleep ended; `text` says it in a sentence or a few."""

    ending: Ending
    text: str
    report: Report | None = None


class Sleeper:
    """At most one child at a time.

    Args:
        on_progress: called for each progress line.
        on_end: called once for each child that has gone.
    """

    def __init__(
        self,
        config: Config,
        *,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_end: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        self.config = config
        self.progress: Progress | None = None
        self.state = SleeperState.ABSENT
        self._on_progress = on_progress
        self._on_end = on_end
        self._process: Process | None = None
        self._life: asyncio.Task[Ended] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None."""
        return self._process.pid if self._process else None

    async def start(self, run_id: UUID, reason: str) -> None:
        """Start the child.

        Args:
            run_id: the id of the consolidation, unless an interrupted one is resumed.
            reason: for the log.

        Raises:
            SleepError: one is there already, or it cannot be started.
        """
        if self.state is not SleeperState.ABSENT:
            raise SleepError("The assistant is asleep already.")
        self.state = SleeperState.STARTING
        self.progress = None
        log.info("sleep %s begins: %s", run_id, reason)
        command = [sys.executable, "-P", "-m", "npllm.sleep.child", "--home", str(self.config.home)]
        command += ["--run-id", str(run_id), "--parent", str(os.getpid())]
        try:
            with LogFile(self.config.home, "sleep") as stderr:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=stderr or DEVNULL,
                    env=_environment(self.config),
                    cwd=self.config.home,  # and -P: nothing in the person's project is ever imported
                    limit=_LINE_BYTES,
                )
        except OSError as error:
            self.state = SleeperState.ABSENT
            raise SleepError(f"The sleeping process cannot be started: {error}.") from error
        self._life = asyncio.create_task(self._live(self._process), name="sleeper")

    async def wake(self, reason: str) -> None:
        """Send the child away, if there is one, and return when it is gone: checkpoint within `GRACE_S`, or killed."""
        process, life = self._process, self._life
        if process is None or life is None:
            return
        if self.state is not SleeperState.LEAVING:
            log.info("sleep is cut short: %s", reason)
            self.state = SleeperState.LEAVING
            give_way(process.pid)  # the person has the CPU from now on
            _terminate(process)
        done, _ = await asyncio.wait({life}, timeout=GRACE_S)
        if not done and process.returncode is None:
            log.warning("the sleeping process did not go within %s s and is killed", GRACE_S)
            process.kill()
            let_die(process.pid)
        await asyncio.wait({life})

    async def wait(self) -> Ended | None:
        """Return how it ended when it has; None if there is no child."""
        return await asyncio.shield(self._life) if self._life else None

    async def _live(self, process: Process) -> Ended:
        ended = Ended(Ending.FAILED, "The sleeping process ended without a word; see logs/sleep.log.")
        try:
            ended = await self._listen(process)
        except Exception as error:  # a bug of ours must not leave a child that nobody hears
            log.exception("listening to the sleeping process failed")
            ended = Ended(Ending.FAILED, f"Listening to the sleeping process failed: {error}.")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._process = None
            self._life = None
            self.state = SleeperState.ABSENT
            self.progress = None
            log.info("sleep ended: %s. %s", ended.ending.value, ended.text)
            self._on_end(ended)
        return ended

    async def _listen(self, process: Process) -> Ended:
        assert process.stdin is not None and process.stdout is not None
        said: Finished | Failed | None = None
        try:
            process.stdin.write(json.dumps(settings_of(self.config)).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            log.warning("the sleeping process did not take its settings")
        while line := await process.stdout.readline():
            try:
                message = decode(line.decode("utf-8", "replace"))
            except NotAMessage as error:
                log.warning("the sleeping process said something odd: %s", error)
                continue
            if isinstance(message, Progress):
                if self.state is SleeperState.STARTING:
                    self.state = SleeperState.WORKING
                self.progress = message
                self._on_progress(message)
            else:
                said = message
        code = await process.wait()
        return _ended(code, said, told_to_go=self.state is SleeperState.LEAVING)


def settings_of(config: Config) -> Mapping[str, Mapping[str, object]]:
    """All settings as the child takes them: they may come from the editor, and then are in no file."""
    return {section: dataclasses.asdict(getattr(config, section)) for section in SECTIONS}


def _ended(code: int, said: Finished | Failed | None, *, told_to_go: bool) -> Ended:
    if isinstance(said, Finished):
        return Ended(said.ending, said.summary, said.report)
    if isinstance(said, Failed):
        return Ended(Ending.FAILED, said.reason)
    if told_to_go or code == Ending.INTERRUPTED.exit_code:
        return Ended(Ending.INTERRUPTED, "It goes on from its last checkpoint the next time.")
    return Ended(
        Ending.of_exit_code(code) if code > 1 else Ending.FAILED,
        f"The sleeping process ended with status {code}; see logs/sleep.log. It goes on from its last checkpoint.",
    )


def _terminate(process: Process) -> None:
    try:
        if sys.platform == "win32":  # there is no SIGTERM to catch; the end of its input means the same
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
    except ProcessLookupError:
        pass  # gone already


def _environment(config: Config) -> dict[str, str]:
    count = str(threads(config.sleep.threads))
    return {
        **os.environ,
        "NPLLM_HOME": str(config.home),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not eat the CPU of whoever is awake
        "TOKENIZERS_PARALLELISM": "false",
    }


def describe(progress: Progress) -> str:
    """A progress message for people, e.g. "learning language:python 12/80, 1.93 nats a token, 40 s left"."""
    words = [progress.phase.value]
    if progress.context:
        words.append(progress.context)
    if progress.total:
        words.append(f"{progress.step}/{progress.total}")
    text = " ".join(words)
    if progress.loss is not None:
        text += f", {progress.loss:.2f} nats a token"
    if progress.tokens_per_s is not None:
        text += f", {progress.tokens_per_s:.0f} tokens/s"
    if progress.seconds_left is not None:
        text += f", {time_left(progress.seconds_left)} left"
    return text


def time_left(seconds: float) -> str:
    """Seconds, or from 100 of them on minutes, e.g. "40 s", "7 min"."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

"""The sleeping process: `python -m npllm.sleep.child --home FOLDER --run-id ID [--parent PID]`.

Says how far it is on standard output, one message a line (`protocol`); everything else that would be printed goes to
standard error. SIGTERM, SIGINT or the parent's end mean: keep the state and be gone within two seconds. Exit status:
0 done, 1 failed, 3 interrupted, 4 nothing to do, 5 somebody else is at it. Imports torch late, and only in a thread, so
that signals are heard.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO
from uuid import UUID

from npllm import config as settings
from npllm.config import Config
from npllm.sleep import process
from npllm.sleep.protocol import Ending, Failed, Finished, Message, encode
from npllm.types import NpllmError

log = logging.getLogger(__name__)

HELD = "Another sleep, or a command that changes what was learned, is at work; nothing was done."
LAST_WORD_S = 1.6  # after being told to go; what is not kept by then is as old as the last checkpoint


class Voice:
    """Standard output, for messages alone. Safe to use from any thread."""

    def __init__(self) -> None:
        # What libraries print must not come between: file descriptor 1 becomes standard error.
        self._stream: TextIO | None = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def __call__(self, message: Message) -> None:
        with self._lock:
            if self._stream is None:
                return
            try:
                self._stream.write(encode(message) + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._stream = None  # nobody listens any more; `Leaving` hears of that in its own way


class Leaving:
    """Told once that it is time to go; then at most `LAST_WORD_S` are left."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.problem = ""  # why it is time, where that is no person's doing
        self._wakers: list[Callable[[], object]] = []

    def on(self, waker: Callable[[], object]) -> None:
        """Call `waker` when it is time, from any thread."""
        self._wakers.append(waker)
        if self.stop.is_set():
            waker()

    def now(self, *_: object) -> None:
        """It is time. Also a signal handler."""
        if self.stop.is_set():
            return
        self.stop.set()
        timer = threading.Timer(LAST_WORD_S, os._exit, (Ending.INTERRUPTED.exit_code,))
        timer.daemon = True
        timer.start()
        for waker in self._wakers:
            waker()


def main(argv: Sequence[str] | None = None) -> int:
    """Sleep; the exit status."""
    parser = argparse.ArgumentParser(prog="npllm.sleep.child")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run-id", type=UUID, required=True)
    parser.add_argument("--parent", type=int, help="the settings come on standard input; go when this process ends")
    args = parser.parse_args(argv)
    leaving = Leaving()
    signal.signal(signal.SIGTERM, leaving.now)
    signal.signal(signal.SIGINT, leaving.now)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    say = Voice()
    if args.parent is not None:
        process.die_with(args.parent)
    try:
        config = _config(args.home, from_parent=args.parent is not None)
        process.lower_priority(config.sleep.nice, apart=args.parent is not None)
        _bound_memory(config, say, leaving)
        if args.parent is not None:
            process.watch(sys.stdin.buffer, leaving.now)
        said: Finished | Failed = asyncio.run(_sleep(config, args.run_id, say, leaving))
        if leaving.problem:
            said = Failed(leaving.problem)
    except NpllmError as error:
        log.error("%s", error)
        said = Failed(str(error))
    except Exception as error:
        log.exception("the sleep failed")
        said = Failed(failure(error))
    say(said)
    return said.ending.exit_code if isinstance(said, Finished) else Ending.FAILED.exit_code


def failure(error: Exception) -> str:
    """What nobody expected, in one sentence, with its mend where the system refused something."""
    from npllm.models.causes import mend

    said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    hint = mend(error, "")
    if hint and "CUDA" in said:
        hint += ' With base.device = "cpu" sleeps do without the GPU.'
    words = (f"{type(error).__name__}: {said}.", hint, "logs/sleep.log has the details.")
    return " ".join(word for word in words if word)


def _config(home: Path, *, from_parent: bool) -> Config:
    """The settings: the parent's, as JSON on the first line of standard input, or those in the data folder."""
    if not from_parent:
        return settings.load(home)
    line = sys.stdin.buffer.readline()
    return settings.merge(Config(home=home.absolute()), json.loads(line or b"{}"), source="the server's settings")


def _bound_memory(config: Config, say: Callable[[Message], None], leaving: Leaving) -> None:
    """Keep the state and go when we take more memory for ourselves than we may."""
    most = process.memory_bound(config.sleep.max_memory_mb)

    def passed(used: int) -> None:
        if leaving.stop.is_set():
            return
        leaving.problem = (
            f"The sleep took {used / 1e6:.0f} MB of memory for itself and may take {most / 1e6:.0f}; its checkpoint is "
            "kept. Raise sleep.max_memory_mb, or lower sleep.max_tokens or sleep.rank."
        )
        log.error("%s", leaving.problem)
        say(Failed(leaving.problem))  # at once: if it does not end in time, there is no later word
        leaving.now()

    process.bound_memory(most, passed)


async def _sleep(config: Config, run_id: UUID, say: Callable[[Message], None], leaving: Leaving) -> Finished:
    """Take the lock and consolidate; when told to go, wait until what is under way has kept its state."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    leaving.on(lambda: loop.call_soon_threadsafe(told.set))
    work = asyncio.create_task(_consolidate(config, run_id, say, leaving.stop))
    waiting = asyncio.create_task(told.wait())
    # Told to go, `work` ends by itself at its next look at `stop`; the timer in `leaving` sees to it that it does.
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return await work


async def _consolidate(config: Config, run_id: UUID, say: Callable[[Message], None], stop: threading.Event) -> Finished:
    from npllm.memory.store import Store
    from npllm.sleep.consolidation import Sleep
    from npllm.sleep.interruption import Interrupted

    store = await Store.connect(config)
    try:
        async with store.trainer_lock(on_lost=stop.set) as ours:  # without it, somebody else may train
            if not ours:
                return Finished(Ending.HELD, HELD)
            return await Sleep(store, config, say, stop).run(run_id)
    except Interrupted:
        return Finished(Ending.INTERRUPTED, "Nothing had begun yet.")
    finally:
        await store.close()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # torch takes its time to be taken down, and there is nothing left to do

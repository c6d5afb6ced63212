"""What the tracker of suggestions hears, in order: at once, or, while it reads something long, afterwards.

A formatter's replacement of a long file takes tens of milliseconds to be understood. No keystroke waits for that: it is
done in steps on the event loop, and what happens meanwhile is heard when it is done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from npllm.types import Outcome

log = logging.getLogger(__name__)
SLICE_S = 0.0005  # so long, or one step, before the event loop may do something else

Job = Callable[[], Iterable[list[Outcome]]]


class Backlog:
    """One per server; everything is called on the event loop.

    Args:
        tell: gets the outcomes of each step.
    """

    def __init__(self, tell: Callable[[list[Outcome]], None]) -> None:
        self._tell = tell
        self._waiting: deque[Job] = deque()
        self._steps: Iterator[list[Outcome]] | None = None  # of what is being done
        self._task: asyncio.Task[None] | None = None

    def hear(self, job: Job, *, long: bool = False) -> None:
        """Do `job` now; where it is `long`, or something before it is still to be done, soon and in steps."""
        if self._steps is None and not self._waiting and not long:
            for outcomes in job():
                self._tell(outcomes)
            return
        self._waiting.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="backlog")

    async def done(self) -> None:
        """Return when nothing waits any more."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def finish(self) -> None:
        """Do all that waits, now."""
        while self._step():
            pass

    async def _work(self) -> None:
        more = True
        while more:
            until = time.perf_counter() + SLICE_S
            while (more := self._step()) and time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    def _step(self) -> bool:
        """Whether there may be more to do."""
        try:
            if self._steps is None:
                if not self._waiting:
                    return False
                self._steps = iter(self._waiting.popleft()())
            outcomes = next(self._steps, None)
        except Exception:
            log.exception("what the editor did could not be followed")
            outcomes = None
        if outcomes is None:
            self._steps = None
        else:
            self._tell(outcomes)
        return True

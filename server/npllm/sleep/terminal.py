"""`npllm sleep now`: a sleep in this terminal, which ends by Ctrl-C, or when the person does something elsewhere.

It begins at once, whatever the windows do; what counts is activity after that. The windows say in the database when
they were last used (`memory.presence`), and so do commands that change what was learned (`memory.lineage.quiet`); it is
read here as often as in a window whose own child sleeps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from npllm.config import Config
from npllm.sleep.protocol import Ending, Progress
from npllm.sleep.scheduler import LOOK_ASLEEP_S, LOOK_S
from npllm.sleep.supervisor import Sleeper, describe
from npllm.types import StoreError, new_id

log = logging.getLogger(__name__)


async def run_in_terminal(config: Config, show: Callable[[str], None], *, run_id: UUID | None = None) -> int:
    """Sleep now, in the foreground; Ctrl-C wakes, and so does what the person does in an editor from now on, or by a
    command that changes what was learned.

    Returns the exit status: 0 done, 3 interrupted, 4 nothing, 5 somebody else sleeps, 1 failed.

    Args:
        show: prints a line.
        run_id: as for `Sleeper.start`; None: a new one.

    Raises:
        SleepError: the child cannot be started.
    """
    shown = [""]

    def progress(now: Progress) -> None:
        line = describe(now)
        if line != shown[0]:
            shown[0] = line
            show(line)

    sleeper = Sleeper(config, on_progress=progress)
    began = datetime.now(UTC)
    await sleeper.start(run_id or new_id(), "asked for in a terminal")
    sleeping = asyncio.create_task(sleeper.wait(), name="sleeping")
    using = asyncio.create_task(_used_after(config, began), name="activity")
    try:
        await asyncio.wait({sleeping, using}, return_when=asyncio.FIRST_COMPLETED)
        if not sleeping.done():
            using.result()
            show("You are back, in an editor or with another npllm command; this sleep ends.")
            await sleeper.wake("the person is back, elsewhere")
        ended = await sleeping
    except asyncio.CancelledError:
        await sleeper.wake("interrupted in the terminal")
        show("Interrupted. The next sleep goes on from the checkpoint.")
        return Ending.INTERRUPTED.exit_code
    finally:
        using.cancel()
        await asyncio.gather(using, return_exceptions=True)
    assert ended is not None
    show(ended.text)
    return ended.ending.exit_code


async def _used_after(config: Config, began: datetime) -> None:
    """Return when the person was active after `began`. While the database is away it is asked again."""
    from npllm.memory.store import Store  # late: `npllm sleep report` does without a database

    while True:
        try:
            store = await Store.connect(config)
            try:
                while (active := await store.latest_activity()) is None or active <= began:  # noqa: ASYNC110  a row changes
                    await asyncio.sleep(LOOK_ASLEEP_S)
                return
            finally:
                await store.close()
        except StoreError as error:  # the child says so, too
            log.info("whether the person is back cannot be read: %s", error)
        await asyncio.sleep(LOOK_S)

"""When to sleep: all of the person's windows idle for long enough, enough that is new, and a machine that may.

One per server. Says through the database when its window was last used, and reads there when any window was: the
child may belong to any of them, and is sent away at once by activity here, within some 0.3 s by activity elsewhere.
A sleep that was cut short is gone on with as soon as everybody is idle again. Knows nothing of how to consolidate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from npllm.config import Config
from npllm.sleep.drowsiness import Situation, drowsiness
from npllm.sleep.machine import Machine, hindrance
from npllm.sleep.mending import settle
from npllm.sleep.pending import pending
from npllm.sleep.protocol import Ending, Progress
from npllm.sleep.supervisor import Ended, Sleeper, SleepError, SleeperState, describe
from npllm.types import ConsolidationState, NpllmError, ServerState, StoreError, new_id

if TYPE_CHECKING:
    from npllm.memory.store import Store

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0  # how often an idle window says that it lives; others take it for dead after 30
LOOK_S = 1.0
LOOK_ASLEEP_S = 0.2  # while our child works: somebody may come back in another window
QUIET_S = 1.0  # activity after such a pause is told to the other windows at once


class Scheduler:
    """Decides, once a second, and owns the child.

    Args:
        store: gives the store once it is connected, else None.
        base: gives the fingerprint of the base that is served, "" while there is none.
        on_change: called when state, phase, progress or message may have changed.
        on_problem: called with one sentence when a sleep fails or cannot be decided on.
    """

    def __init__(
        self,
        config: Config,
        store: Callable[[], Store | None],
        *,
        base: Callable[[], str] = lambda: "",
        on_change: Callable[[], None] = lambda: None,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._store = store
        self._base = base
        self._on_change = on_change
        self._on_problem = on_problem
        self._session = new_id()
        self._sleeper = Sleeper(config, on_progress=lambda _: on_change(), on_end=self._ended)
        self._machine = Machine()
        self._drowsy = False
        self._hindrance = ""  # why we would sleep, and do not
        self._by_hand = False  # the present sleep was asked for: the machine's state does not end it
        self._stir = asyncio.Event()  # the person is back after a pause
        self._last_activity = datetime.now(UTC)
        self._active = self._last_activity  # of any window; never goes back when one closes
        self._told: datetime | None = None  # the activity that the last heartbeat spoke of
        self._told_at = 0.0
        self._started_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._in_vain: datetime | None = None  # when the last sleep that found nothing to do began
        self._failed_at: datetime | None = None
        self._failures = 0
        self._problem = ""
        self._loop: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self.last: Ended | None = None  # how the last sleep of this process ended

    # -- what the status shows -----------------------------------------------------------------------------

    @property
    def state(self) -> ServerState:
        """AWAKE, DROWSY, SLEEPING or WAKING."""
        child = self._sleeper.state
        if self._waking is not None or child is SleeperState.LEAVING:
            return ServerState.WAKING
        if child is SleeperState.WORKING:
            return ServerState.SLEEPING
        if child is SleeperState.STARTING or (child is SleeperState.ABSENT and self._drowsy):
            return ServerState.DROWSY
        return ServerState.AWAKE

    @property
    def phase(self) -> str:
        """What the child is doing, or ""."""
        now = self._sleeper.progress
        return now.phase.value if now else ""

    @property
    def progress(self) -> float | None:
        """Of the whole sleep, 0 to 1; None while nobody sleeps."""
        now = self._sleeper.progress
        return now.share if now else None

    @property
    def seconds_left(self) -> float | None:
        """Until the end of the sleep, as far as can be told."""
        now = self._sleeper.progress
        return now.seconds_left if now else None

    @property
    def message(self) -> str:
        """The child's progress in words, why nobody sleeps though it is time, or what the last sleep came to."""
        now: Progress | None = self._sleeper.progress
        if now:
            return describe(now)
        if self._hindrance:
            return f"Would sleep, but {self._hindrance}."
        return self.last.text if self.last else ""

    # -- life ----------------------------------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """New settings, for the next decision and the next sleep."""
        self._config = config
        self._sleeper.config = config
        self._in_vain = None  # by other settings there may be something
        self._told = None  # other windows should hear whether we let them sleep

    def start(self) -> None:
        """Begin to look at the clock. Call on the event loop, once."""
        self._last_activity = datetime.now(UTC)
        self._loop = asyncio.create_task(self._watch(), name="sleep-scheduler")

    async def close(self) -> None:
        """Send the child away, and sign off."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self._sleeper.wake("the editor is closing")
        store = self._store()
        if store is not None:
            try:
                if self._settling is not None:
                    await asyncio.wait({self._settling}, timeout=0.5)
                await asyncio.wait_for(store.end_session(self._session), 1.0)
            except (StoreError, TimeoutError) as error:
                log.info("this window did not sign off: %s", error)

    def activity(self) -> None:
        """The person does something in this window: nobody sleeps now. Cheap; call it for every event."""
        now = datetime.now(UTC)
        if (now - self._last_activity).total_seconds() > QUIET_S:
            self._stir.set()
        self._last_activity = now
        self._show(drowsy=False, hindrance="")
        self._wake_soon("the person is back")

    async def sleep_now(self) -> bool:
        """Sleep by hand, whatever the clock says. False: we sleep already.

        Raises:
            SleepError: the child cannot be started.
        """
        if self._waking is not None:  # an earlier child is packing up
            await asyncio.wait({self._waking})
        if self._settling is not None:  # this takes the trainer's lock for a moment
            await asyncio.wait({self._settling})
        if self._sleeper.state is not SleeperState.ABSENT:
            return False
        await self._begin("asked for", by_hand=True)
        return True

    async def wake(self) -> None:
        """Wake by hand; that is activity, too. Returns when the child is gone."""
        self.activity()
        if self._waking is not None:
            await asyncio.wait({self._waking})
        await self._sleeper.wake("asked for")

    # -- deciding ------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            asleep = self._sleeper.state is not SleeperState.ABSENT
            try:
                pause = min(LOOK_ASLEEP_S if asleep else LOOK_S, self._config.sleep.idle_s / 4)
                await asyncio.wait_for(self._stir.wait(), pause)
            except TimeoutError:
                pass
            self._stir.clear()
            try:
                await self._look()
                self._problem = ""
            except NpllmError as error:
                self._tell(f"Whether to sleep cannot be decided: {error}")
            except Exception as error:
                log.exception("the scheduler stumbled")
                self._tell(f"Whether to sleep cannot be decided: {error}. The log has the details.")

    async def _look(self) -> None:
        store = self._store()
        if store is None:
            return
        conditions = self._machine.look(self._sleeper.pid)
        await self._heartbeat(store)
        elsewhere = await store.latest_activity()
        active = self._active = max(self._active, self._last_activity, elsewhere or self._active)
        if self._sleeper.state is not SleeperState.ABSENT:
            if self._started_at is not None and active > self._started_at:
                self._wake_soon("the person is back, in another window or with a command")
            elif not self._by_hand and (against := hindrance(conditions, self._config.sleep)):
                self._wake_soon(against)
            return
        idle = datetime.now(UTC) - active
        drowsy, against = False, ""
        if idle >= timedelta(seconds=self._config.sleep.idle_s / 2) and self._config.sleep.enabled:
            decision = drowsiness(await self._situation(store, active), self._config.sleep)
            drowsy = decision is ServerState.DROWSY
            if decision is not ServerState.AWAKE and await store.sleep_vetoed():
                decision, drowsy = ServerState.AWAKE, False
            if decision is not ServerState.AWAKE and (against := hindrance(conditions, self._config.sleep)):
                decision, drowsy = ServerState.AWAKE, False
            if decision is ServerState.SLEEPING and self._last_activity <= active and self._settling is None:
                await self._begin(f"idle for {idle.total_seconds():.0f} s")
                return
        self._show(drowsy=drowsy, hindrance=against)

    def _show(self, *, drowsy: bool, hindrance: str) -> None:
        """Show whether we are about to sleep, or what stands against it."""
        if (drowsy, hindrance) != (self._drowsy, self._hindrance):
            self._drowsy, self._hindrance = drowsy, hindrance
            self._on_change()

    async def _situation(self, store: Store, active: datetime) -> Situation:
        last = await store.last_consolidation()
        unfinished = (ConsolidationState.INTERRUPTED, ConsolidationState.RUNNING)  # the lock tells which one runs
        now = datetime.now(UTC)
        return Situation(
            idle_s=(now - active).total_seconds(),
            new=await pending(store, self._base(), self._in_vain),
            interrupted=last is not None and last.state in unfinished,
            tried=self._ended_at is not None and self._ended_at >= active,
            failed_ago_s=(now - self._failed_at).total_seconds() if self._failed_at else None,
            failures=self._failures,
        )

    async def _heartbeat(self, store: Store) -> None:
        activity = self._last_activity
        if activity != self._told or time.monotonic() - self._told_at >= HEARTBEAT_S:
            await store.heartbeat(self._session, activity, self._config.sleep.enabled)
            self._told, self._told_at = activity, time.monotonic()

    # -- the child -----------------------------------------------------------------------------------------

    async def _begin(self, reason: str, *, by_hand: bool = False) -> None:
        self._started_at = datetime.now(UTC)
        self._by_hand = by_hand
        try:
            await self._sleeper.start(new_id(), reason)
        except SleepError:
            self._failed_at = datetime.now(UTC)
            self._failures += 1
            raise
        self._drowsy, self._hindrance = False, ""
        self._on_change()

    def _wake_soon(self, reason: str) -> None:
        if self._sleeper.state in (SleeperState.STARTING, SleeperState.WORKING) and self._waking is None:
            self._waking = asyncio.create_task(self._sleeper.wake(reason), name="waking")
            self._waking.add_done_callback(self._woken)
            self._on_change()

    def _woken(self, task: asyncio.Task[None]) -> None:
        self._waking = None
        self._on_change()  # awake now; the child's end was told while this task still ran
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("waking up failed", exc_info=error)
            self._tell(f"The sleeping process could not be sent away: {error}.")

    def _ended(self, ended: Ended) -> None:
        self.last = ended
        now = datetime.now(UTC)
        self._failed_at = None
        if ended.ending is Ending.FAILED:
            self._failed_at = now
            self._failures += 1
            self._on_problem(f"The sleep failed: {ended.text}")
        elif ended.ending is not Ending.INTERRUPTED:
            self._failures = 0
            self._ended_at = now
            if ended.ending is Ending.NOTHING:
                self._in_vain = self._started_at
        store = self._store()
        if store is not None and self._settling is None:
            self._settling = asyncio.create_task(self._settle(store), name="settling")
        self._on_change()

    async def _settle(self, store: Store) -> None:
        try:
            for _ in range(10):  # the database may take a moment to see that its client is gone
                if await settle(store):
                    break
                await asyncio.sleep(0.2)
        except StoreError as error:
            log.info("how the last sleep ended could not be looked at: %s", error)
        finally:
            self._settling = None

    def _tell(self, text: str) -> None:
        if text != self._problem:
            self._problem = text
            log.warning("%s", text)
            self._on_problem(text)

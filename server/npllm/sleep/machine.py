"""What may stand against sleeping now, whoever is idle: the battery, the machine's other work, the time of day.

Battery and CPU by psutil. "Busy" is the share of all cores that others than our own child used over the last minute.
Knows nothing of experiences, windows or the database.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime

import psutil

from npllm import schedule
from npllm.config import SleepConfig

log = logging.getLogger(__name__)

LOOK_BACK_S = 60.0
MIN_S = 5.0  # a shorter look says nothing about how busy the machine is


@dataclass(frozen=True, slots=True)
class Conditions:
    """How things stand around the editor.

    Attributes:
        battery: percent, None where there is none or it cannot be read.
        on_battery: whether the machine runs on it.
        load: others' share of all cores over the last minute, 0 to 1; None while it is not known.
        now: local time.
    """

    battery: float | None
    on_battery: bool
    load: float | None
    now: datetime


def hindrance(conditions: Conditions, config: SleepConfig) -> str:
    """Why nobody should sleep now, as the end of "would sleep, but"; "" = nothing stands against it."""
    battery = conditions.battery
    if conditions.on_battery and battery is not None and battery < config.min_battery:
        return f"the machine is on battery at {battery:.0f} % (sleep.min_battery is {config.min_battery})"
    if not schedule.within(schedule.windows(config.schedule), conditions.now.time()):
        return f"it is {conditions.now:%H:%M} and sleep.schedule says {config.schedule}"
    if config.max_load > 0 and conditions.load is not None and conditions.load > config.max_load:
        busy = 0.05 * round(20 * conditions.load)  # told in steps, so that it is not told each second
        return f"the machine is {busy:.0%} busy with something else (sleep.max_load is {config.max_load:g})"
    return ""


class Machine:
    """Watches the machine. Call `look` about once a second; it costs well below a millisecond."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, float]] = deque()  # when; all CPU seconds; those of others
        self._child: tuple[int, float] | None = None  # process id, and the CPU seconds it had used
        self._own = 0.0  # CPU seconds of all children so far

    def look(self, child: int | None) -> Conditions:
        """How things stand.

        Args:
            child: the process id of our own child, whose work is not counted.
        """
        self._sample(child)
        try:
            battery = psutil.sensors_battery()
        except (AttributeError, OSError, psutil.Error, ValueError) as error:  # no such thing on this system
            log.debug("the battery cannot be read: %s", error)
            battery = None
        return Conditions(
            battery=None if battery is None else float(battery.percent),
            on_battery=battery is not None and battery.power_plugged is False,
            load=self._load(),
            now=datetime.now().astimezone(),
        )

    def _sample(self, child: int | None) -> None:
        self._own += self._spent(child)
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice, too
        total = sum(times) - twice
        now = time.monotonic()
        self._seen.append((now, total, total - idle - self._own))
        while len(self._seen) > 2 and self._seen[1][0] <= now - LOOK_BACK_S:
            self._seen.popleft()

    def _spent(self, child: int | None) -> float:
        """CPU seconds that the child has used since the last look."""
        if child is None:
            self._child = None
            return 0.0
        try:
            used = psutil.Process(child).cpu_times()
        except psutil.Error:  # it has just gone
            return 0.0
        before = self._child[1] if self._child is not None and self._child[0] == child else 0.0
        self._child = (child, used.user + used.system)
        return max(0.0, self._child[1] - before)

    def _load(self) -> float | None:
        first, last = self._seen[0], self._seen[-1]
        if last[0] - first[0] < MIN_S or last[1] <= first[1]:
            return None
        return min(1.0, max(0.0, (last[2] - first[2]) / (last[1] - first[1])))

"""What stands against sleeping though the person is away: battery, other work, the time of day; and giving way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from npllm import config, schedule
from npllm.config import SleepConfig
from npllm.sleep import process
from npllm.sleep.machine import Conditions, Machine, hindrance
from npllm.types import ConfigError

NIGHT = datetime(2026, 3, 2, 23, 30)
FINE = Conditions(battery=None, on_battery=False, load=0.1, now=NIGHT)
DEFAULTS = SleepConfig()


@pytest.mark.parametrize(
    ("conditions", "settings", "told"),
    [
        (FINE, DEFAULTS, ""),
        (replace(FINE, battery=31.0, on_battery=True), DEFAULTS, "on battery at 31 %"),
        (replace(FINE, battery=31.0, on_battery=False), DEFAULTS, ""),
        (replace(FINE, battery=50.0, on_battery=True), DEFAULTS, ""),
        (replace(FINE, battery=3.0, on_battery=True), replace(DEFAULTS, min_battery=0), ""),
        (replace(FINE, load=0.7), DEFAULTS, "70% busy with something else"),
        (replace(FINE, load=0.7), replace(DEFAULTS, max_load=0.0), ""),
        (replace(FINE, load=None), DEFAULTS, ""),
        (FINE, replace(DEFAULTS, schedule="22:00-06:30"), ""),
        (FINE, replace(DEFAULTS, schedule="12:00-13:00, 02:00-03:00"), "it is 23:30 and sleep.schedule says 12:00"),
    ],
)
def test_what_stands_against_it_is_said(conditions: Conditions, settings: SleepConfig, told: str) -> None:
    found = hindrance(conditions, settings)
    assert told in found and bool(told) == bool(found)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-06:30", ["22:00", "23:59", "00:00", "06:29"], ["06:30", "12:00", "21:59"]),
        ("9:00 - 10:00,18:30-24:00", ["09:00", "18:30", "23:59"], ["08:59", "10:00", "00:00"]),
        (" ", ["00:00", "12:34"], []),
    ],
)
def test_a_schedule_is_windows_of_the_day(text: str, inside: list[str], outside: list[str]) -> None:
    found = schedule.windows(text)
    for clock in (*inside, *outside):
        assert schedule.within(found, datetime.strptime(clock, "%H:%M").time()) is (clock in inside), clock


@pytest.mark.parametrize("text", ["night", "22:00", "25:00-06:00", "22:61-23:00", "08:00-08:00", "22:00-06:00,"])
def test_a_schedule_that_cannot_be_read_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"sleep\.schedule: .* is no time window"):
        config.merge(config.Config(home=tmp_path), {"sleep": {"schedule": text}}, source="config.toml")


@contextmanager
def busy() -> Iterator[int]:
    """A process that computes on one core."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def test_our_own_childs_work_is_not_the_machines() -> None:
    """The same second of work counts as others' when it is not ours, and not at all when it is."""
    with busy() as child:
        ours, theirs = Machine(), Machine()
        for machine in (ours, theirs):
            machine.look(child if machine is ours else None)
        spent = psutil.Process(child).cpu_times().user
        until = time.monotonic() + 60.0
        while (used := psutil.Process(child).cpu_times().user - spent) < 0.5:
            assert time.monotonic() < until
            time.sleep(0.05)
        for machine in (ours, theirs):
            machine.look(child if machine is ours else None)
        others = [machine._seen[-1][2] - machine._seen[0][2] for machine in (ours, theirs)]
        assert others[1] - others[0] == pytest.approx(used, abs=0.5 * used)


def test_the_load_is_a_share_and_not_told_before_it_is_known() -> None:
    machine = Machine()
    assert machine.look(None).load is None
    machine._seen[0] = (machine._seen[0][0] - 10.0, *machine._seen[0][1:])
    time.sleep(0.2)
    load = machine.look(None).load
    assert load is not None and 0.0 <= load <= 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="niceness by thread")
def test_every_thread_gives_way() -> None:
    code = "import threading, time\nfor _ in range(3): threading.Thread(target=time.sleep, args=(60,)).start()\nprint()"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        process.give_way(child.pid)
        threads = [thread.id for thread in psutil.Process(child.pid).threads()]
        assert len(threads) == 4
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {19}
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    process.give_way(child.pid)  # it is gone: no error


def _autogroup() -> list[str]:
    """This session's group and niceness; empty where there is none: no such file, or an empty one (autogroups off)."""
    try:
        return Path("/proc/self/autogroup").read_text(encoding="ascii").split()
    except OSError:
        return []


@pytest.mark.skipif(not _autogroup(), reason="sessions here do not share the CPU as groups")
def test_its_session_gives_way_to_other_sessions() -> None:
    code = "from npllm.sleep import process; process.lower_priority(7, apart=True); print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    child.stdout.readline()
    group = Path(f"/proc/{child.pid}/autogroup")
    try:
        ours = _autogroup()
        assert os.getsid(child.pid) == child.pid
        assert group.read_text().split()[0] != ours[0] and group.read_text().split()[-1] == "7"
        process.give_way(child.pid)
        assert group.read_text().split()[-1] == "19" and _autogroup() == ours
        process.let_die(child.pid)
        assert group.read_text().split()[-1] == "0"
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_memory_bound_is_told_once_when_it_is_passed() -> None:
    told: list[int] = []
    passed = threading.Event()
    used = process.private_memory()

    def note(bytes_used: int) -> None:
        told.append(bytes_used)
        passed.set()

    process.bound_memory(used + 40_000_000, note)
    held = bytearray(os.urandom(1024)) * 100_000
    assert passed.wait(60.0)
    assert told[0] > used + 40_000_000 and len(held) == 102_400_000
    assert process.memory_bound(0) == psutil.virtual_memory().total // 2
    assert process.memory_bound(7) == 7_000_000

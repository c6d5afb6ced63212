"""The child process among others: low priority, bounded memory, dying with its parent, giving way at once.

Linux: PR_SET_PDEATHSIG (prctl(2)) sends SIGTERM the moment the parent is gone. Everywhere: the parent holds the
other end of our standard input, whose end means the same. Imports nothing heavy: runs before anything else.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import psutil

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_MEMORY_LOOK_S = 0.5
_FIRST_TO_GO = 700  # of 1000: when the machine runs out of memory, the kernel takes us rather than the editor


def lower_priority(nice: int, *, apart: bool = False) -> None:
    """Give way to everything else: CPU niceness (0 to 19), the disk only when nobody else wants it, memory first.

    `apart`: in a session of its own, out of reach of the terminal's signals.
    """
    process = psutil.Process()
    try:
        if sys.platform == "linux" and apart:
            _of_its_own(nice)
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if nice else psutil.NORMAL_PRIORITY_CLASS)
            process.ionice(psutil.IOPRIO_VERYLOW)
            return
        process.nice(max(process.nice(), nice))
        if sys.platform == "linux":
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
            Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO), encoding="ascii")
    except (psutil.Error, OSError) as error:  # a container may forbid it: then at the usual priority
        log.info("the priority stays as it is: %s", error)


def _of_its_own(nice: int) -> None:
    """Give way also to programs of other sessions, for which niceness counts only between sessions.

    Linux schedules each session as one group where autogroups are on (sched(7)): inside a shared one, even niceness 19
    takes an equal part from every other session's programs. So: a session of our own, whose group is nice.
    """
    if os.getpgrp() != os.getpid():  # a group's leader cannot leave it
        os.setsid()
    if os.getsid(0) == os.getpid():  # else the session is shared, and not ours to lower
        _lower_group(os.getpid(), nice)


def _lower_group(pid: int, nice: int) -> None:
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
    except OSError as error:  # there are none, or a container forbids it
        log.info("the session's share of the CPU stays as it is: %s", error)


def give_way(pid: int) -> None:
    """Leave the CPU to everybody else from this moment on: process `pid` gets what is left over, and little more.

    Linux: niceness 19 for its session and for each of its threads (setpriority(2) is by thread there), a 68th of a
    usual one's weight; macOS: the process's; Windows: the idle class. Not SCHED_IDLE, and it is not stopped: where all
    cores are wanted, a process without any time cannot even die, and holds its memory and its locks in the database.
    """
    try:
        process = psutil.Process(pid)
        if sys.platform == "linux":
            if os.getsid(pid) == pid:
                _lower_group(pid, 19)
            for thread in process.threads():
                try:
                    os.setpriority(os.PRIO_PROCESS, thread.id, 19)
                except ProcessLookupError:
                    pass  # this thread has just ended
        elif sys.platform == "win32":
            process.nice(psutil.IDLE_PRIORITY_CLASS)
        else:
            process.nice(19)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    except (psutil.Error, OSError) as error:  # a container may forbid it: it goes within two seconds anyway
        log.info("the sleeping process keeps its priority while it goes: %s", error)


def let_die(pid: int) -> None:
    """Give the session of a process that is to be killed its usual share again: dying takes time of the CPU, too."""
    if sys.platform == "linux":
        try:
            if os.getsid(pid) == pid:
                _lower_group(pid, 0)
        except ProcessLookupError:
            pass


def memory_bound(wanted_mb: int) -> int:
    """Bytes that the child may take for itself: `wanted_mb` MB, or (0) half of the machine's memory."""
    return wanted_mb * 1_000_000 if wanted_mb > 0 else int(psutil.virtual_memory().total) // 2


def private_memory() -> int:
    """Bytes of memory that are ours alone; the base's weights are a file that all processes map, and do not count."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def bound_memory(most: int, on_passed: Callable[[int], None]) -> None:
    """Call `on_passed` with what is used, once, in a thread of its own, when `most` bytes are passed.

    A look twice a second rather than RLIMIT_AS or RLIMIT_DATA: torch reserves far more than it uses, and dies at those.
    """

    def look() -> None:
        while (used := private_memory()) <= most:
            time.sleep(_MEMORY_LOOK_S)
        on_passed(used)

    threading.Thread(target=look, name="memory", daemon=True).start()


def die_with(parent: int) -> None:
    """Get SIGTERM when the process `parent` ends; at once if it has ended already. Linux only, else nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        log.warning("prctl: %s", os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def watch(stream: BinaryIO, on_end: Callable[[], None]) -> None:
    """Call `on_end`, in a thread of its own, when `stream` ends."""

    def read() -> None:
        while stream.read1(4096):  # type: ignore[attr-defined]
            pass
        on_end()

    threading.Thread(target=read, name="parent", daemon=True).start()


def threads(wanted: int) -> int:
    """Threads to compute with: `wanted`, or (0) all cores that we may use but one."""
    if wanted > 0:
        return wanted
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    return max(1, cores - 1)

"""What the child process does for its own standing: low priority, and dying with its parent.

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
from collections.abc import Callable
from typing import BinaryIO

import psutil

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def lower_priority(nice: int) -> None:
    """Give way to everything else: CPU niceness (0 to 19), and the disk only when nobody else wants it."""
    process = psutil.Process()
    try:
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if nice else psutil.NORMAL_PRIORITY_CLASS)
            process.ionice(psutil.IOPRIO_VERYLOW)
            return
        process.nice(max(process.nice(), nice))
        if sys.platform == "linux":
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
    except (psutil.Error, OSError) as error:  # a container may forbid it: then at the usual priority
        log.info("the priority stays as it is: %s", error)


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

"""File locks (flock) that die with their holder.

A lock belongs to an open file description: every process that inherited the descriptor holds it, and the
kernel lets go when the last of them is gone, also after kill -9. Not for Windows, which has no flock.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from npllm.types import StoreError

if sys.platform != "win32":
    import fcntl

POLL_S = 0.02


class FileLock:
    """One flock on one file; the file stays when the lock goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def fileno(self) -> int:
        """The descriptor, to hand the lock down to a child process. Raises ValueError when not held."""
        if self._fd is None:
            raise ValueError(f"{self.path} is not locked")
        return self._fd

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock now, or say False. Raises OSError when the file cannot be opened."""
        if sys.platform == "win32":
            raise StoreError("This part needs flock, which Windows has not.")
        if self._fd is not None:
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def acquire(self, deadline: float, *, shared: bool = False) -> None:
        """Wait for the lock until `deadline` (`time.monotonic()`); raises StoreError after it."""
        while not self.try_acquire(shared=shared):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.path} has been locked by another process for too long. "
                    "End the other npllm processes, then try again."
                )
            time.sleep(POLL_S)

    def release(self) -> None:
        """Let go of this process's hold; a child that inherited the descriptor still has its own."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @contextlib.contextmanager
    def holding(self, deadline: float) -> Iterator[None]:
        self.acquire(deadline)
        try:
            yield
        finally:
            self.release()


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on `path` (a file that is not there is not locked)."""
    if not path.exists():
        return False
    probe = FileLock(path)
    if probe.try_acquire():
        probe.release()
        return False
    return True

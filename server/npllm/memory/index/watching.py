"""Told by the operating system when something changes in projects' files (watchdog); says only in which project.

Watched are the folders of a project that hold indexed files, as far as the topmost of them tells: `node_modules` beside
`src` is not. A burst of events is one word, said when it is quiet for `QUIET_S`, or after `LONGEST_S`. Where nothing
can be watched (no more inotify watches, a network's file system) the regular look of `child` finds what has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from npllm.ignoring import FILE
from npllm.memory.index.indexing import ENDINGS

log = logging.getLogger(__name__)

QUIET_S = 0.5
LONGEST_S = 5.0
MOST_WATCHED = 64  # topmost folders of a project; each takes a thread
_KINDS = [
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]
_RULES = (FILE, ".gitignore")


class Watcher:
    """Of some projects. Used on the event loop.

    Args:
        changed: called with a project when something in it has changed.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._observer: BaseObserver = Observer()
        self._observer.daemon = True
        self._watches: dict[str, tuple[frozenset[tuple[str, int]], list[ObservedWatch]]] = {}
        self._first: dict[str, float] = {}  # of a burst, monotonic
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._observer.start()

    def watch(self, project: str, folders: Collection[str]) -> bool:
        """Watch the folders of a project that hold files (relative to it); again when they have changed.

        Returns: whether that began just now, so that something may have happened before.
        """
        wanted = _topmost(project, folders)
        known = self._watches.get(project)
        if known is not None and known[0] == wanted:
            return False
        self.leave(project)
        handler, watches = _Handler(lambda: self._heard(project)), []
        for name, _ in sorted(wanted):
            folder = os.path.join(project, name) if name else project  # noqa: PTH118
            try:
                watches.append(
                    self._observer.schedule(handler, folder, recursive=bool(name), event_filter=list(_KINDS))
                )
            except OSError as error:
                log.warning("%s cannot be watched, so it is looked at now and then: %s", folder, error)
        self._watches[project] = wanted, watches
        return True

    def leave(self, project: str) -> None:
        """Watch a project no more."""
        _, watches = self._watches.pop(project, (None, []))
        for one in watches:
            with contextlib.suppress(KeyError, OSError):
                self._observer.unschedule(one)
        if (timer := self._timers.pop(project, None)) is not None:
            timer.cancel()

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._observer.stop()

    def _heard(self, project: str) -> None:
        """From a thread of the observer."""
        if project not in self._first:  # else the timer runs, and looks again itself
            with contextlib.suppress(RuntimeError):  # the loop is gone
                self._loop.call_soon_threadsafe(self._begin, project)
        self._last = time.monotonic()

    def _begin(self, project: str) -> None:
        if project in self._first or project not in self._watches:
            return
        self._first[project] = time.monotonic()
        self._timers[project] = self._loop.call_later(QUIET_S, self._look, project)

    def _look(self, project: str) -> None:
        now = time.monotonic()
        quiet = now - self._last
        if quiet < QUIET_S and now - self._first[project] < LONGEST_S:
            self._timers[project] = self._loop.call_later(QUIET_S - quiet, self._look, project)
            return
        del self._first[project]
        self._timers.pop(project, None)
        self._changed(project)


class _Handler(FileSystemEventHandler):
    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def on_any_event(self, event: FileSystemEvent) -> None:
        for name in (os.fsdecode(event.src_path), os.fsdecode(event.dest_path or "")):
            if event.is_directory and "/.git" not in name:
                return self._heard()
            if name.endswith(ENDINGS) or name.rpartition(os.sep)[2] in _RULES:
                return self._heard()
        return None


def _topmost(project: str, folders: Collection[str]) -> frozenset[tuple[str, int]]:
    """The folders to watch, with what tells a folder from another of its name: "" (itself alone) and topmost ones."""
    names = {"", *(folder.split("/")[0] for folder in folders)}
    found = set()
    for name in sorted(names)[:MOST_WATCHED]:
        try:
            found.add((name, (Path(project) / name).stat().st_ino))
        except OSError:
            continue
    return frozenset(found)

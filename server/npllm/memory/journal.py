"""The journal: what happened, on disk (fsync) before anybody is told, and in PostgreSQL when that can be.

Append-only files of JSON lines, one per process at a time, each locked (flock) by the process that writes it: a file
whose lock is free belongs to nobody alive and may be carried on by anyone (`pump`). Beside a file `X.jsonl` stand
`X.position` (bytes that have reached PostgreSQL) and `X.corrupt` (lines that could not be read or stored).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from npllm.memory import codec
from npllm.memory.locks import FileLock
from npllm.memory.redaction import Redactor
from npllm.types import JournalRecord, StoreError, new_id

log = logging.getLogger(__name__)

ROTATE_AT = 4_000_000  # bytes


class JournalFull(StoreError):
    """As much waits for the database as may wait; nothing more is written down until some of it has been carried."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of one journal file, the lines they came from, and where the next ones begin (bytes)."""

    records: tuple[JournalRecord, ...]
    lines: tuple[bytes, ...]
    end: int


class Journal:
    """This process's journal, and a view of those that dead processes left behind.

    Args:
        rotate_at: bytes; then another file is begun.
        most: bytes of all journals in the folder that may wait for PostgreSQL; 0 = no bound.
    """

    def __init__(self, folder: Path, *, rotate_at: int = ROTATE_AT, most: int = 0) -> None:
        self.folder = folder
        self.most = most
        self._rotate_at = rotate_at
        self._redactor = Redactor()
        self._mutex = threading.Lock()
        self._lock: FileLock | None = None
        self._path: Path | None = None
        self._size = 0
        self._written = 0  # records in the present file
        self._carried = 0  # of them, in PostgreSQL
        self._left: dict[Path, tuple[int, int]] = {}  # other files: (position, records behind it)

    @property
    def path(self) -> Path | None:
        """The file that is being written, if any."""
        return self._path

    def append(self, records: Sequence[JournalRecord]) -> None:
        """Write `records` down, without secrets; they are on disk when this returns. Blocking; safe from any thread.

        Raises:
            JournalFull: too much waits for the database; none of them is written.
            StoreError: the disk is full or not writable; none of them counts as written.
        """
        if not records:
            return
        data = b"".join(codec.encode(self._redactor.record(record)) for record in records)
        if self.most and self.waiting() + len(data) > self.most:
            raise JournalFull(
                f"As much waits for the database in {self.folder} as may: {self.most / 1e6:.0f} MB (journal.max_mb). "
                "What happens now is not remembered until the database has taken some: see `npllm doctor`."
            )
        with self._mutex:
            try:
                fd = self._open()
                self._write(fd, data)
            except OSError as error:
                raise StoreError(
                    f"The journal in {self.folder} cannot be written: {error}. What happens now is not remembered; "
                    "make room or mend the permissions."
                ) from error
            self._written += len(records)
            if self._size >= self._rotate_at:
                self._rotate()

    def backlog(self) -> int:
        """Records that have not reached PostgreSQL: this process's, and those that dead ones left."""
        with self._mutex:
            own = self._written - self._carried
        return own + sum(self._count_left(path) for path in self.orphans())

    def waiting(self) -> int:
        """Bytes that have not reached PostgreSQL, of every process's journal."""
        total = 0
        for path in self.folder.glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):  # carried meanwhile
                total += max(path.stat().st_size - read_position(path), 0)
        return total

    def close(self) -> None:
        """Stop writing; the file goes if all of it has reached PostgreSQL, else the next pump finds it."""
        with self._mutex:
            path, done = self._path, self._written == self._carried
            self._rotate()
            if path is not None and done:
                forget(path)

    # --- for the pump ---

    def orphans(self) -> list[Path]:
        """Files of dead processes, and our own full ones; oldest first."""
        found = sorted(self.folder.glob("*.jsonl"))
        return [path for path in found if path != self._path and _free(path)]

    def carried(self, path: Path, batch: Batch) -> None:
        """Note that a batch of `path` is in PostgreSQL (or set aside)."""
        if path.exists():
            _write_position(path, batch.end)
        with self._mutex:
            if path == self._path:
                self._carried += len(batch.lines)

    def _count_left(self, path: Path) -> int:
        try:
            position, size = read_position(path), path.stat().st_size
            known = self._left.get(path)
            if known is None or known[0] != position + size:
                with path.open("rb") as file:
                    file.seek(position)
                    self._left[path] = known = (position + size, file.read().count(b"\n"))
            return known[1]
        except FileNotFoundError:  # carried by another process meanwhile
            return 0

    def _open(self) -> int:
        if self._lock is None:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            path = self.folder / f"{new_id().hex}.jsonl"
            lock = FileLock(path.with_suffix(".new"))  # locked before anybody can take it for an orphan
            if not lock.try_acquire():
                raise OSError(f"{lock.path} is locked by somebody else")
            lock.path.rename(path)
            _sync_folder(self.folder)
            self._lock, self._path = lock, path
            self._size = self._written = self._carried = 0
        return self._lock.fileno()

    def _write(self, fd: int, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], self._size + done)
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self._size)  # else the next write covers it
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        if self._lock is not None:
            self._lock.release()  # now it is an orphan, ours or anybody's
            self._lock = self._path = None
            self._size = self._written = self._carried = 0


def read_batch(path: Path, limit: int, *, complete: bool) -> Batch | None:
    """The next records of a file; None when there are no more.

    A line that cannot be read goes to the `.corrupt` file beside it. `complete` says that its writer is gone: then a
    last line without an end was torn by its death, was never acknowledged, and is passed over with a warning.
    """
    position = read_position(path)
    records: list[JournalRecord] = []
    lines: list[bytes] = []
    with path.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                if complete and not lines:
                    log.warning("%s ends in a torn line of %d bytes, which was never acknowledged", path, len(line))
                break
            position += len(line)
            try:
                records.append(codec.decode(line))
                lines.append(line)
            except ValueError as error:
                set_aside(path, line, str(error))
                lines.append(line)
            if len(records) >= limit:
                break
    return Batch(tuple(records), tuple(lines), position) if lines else None


def set_aside(path: Path, line: bytes, reason: str) -> None:
    """Keep a line that is of no use now in `X.corrupt`, for a person or a newer version to look at."""
    target = path.with_suffix(".corrupt")
    log.warning("a record of %s is set aside in %s: %s", path.name, target, reason)
    with open(target, "ab", opener=_private) as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold an orphan while carrying it; False when another process has it, or has finished it."""
    if not path.exists():
        yield False
        return
    lock = FileLock(path)
    try:
        yield lock.try_acquire() and path.exists()
    finally:
        lock.release()


def forget(path: Path) -> None:
    """Delete a file that has been carried to its end (its `.corrupt` stays)."""
    path.unlink(missing_ok=True)
    path.with_suffix(".position").unlink(missing_ok=True)


def read_position(path: Path) -> int:
    try:
        return int(path.with_suffix(".position").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0  # replaying is harmless


def _write_position(path: Path, position: int) -> None:
    new = path.with_suffix(".position.new")
    with open(new, "w", encoding="ascii", opener=_private) as file:
        file.write(str(position))
    new.replace(path.with_suffix(".position"))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _free(path: Path) -> bool:
    with claimed(path) as free:
        return free


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

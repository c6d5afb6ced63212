"""Make, start and stop the embedded PostgreSQL of a layout. Blocking; light imports (the keeper uses it too).

The server's processes inherit a lock (`server.lock`), so "does it run?" never depends on a pid in a file:
a stale, truncated or recycled postmaster.pid cannot deceive. Callers of `start` and `stop` hold `start.lock`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from npllm.memory import binaries, layout
from npllm.memory.binaries import MAJOR, USE_ANOTHER
from npllm.memory.layout import PORT, Layout
from npllm.memory.locks import FileLock, is_locked
from npllm.types import StoreError

log = logging.getLogger(__name__)

USER = "npllm"
DATABASE = "npllm"
SOCKET_PATIENCE_S = 2.0  # a server makes its socket before anything else
START_TIMEOUT_S = 120  # recovery after a crash can be long
LOG_LIMIT = 4_000_000  # bytes; then the log starts again, with the old one kept beside it

SETTINGS = """
# npllm
listen_addresses = ''
max_connections = 60
shared_buffers = 64MB
maintenance_work_mem = 128MB
max_parallel_maintenance_workers = 0
max_wal_size = 256MB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
"""


def start(place: Layout) -> Path:
    """See to it that the server runs and answers; gives its socket folder.

    Raises:
        StoreError: it cannot be made or started; the message carries the server's own last words.
    """
    bin_folder = binaries.for_account(place.account, place.folder)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        alive = FileLock(place.server_lock)
        if alive.try_acquire():
            try:
                if not (place.data / "PG_VERSION").exists():
                    _create(place, bin_folder, alive)
                _check_version(place)
                return _launch(place, bin_folder, alive)
            finally:
                alive.release()
        if _wait_ready(place, bin_folder, deadline):
            return _socket_folder(place)
        if is_locked(place.server_lock):
            if time.monotonic() > deadline:
                raise StoreError(f"PostgreSQL in {place.data} runs but does not answer.{_last_words(place)}")
            stop(place)  # alive, but its socket is gone: nobody could ever reach it


def ready(place: Layout, bin_folder: Path) -> bool:
    """Whether the server accepts connections now."""
    folder = layout.noted_socket_folder(place)
    if folder is None:
        return False
    arguments = ["-h", str(folder), "-p", str(PORT), "-d", DATABASE, "-U", USER, "-t", "3", "-q"]
    return binaries.run(bin_folder / "pg_isready", arguments, place.account, timeout=30)[0] == 0


def stop(place: Layout) -> None:
    """Stop the server, politely, then less so. Raises StoreError when it lives on."""
    bin_folder = binaries.for_account(place.account, place.folder)
    if not is_locked(place.server_lock):
        return
    code, said = binaries.run(
        bin_folder / "pg_ctl",
        ["stop", "-m", "fast", "-w", "-t", "60"],
        place.account,
        timeout=90,
        pgdata=place.data,
    )
    if code != 0:
        log.info("pg_ctl stop: %s", said)
    first = 5.0 if code == 0 else 0.0
    for force, patience in ((None, first), (signal.SIGINT, 10.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        if force is not None:
            for pid in _processes(place):
                _kill(pid, force)
        deadline = time.monotonic() + patience
        while is_locked(place.server_lock):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        else:
            return
    raise StoreError(f"PostgreSQL in {place.data} cannot be stopped: end its processes by hand.")


def _create(place: Layout, bin_folder: Path, alive: FileLock) -> None:
    """initdb under a temporary name, then rename: a half-made folder is never taken for a database.

    Its processes inherit the lock too: if we are killed, the next one waits until they have ended.
    """
    for leftover in place.folder.glob("new-*"):
        shutil.rmtree(leftover)
    if place.data.exists():
        aside = place.folder / f"broken-{int(time.time())}-{secrets.token_hex(2)}"
        place.data.rename(aside)
        log.warning("%s was no database (a half-made one?); moved to %s, starting afresh", place.data, aside)
    new = place.folder / f"new-{secrets.token_hex(4)}"
    new.mkdir(mode=0o700)
    if place.account is not None:
        os.chown(new, place.account.uid, place.account.gid)
    held = [alive.fileno()]
    arguments = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
    code, said = binaries.run(bin_folder / "initdb", arguments, place.account, timeout=300, pgdata=new, pass_fds=held)
    if code != 0:
        raise StoreError(f"PostgreSQL's initdb failed in {place.folder}: {said[-600:]}. {USE_ANOTHER}")
    with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(SETTINGS)
    code, said = binaries.run(
        bin_folder / "postgres",
        ["--single", "-j", "postgres"],
        place.account,
        timeout=120,
        pgdata=new,
        input=f"CREATE DATABASE {DATABASE};\n\n".encode(),
        pass_fds=held,
    )
    if code != 0 or "ERROR" in said:
        raise StoreError(f"PostgreSQL could not make its database in {place.folder}: {said[-600:]}. {USE_ANOTHER}")
    new.rename(place.data)
    folder = os.open(place.folder, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_version(place: Layout) -> None:
    found = (place.data / "PG_VERSION").read_text(encoding="utf-8").strip()
    if found != str(MAJOR):
        raise StoreError(
            f"{place.data} was made by PostgreSQL {found}, this npllm brings {MAJOR}. Dump it with the old "
            "version and restore it with the new one, or move the folder away to start afresh."
        )


def _launch(place: Layout, bin_folder: Path, alive: FileLock) -> Path:
    """Start the postmaster; it inherits the lock `alive`, which proves that no other one is left."""
    (place.data / "postmaster.pid").unlink(missing_ok=True)  # stale: its processes would hold the lock
    folder = layout.socket_folder(place)
    for leftover in folder.glob(".s.PGSQL.*"):
        leftover.unlink()
    if place.log.exists() and place.log.stat().st_size > LOG_LIMIT:
        place.log.replace(place.log.with_suffix(".log.old"))
    options = f"-c unix_socket_directories={shlex.quote(str(folder))} -c port={PORT}"
    with place.log.open("ab") as output:
        code, _ = binaries.run(
            bin_folder / "pg_ctl",
            ["start", "-w", "-s", "-t", str(START_TIMEOUT_S), "-o", options],
            place.account,
            timeout=START_TIMEOUT_S + 30,
            pgdata=place.data,
            output=output,
            pass_fds=[alive.fileno()],
        )
    if code != 0:
        raise StoreError(
            f"PostgreSQL in {place.data} does not start.{_last_words(place)}. Mend that, or move the folder "
            f"away to start afresh. {USE_ANOTHER}"
        )
    if not ready(place, bin_folder):
        raise StoreError(f"PostgreSQL in {place.data} has started but does not answer.{_last_words(place)}")
    return folder


def _wait_ready(place: Layout, bin_folder: Path, deadline: float) -> bool:
    """Wait for a server that lives; False when it died, or when it has no socket to be reached by."""
    missing_since: float | None = None
    made = (place.data / "PG_VERSION").exists()  # else it is being made
    while time.monotonic() < deadline:
        if ready(place, bin_folder):
            return True
        if not is_locked(place.server_lock):
            return False
        folder = layout.noted_socket_folder(place)
        if folder is not None and (folder / f".s.PGSQL.{PORT}").exists():
            missing_since = None
        elif missing_since is None:
            missing_since = time.monotonic()
        elif made and time.monotonic() - missing_since > SOCKET_PATIENCE_S:
            return False
        time.sleep(0.1)
    return False


def _socket_folder(place: Layout) -> Path:
    folder = layout.noted_socket_folder(place)
    if folder is None:
        raise StoreError(f"{place.socket_note} is gone while the server runs: end it by hand and try again.")
    return folder


def _last_words(place: Layout) -> str:
    try:
        lines = place.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    except OSError:
        return ""
    return f" Its log ({place.log}) ends: {' / '.join(lines)}" if lines else ""


def _processes(place: Layout) -> Iterator[int]:
    """The server's processes: those that work in the data folder. For when postmaster.pid is no help."""
    import psutil

    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] == "postgres" and Path(process.cwd()) == place.data:
                yield process.pid
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass

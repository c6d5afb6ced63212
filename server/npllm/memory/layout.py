"""Where the embedded PostgreSQL of a data folder keeps its things.

An ordinary user has all of it in `<home>/postgres`. Root runs the server as another user; where that user may
not go into `home`, the things lie in `/var/lib/npllm/<hash>-<random>` and `<home>/postgres` is a link to
it: a new home of the same name starts afresh, and no permission outside npllm's own folders is ever changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from npllm.memory import binaries
from npllm.memory.binaries import USE_ANOTHER, Account
from npllm.types import StoreError

ROOT_FOLDER = Path("/var/lib/npllm")
NAME = re.compile("[0-9a-f]{8}-[0-9a-f]{8}")  # of a folder below it
MAX_PATH = 900  # PostgreSQL's own limit is 1024, with file names to come
HOME_NOTE = "home"  # in a folder below ROOT_FOLDER: the data folder that links to it
PORT = 5432  # names the socket file; nothing listens on TCP


@dataclass(frozen=True, slots=True)
class Layout:
    folder: Path  # resolved
    account: Account | None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def start_lock(self) -> Path:  # held while the server is made, started or stopped
        return self.folder / "start.lock"

    @property
    def clients_lock(self) -> Path:  # shared by every process that uses the server
        return self.folder / "clients.lock"

    @property
    def server_lock(self) -> Path:  # held by the server itself, all its processes, as long as one lives
        return self.folder / "server.lock"

    @property
    def keeper_lock(self) -> Path:  # held by the one keeper
        return self.folder / "keeper.lock"

    @property
    def socket_note(self) -> Path:  # names the socket folder in use
        return self.folder / "socket-folder"

    @property
    def uid(self) -> int:
        return self.account.uid if self.account else os.geteuid()


def find(home: Path) -> Layout | None:
    """The layout of a home that has one already; changes nothing."""
    folder = home / "postgres"
    if not folder.is_dir():
        return None
    return Layout(folder.resolve(), binaries.server_account())


def make(home: Path) -> Layout:
    """The layout of `home`, its folder made if need be.

    Raises:
        StoreError: a folder cannot be made or used; says which and why.
    """
    account = binaries.server_account()
    folder = home / "postgres"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.is_dir():
            if account is None or _may_enter(account, home):
                folder.mkdir(mode=0o700 if account is None else 0o711, exist_ok=True)
            else:
                _link_outside(home, folder)
        real = folder.resolve(strict=True)
        _note_home(real, home)
        if account is not None:
            real.chmod(0o711)
    except OSError as error:
        raise StoreError(
            f"The database's folder {folder} cannot be made: {error}. Choose another data folder with "
            f"NPLLM_HOME. {USE_ANOTHER}"
        ) from error
    if len(os.fsencode(real)) > MAX_PATH:
        raise StoreError(
            f"The path of the database's folder is too long for PostgreSQL ({len(os.fsencode(real))} bytes, "
            f"at most {MAX_PATH}): {real}. Choose a shorter NPLLM_HOME."
        )
    if not os.access(real, os.W_OK | os.X_OK):
        raise StoreError(f"{real} belongs to another user. Choose another data folder with NPLLM_HOME.")
    if account is not None and not _may_enter(account, real):
        raise StoreError(
            f"User '{account.name}', as which root runs PostgreSQL, may not go into {real}. "
            "Give the folders above it the permission x for others, or run npllm as an ordinary user."
        )
    return Layout(real, account)


def socket_folder(layout: Layout) -> Path:
    """A short 0700 folder of the server's user for its socket (long socket paths fail), made if need be."""
    name = f"npllm-{layout.uid}-{hashlib.sha256(os.fsencode(layout.folder)).hexdigest()[:8]}"
    problems = []
    for parent in (Path("/tmp"), Path("/var/tmp")):
        folder = parent / name
        try:
            _own_folder(folder, layout)
        except OSError as error:
            problems.append(str(error))
            continue
        note = layout.socket_note.with_suffix(".new")
        note.write_text(str(folder), encoding="utf-8")
        note.replace(layout.socket_note)
        return folder
    raise StoreError(f"No folder for the database's socket: {'; '.join(problems)}. {USE_ANOTHER}")


def noted_socket_folder(layout: Layout) -> Path | None:
    try:
        return Path(layout.socket_note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _own_folder(folder: Path, layout: Layout) -> None:
    """Make `folder` ours alone, or find it so; OSError when somebody else sits there."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        if layout.account is not None:
            os.chown(folder, layout.account.uid, layout.account.gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != layout.uid:
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and layout.account is not None:
            os.chown(folder, layout.account.uid, layout.account.gid)  # killed between mkdir and chown
        else:
            raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)


def _link_outside(home: Path, link: Path) -> None:
    ROOT_FOLDER.mkdir(mode=0o711, parents=True, exist_ok=True)
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:8]
    folder = ROOT_FOLDER / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o711)
    (folder / HOME_NOTE).write_bytes(os.fsencode(home.resolve()) + b"\n")
    try:
        link.symlink_to(folder)
    except FileExistsError:  # another process was first
        (folder / HOME_NOTE).unlink()
        folder.rmdir()


def _note_home(folder: Path, home: Path) -> None:
    """A data folder that was moved has taken its link along: note where it is now."""
    note = folder / HOME_NOTE
    said = os.fsencode(home.resolve()) + b"\n"
    if folder.parent == ROOT_FOLDER and (not note.exists() or note.read_bytes() != said):
        new = note.with_suffix(f".{os.getpid()}")
        new.write_bytes(said)
        new.replace(note)


def is_orphan(folder: Path) -> bool:
    """Whether `folder`, below ROOT_FOLDER, is a database that no data folder links to any more.

    In doubt it is not: without a note of the home, when one cannot look there, or when the home is there without a
    link (it may be about to be made).
    """
    if folder.parent != ROOT_FOLDER or folder.is_symlink() or not NAME.fullmatch(folder.name):
        return False
    try:
        home = Path(os.fsdecode((folder / HOME_NOTE).read_bytes().removesuffix(b"\n")))
        if not home.is_absolute():
            return False
        try:
            (home / "postgres").lstat()
        except (FileNotFoundError, NotADirectoryError):
            return not _there(home)
        return (home / "postgres").resolve() != folder.resolve()
    except (OSError, RuntimeError):  # RuntimeError: a link to itself
        return False


def _there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _may_enter(account: Account, folder: Path) -> bool:
    code, _ = binaries.run(Path("/bin/sh"), ["-c", 'cd -- "$1"', "sh", str(folder)], account, timeout=60)
    return code == 0

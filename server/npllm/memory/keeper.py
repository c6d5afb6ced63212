"""`python -m npllm.memory.keeper FOLDER LINGER_S`: stops the embedded PostgreSQL when nobody uses it any more.

Every process that uses the server holds a shared lock on `clients.lock`; the kernel frees it when the process
ends, however it ends. The keeper, detached from all of them, tries for the exclusive lock every second; when
that has succeeded for `LINGER_S` seconds it stops the server and goes. Imports no torch and no asyncpg.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from npllm.memory import binaries, cluster
from npllm.memory.layout import Layout
from npllm.memory.locks import FileLock, is_locked
from npllm.types import StoreError

log = logging.getLogger("npllm.memory.keeper")

POLL_S = 1.0


def ensure(place: Layout, linger_s: float) -> None:
    """See to it that a keeper watches over `place`. Called while holding `start.lock`."""
    if is_locked(place.keeper_lock):
        return
    import npllm

    package_parent = str(Path(npllm.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    with (place.folder / "keeper.log").open("ab") as output:
        code = subprocess.run(
            [sys.executable, "-m", "npllm.memory.keeper", str(place.folder), str(linger_s)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
            check=False,
        ).returncode
    if code != 0:
        raise StoreError(f"The database's keeper does not start (status {code}): see {place.folder / 'keeper.log'}.")


def main(arguments: list[str]) -> int:
    place = Layout(Path(arguments[0]), binaries.server_account())
    linger_s = float(arguments[1])
    mine = FileLock(place.keeper_lock)
    if not mine.try_acquire():
        return 0  # there is one already
    if os.fork() > 0:
        os._exit(0)  # whoever started us goes on; the child keeps the lock
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        _watch(place, linger_s, mine)
    except FileNotFoundError:
        log.info("%s was removed", place.folder)
    except Exception:
        log.exception("the keeper of %s failed", place.folder)
        return 1
    return 0


def _watch(place: Layout, linger_s: float, mine: FileLock) -> None:
    alone_since: float | None = None
    while place.start_lock.exists():  # else the whole folder was removed
        time.sleep(min(POLL_S, linger_s))
        if is_locked(place.clients_lock):
            alone_since = None
            continue
        alone_since = alone_since or time.monotonic()
        if time.monotonic() - alone_since >= linger_s and _stop_if_alone(place, mine):
            return


def _stop_if_alone(place: Layout, mine: FileLock) -> bool:
    starting = FileLock(place.start_lock)
    if not place.start_lock.exists() or not starting.try_acquire():
        return False
    try:
        if is_locked(place.clients_lock):
            return False
        cluster.stop(place)
        mine.release()  # before start.lock: the next one to start must see that no keeper is left
        log.info("nobody uses %s: stopped", place.data)
        return True
    finally:
        starting.release()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

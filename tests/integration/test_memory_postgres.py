"""The embedded PostgreSQL under ill treatment: real processes, killed for real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from npllm import config
from npllm.memory import cluster, layout
from npllm.memory.locks import is_locked
from npllm.memory.postgres import EmbeddedPostgres, destroy, status
from npllm.memory.presence import RECONNECT
from npllm.memory.store import Store
from npllm.types import StoreError
from tests.fixtures_memory import make_suggestion

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0

CLIENT = """
import sys
from pathlib import Path
from npllm.memory.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), linger_s=0.3)
print(server.start_blocking().url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def own(home: Path) -> Iterator[Path]:
    """A data folder whose embedded server is stopped and deleted afterwards."""
    yield home
    eventually(lambda: _destroyed(home))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder in a closed folder, with a server that several tests ill-treat, one after the other."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    home = closed / "home"
    with joined(home) as server:
        server.start_blocking()
        yield home
    eventually(lambda: _destroyed(home))


@pytest.fixture
def odd() -> Iterator[Path]:
    """A data folder that every user may enter, of a long and odd name."""
    top = Path("/tmp") / f"npllm-test-{os.getpid()}"
    home = top / 'it\'s "odd" $HOME `x` çã' / ("long" * 30)
    home.mkdir(parents=True)
    yield home
    eventually(lambda: _destroyed(home))
    shutil.rmtree(top)


@contextlib.contextmanager
def joined(home: Path, linger_s: float = 3600) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(home, linger_s=linger_s)
    try:
        yield server
    finally:
        server.close_blocking()


def _destroyed(home: Path) -> bool:
    try:
        destroy(home)
    except StoreError:  # somebody is still leaving
        return False
    return True


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def client(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "server")},
    )


def end(process: subprocess.Popen[str], *, kill: bool = False) -> None:
    if kill:
        process.kill()
    process.communicate(timeout=PATIENCE_S)


def ask(url: str, sql: str) -> Any:
    async def once() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(once())


def postmasters(home: Path) -> list[psutil.Process]:
    place = layout.find(home)
    assert place is not None
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.info["name"] == "postgres" and Path(process.cwd()) == place.data:
                parent = process.parent()
                if parent is None or parent.name() != "postgres":
                    found.append(process)
    return found


def running(home: Path) -> bool:
    return status(home).running


def test_several_processes_starting_at_once_share_one_server_which_ends_with_the_last(own: Path) -> None:
    clients = [client(own) for _ in range(4)]
    urls = {process.stdout.readline().strip() for process in clients if process.stdout}
    assert len(urls) == 1 and len(postmasters(own)) == 1
    for process in clients[:3]:
        end(process)
    seen = status(own)
    assert seen.running and seen.made and seen.installed and seen.version.startswith("18.")
    assert seen.size > 10_000_000 and seen.socket is not None and seen.socket.is_dir()
    end(clients[3], kill=True)
    eventually(lambda: not running(own))
    assert postmasters(own) == []
    place = layout.find(own)
    assert place is not None
    eventually(lambda: not is_locked(place.keeper_lock))
    assert "stopped" in (place.folder / "keeper.log").read_text()


async def test_nothing_acknowledged_is_missing_after_the_server_is_killed_while_writing(used: Path) -> None:
    store = await Store.connect(config.load(used))
    other = await Store.connect(config.load(used))
    already = (await store.counts()).suggestions
    heard: list[str] = []
    await other.listen(heard.append)
    acknowledged = []
    killed = 0

    async def write() -> None:
        while killed < 2 or len(acknowledged) < done_after:
            record = make_suggestion()
            await store.write([record])
            acknowledged.append(record.id)

    done_after = 10**9
    writing = [asyncio.create_task(write()) for _ in range(3)]
    for _ in range(2):
        before = len(acknowledged)
        while len(acknowledged) < before + 20:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        [postmaster] = postmasters(used)
        postmaster.kill()
        killed += 1
    done_after = len(acknowledged) + 20
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*writing)
    for one in acknowledged:
        assert await store.suggestion(one) is not None
    assert (await store.counts()).suggestions == already + len(acknowledged)
    async with asyncio.timeout(PATIENCE_S):
        while RECONNECT not in heard:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await store.close()
    await other.close()


def test_a_killed_backend_is_survived(used: Path) -> None:
    async def go() -> None:
        store = await Store.connect(config.load(used))
        before = (await store.counts()).suggestions
        for process in postmasters(used)[0].children():
            if "idle" in " ".join(process.cmdline()):
                process.kill()
        await store.write([make_suggestion()])
        assert (await store.counts()).suggestions == before + 1
        await store.close()

    asyncio.run(go())


def test_what_a_crash_leaves_lying_about_does_not_stop_a_start(used: Path) -> None:
    with joined(used) as server:
        url = server.start_blocking().url
        place = layout.find(used)
        assert place is not None
        ask(url, "CREATE TABLE precious AS SELECT 7 AS number")
        pid_file = place.data / "postmaster.pid"
        whole = pid_file.read_text()
        mine = whole.replace(whole.split("\n")[0], str(os.getpid()), 1)  # a pid that lives, and is no PostgreSQL
        for left in (mine, "", "12", whole):
            if left is whole:
                postmasters(used)[0].kill()
            else:
                cluster.stop(place)  # the same to the next start, and quicker than a recovery
            eventually(lambda: not is_locked(place.server_lock))
            pid_file.unlink(missing_ok=True)
            pid_file.write_text(left)
            if place.account:
                os.chown(pid_file, place.account.uid, place.account.gid)
            assert server.start_blocking().url == url
            assert ask(url, "SELECT number FROM precious") == 7
            assert len(postmasters(used)) == 1

        # A live server whose pid file is damaged is used as it is, and can be stopped.
        pid_file.write_text(whole[:3])
        assert server.start_blocking().url == url
        assert len(postmasters(used)) == 1
        cluster.stop(place)
        assert not running(used)

        # A live server whose socket somebody cleaned away is replaced.
        server.start_blocking()
        folder = layout.noted_socket_folder(place)
        assert folder is not None
        shutil.rmtree(folder)
        assert ask(server.start_blocking().url, "SELECT number FROM precious") == 7


def test_a_half_made_database_is_never_taken_for_one(odd: Path) -> None:
    first = client(odd)
    eventually(lambda: list((odd / "postgres").resolve().glob("new-*/base")))
    end(first, kill=True)  # in the middle of initdb
    place = layout.find(odd)
    assert place is not None and place.folder == odd / "postgres"
    assert not status(odd).made
    (place.data / "base").mkdir(parents=True)  # as another launcher would have left it
    (place.data / "base" / "1").write_text("half")
    with joined(odd, 0.3) as server:
        assert ask(server.start_blocking().url, "SELECT 1") == 1
    assert not list(place.folder.glob("new-*"))
    [aside] = place.folder.glob("broken-*")
    assert (aside / "base" / "1").read_text() == "half"


def test_a_path_too_long_for_postgresql_is_said() -> None:
    top = Path("/tmp") / f"npllm-test-{os.getpid()}"
    home = top.joinpath(*["d" * 200] * 5)
    home.mkdir(parents=True)
    try:
        with pytest.raises(StoreError, match="too long"):
            EmbeddedPostgres(home).start_blocking()
    finally:
        shutil.rmtree(top)


def test_a_folder_that_cannot_be_made_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="NPLLM_HOME") as caught:
        EmbeddedPostgres(tmp_path / "file" / "home").start_blocking()
    assert "NPLLM_DATABASE_URL" in str(caught.value)


def test_a_database_of_another_version_is_not_touched(own: Path) -> None:
    place = layout.make(own)
    place.data.mkdir()
    (place.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(StoreError, match="made by PostgreSQL 12"):
        EmbeddedPostgres(own).start_blocking()


@pytest.mark.skipif(os.geteuid() != 0, reason="about running as root")
def test_root_runs_it_as_somebody_else_and_opens_no_folder_of_the_person(used: Path) -> None:
    place = layout.find(used)
    assert place is not None and place.account is not None
    for process in postmasters(used):
        assert process.uids().real == place.account.uid != 0
    for folder in (used.parent, used, place.data):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert used not in place.folder.parents


def _ordinary_python() -> str | None:
    """An interpreter like ours that user nobody can run; None where there is none."""
    if os.geteuid() != 0:
        return None
    for candidate in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if candidate is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(
                [candidate, "-c", "import sys, npllm.memory.postgres; print(sys.version_info[:2])"],
                env=_ordinary_environment(),
                user="nobody",
                group=65534,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            ).stdout.strip()
            if found == str(sys.version_info[:2]):
                return candidate
    return None


def _ordinary_environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HOME": "/nonexistent"}


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_has_it_in_the_home_itself() -> None:
    python = _ordinary_python()
    if python is None:
        pytest.skip("user nobody can run no Python here")
    home = Path("/tmp") / f"npllm-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    try:
        process = subprocess.Popen(
            [python, "-c", CLIENT, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user="nobody",
            group=65534,
            extra_groups=[],
            cwd="/",
            env=_ordinary_environment(),
        )
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        data = home / "postgres" / "data"
        assert ask(url, "SELECT 1") == 1
        assert data.is_dir() and data.stat().st_uid == 65534 and not (home / "postgres").is_symlink()
        end(process, kill=True)
        eventually(lambda: not is_locked(home / "postgres" / "server.lock"))
    finally:
        shutil.rmtree(home)

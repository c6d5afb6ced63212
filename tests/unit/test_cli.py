"""The command line: what it hands to whom, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from npllm import cli, config, doctor
from npllm.memory import binaries, layout, postgres
from npllm.memory.locks import FileLock
from npllm.types import StoreError


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["demo", "--seed", "1"], "npllm.evaluation.demo"),
        (["eval", "replay", "--home", "/runs"], "npllm.evaluation.replay"),
        (["starter", "build", "--help"], "npllm.starter.build"),
        (["base", "use", "starter"], "npllm.bases.command"),
        (["adapters", "list"], "npllm.lineage.command"),
        (["memory", "off-limits"], "npllm.forgetting.command"),
        (["stats", "--json"], "npllm.stats"),
    ],
)
@pytest.mark.parametrize("before", [["--home", "elsewhere"], ["--home=elsewhere"], []])
def test_home_goes_before_any_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], module: str, before: list[str]
) -> None:
    given: list[Any] = []
    fake = SimpleNamespace(main=lambda arguments: given.append((arguments, os.environ["NPLLM_HOME"])) or 0)
    package, name = module.rsplit(".", 1)
    monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setattr(sys.modules.get(package) or __import__(package, fromlist=["x"]), name, fake, raising=False)
    assert cli.main([*before, *words]) == 0
    own = words[1:] if words[0] in ("demo", "base", "adapters", "memory", "stats") else words[2:]
    assert given == [(own, str(Path("elsewhere").absolute()) if before else str(home))]


@pytest.mark.parametrize("words", [["starter", "build"], ["eval", "replay"]])
def test_help_is_that_of_the_real_parser(home: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--home", str(home), *words, "--help"])
    assert ended.value.code == 0
    assert f"usage: npllm {' '.join(words)}" in capsys.readouterr().out


@pytest.mark.parametrize("address", ["", "0", "65536", "99999999999", "-1", "x", "host:", "²", "127.0.0.1:port"])
def test_a_wrong_port_is_one_sentence(home: Path, capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert cli.main(["serve", f"--tcp={address}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("npllm: --tcp wants") and said.count("\n") == 1
    assert not (home / "logs").exists()


def test_a_busy_port_is_one_sentence(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "npllm.cli", "serve", "--tcp", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert f"npllm: Cannot listen on {port}: " in ended.stderr and "Traceback" not in ended.stderr


def test_the_doctor_says_what_any_exception_of_the_base_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from npllm.models.base import Base

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("header too large\nand a long story")

    monkeypatch.setattr(Base, "load", broken)
    check = doctor._base(config.load())
    assert not check.ok and check.found == "starter: header too large"


@pytest.mark.parametrize("stage", ["connect", "counts", "status"])
def test_a_database_that_fails_is_one_check_among_the_others(
    home: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from npllm.memory.store import Store

    async def away(*_: object) -> None:
        raise StoreError("The database went away.")

    async def connect(_: object) -> SimpleNamespace:
        return SimpleNamespace(counts=away, close=_nothing, url="embedded")

    async def _nothing() -> None:
        return None

    if stage == "status":
        missing = postgres.PostgresStatus(False, "not there", False, False, home, home, None, home, 0)
        monkeypatch.setattr(postgres, "status", lambda _: missing)
    monkeypatch.setattr(Store, "connect", away if stage == "connect" else connect)
    monkeypatch.setattr(doctor, "_base", lambda _: doctor.Check("base", True, ""))
    checks = {check.name: check for check in asyncio.run(doctor.examine())}
    assert not checks["database"].ok and "journal" in checks
    if stage == "status":
        assert "not there" in checks["database"].found
    else:
        found = checks["database"].found
        assert "The database went away." in found and "PostgreSQL 1" in found and "0 MB in" in found


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for /var/lib/npllm."""
    folder = tmp_path / "clusters"
    folder.mkdir()
    monkeypatch.setattr(layout, "ROOT_FOLDER", folder)
    monkeypatch.setattr(binaries, "server_account", lambda: None)
    return folder


def cluster_of(home: Path) -> Path:
    home.mkdir()
    layout._link_outside(home, home / "postgres")
    folder = (home / "postgres").resolve()
    (folder / "start.lock").touch()
    (folder / "data").mkdir()
    (folder / "data" / "PG_VERSION").write_text("18\n")
    return folder


def test_prune_removes_only_what_no_data_folder_has(
    clusters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [cluster_of(tmp_path / "lives")]
    gone = cluster_of(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    first = cluster_of(tmp_path / "anew")
    shutil.rmtree(tmp_path / "anew")
    kept.append(cluster_of(tmp_path / "anew"))  # a new home of the old name
    unlinked = cluster_of(tmp_path / "unlinked")
    (tmp_path / "unlinked" / "postgres").unlink()
    unnoted = cluster_of(tmp_path / "unnoted")
    (unnoted / "home").unlink()
    shutil.rmtree(tmp_path / "unnoted")
    stranger = clusters / "something-else"
    stranger.mkdir()
    (stranger / "home").write_text("/no/such/home\n")
    used = []
    for name in ("start", "clients", "server", "keeper"):
        used.append(cluster_of(tmp_path / name))
        shutil.rmtree(tmp_path / name)
    locks = [FileLock(folder / f"{name}.lock") for folder, name in zip(used, ("start", "clients", "server", "keeper"))]
    for lock in locks:
        assert lock.try_acquire(shared=lock.path.name == "clients.lock")
    assert postgres.orphans() == sorted([gone, first])
    assert cli.main(["doctor", "--prune"]) == 0
    assert capsys.readouterr().out.count("removed") == 2
    assert set(clusters.iterdir()) == {*kept, unlinked, unnoted, stranger, *used}
    assert all(postgres.remove_orphan(folder) is None for folder in (*kept, unlinked, unnoted, stranger, *used))
    for lock in locks:
        lock.release()
    assert postgres.orphans() == sorted(used)


def test_the_database_of_a_data_folder_that_was_moved_and_used_is_kept(clusters: Path, tmp_path: Path) -> None:
    folder = cluster_of(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    assert layout.make(tmp_path / "after").folder == folder
    assert postgres.orphans() == []


def test_without_a_folder_for_root_there_are_no_orphans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layout, "ROOT_FOLDER", tmp_path / "none")
    assert postgres.orphans() == []

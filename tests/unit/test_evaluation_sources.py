"""Sources: zip archives are read safely, git revisions and cached wheels become trees."""

from __future__ import annotations

import io
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from npllm.evaluation import sources
from npllm.evaluation.sources import EvaluationError


def _zip(members: dict[str, bytes], *, links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if name in links else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "c:/evil.py", "..\\evil.py"])
def test_a_name_outside_the_folder_is_refused(name: str) -> None:
    with pytest.raises(EvaluationError, match="outside"):
        sources.read_zip(_zip({name: b"x = 1\n"}), (".py",), where="bad.whl")


def test_links_other_endings_and_undecodable_files_are_left_out() -> None:
    content = _zip(
        {"p/a.py": b"a = 1\r\n", "p/link.py": b"/etc/passwd", "p/data.bin": b"\0", "p/latin.py": b"# \xe9\n"},
        links=("p/link.py",),
    )
    assert sources.read_zip(content, (".py",), where="x") == {"p/a.py": "a = 1\r\n"}


def test_what_is_no_zip_is_said_so() -> None:
    with pytest.raises(EvaluationError, match=r"torn\.whl is not a zip file"):
        sources.read_zip(b"PK\x03\x04 torn", (".py",), where="torn.whl")


def test_unpack_writes_the_exact_text(tmp_path: Path) -> None:
    sources.unpack(sources.Tree("1", {"p/a.py": "é = 1\r\n"}), tmp_path)
    assert (tmp_path / "p" / "a.py").read_bytes() == "é = 1\r\n".encode()


def test_cached_wheels_need_no_network(tmp_path: Path) -> None:
    (tmp_path / "my_thing-1.0-py3-none-any.whl").write_bytes(_zip({"t.py": b"one = 1\n"}))
    (tmp_path / "my_thing-2.0-py3-none-any.whl").write_bytes(_zip({"t.py": b"two = 2\n"}))
    pair = sources.package("My.Thing", "1.0", "2.0", tmp_path)
    assert (pair.old.files, pair.new.files) == ({"t.py": "one = 1\n"}, {"t.py": "two = 2\n"})


@pytest.mark.parametrize(("name", "version"), [("--index-url", "1.0"), ("a b", "1.0"), ("good", "-r x"), ("good", "")])
def test_names_and_versions_cannot_be_options(tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(EvaluationError):
        sources.package(name, version, "2.0", tmp_path)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching (from versions: none)",
            "no network",
        ),
        ("ERROR: Could not find a version (from versions: 1.0, 1.1)\nERROR: No", "The latest: 1.0, 1.1"),
        ("ERROR: Could not find a version that satisfies x (from versions: none)", "No package named"),
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("ERROR: disk full", "disk full"),
    ],
)
def test_why_a_download_failed(output: str, said: str) -> None:
    assert said in sources._why("thing", "9", output)


def _git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_two_revisions_of_a_repository(tmp_path: Path) -> None:
    repo = tmp_path / "proj"
    repo.mkdir()
    _git(repo, "init", "-q", "-b", "main")
    (repo / "a.py").write_text("one = 1\n")
    (repo / "notes.txt").write_text("no code\n")
    _git(repo, "add", ".")
    _git(repo, "commit", "-q", "-m", "one")
    _git(repo, "tag", "v1")
    (repo / "a.py").write_text("one = 1\ntwo = 2\n")
    _git(repo, "commit", "-q", "-a", "-m", "two")
    (repo / "a.py").write_text("not committed\n")

    pair = sources.repository(repo, "v1", "main")
    assert pair.project == "proj"
    assert pair.old.files == {"a.py": "one = 1\n"}
    assert pair.new.files == {"a.py": "one = 1\ntwo = 2\n"}
    with pytest.raises(EvaluationError, match="v9"):
        sources.repository(repo, "v9", "main")
    with pytest.raises(EvaluationError, match="--output"):
        sources.repository(repo, "--output=x", "main")
    with pytest.raises(EvaluationError, match="not a git repository"):
        sources.repository(tmp_path, "a", "b")

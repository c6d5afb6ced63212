"""Passages of a project's files: which files are read, which never, and what a passage is."""

from __future__ import annotations

import stat
import subprocess
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from npllm.sleep import project
from npllm.sleep.interruption import Interrupted
from npllm.sleep.project import Passage, passages
from npllm.types import Experience
from tests.fixtures_sleep import experience

TEXT = "".join(f"def number_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))


def lies_in(root: Path, path: str) -> Experience:
    """An experience in a file of a project."""
    import dataclasses

    made = experience(path=path)
    return dataclasses.replace(made, place=dataclasses.replace(made.place, project=str(root), path=path))


def draw(root: Path, experiences: Collection[Experience] = (), *, count: int = 1000, seed: str = "1") -> list[Passage]:
    given = [*experiences, lies_in(root, "elsewhere.py")]
    return list(
        passages("python", given, count=count, characters=600, seed=seed, stop=threading.Event()),
    )


def write(root: Path, *paths: str, text: str = TEXT) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def files(found: Collection[Passage]) -> set[str]:
    return {passage.path for passage in found}


def test_a_passage_is_the_files_own_text_around_one_line(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    found = draw(tmp_path)
    assert len(found) > 2
    for passage in found:
        assert passage.prefix + passage.line + passage.suffix in TEXT
        assert len(passage.line.strip()) > 2
        assert passage.line == passage.line.strip(), "the indentation stands before the cursor"
        assert (passage.project, passage.path) == (str(tmp_path), "a.py")
    assert any(passage.prefix.endswith("    ") for passage in found)


def test_files_of_this_sleeps_experiences_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "b.py", "held/out.py")
    assert files(draw(tmp_path, [lies_in(tmp_path, "a.py"), lies_in(tmp_path, "held/out.py")])) == {"b.py"}


def test_with_git_only_what_it_tracks_is_read(tmp_path: Path) -> None:
    write(tmp_path, "kept.py", "secret_local.py", "deep/also.py", "notes.txt")
    (tmp_path / ".gitignore").write_text("secret_*\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    write(tmp_path, "not_added.py")
    assert files(draw(tmp_path)) == {"kept.py", "deep/also.py"}


def test_without_git_hidden_folders_and_those_of_tools_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "src/a.py", ".hidden/b.py", "node_modules/c.py", "x/venv/d.py", ".dot.py", "src/e.js", ".env")
    assert files(draw(tmp_path)) == {"src/a.py"}


def test_what_is_no_source_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "good.py")
    write(tmp_path, "packed.py", text="x = '" + "a" * 2000 + "'\n" + TEXT)
    write(tmp_path, "data.py", text=TEXT * 300)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n" + TEXT.encode())
    (tmp_path / "zero.py").write_text("\0" + TEXT)
    (tmp_path / "folder.py").mkdir()
    outside = tmp_path.parent / f"{tmp_path.name}-outside.py"
    outside.write_text(TEXT)
    (tmp_path / "link.py").symlink_to(outside)
    assert files(draw(tmp_path)) == {"good.py"}


def test_no_file_rules_and_the_seed_decides(tmp_path: Path) -> None:
    write(tmp_path, "long.py", text=TEXT * 20)
    write(tmp_path, *(f"short_{n}.py" for n in range(10)))
    found = draw(tmp_path, count=40)
    assert len(found) == 40
    assert sum(passage.path == "long.py" for passage in found) <= project.PER_FILE
    assert draw(tmp_path, count=40) == found
    assert draw(tmp_path, count=40, seed="2") != found


def test_a_folder_that_is_gone_or_a_language_that_is_not_known_gives_nothing(tmp_path: Path) -> None:
    assert draw(tmp_path / "gone") == []
    write(tmp_path, "a.py")
    given = [lies_in(tmp_path, "x.py")]
    assert passages("cobol", given, count=9, characters=600, seed="1", stop=threading.Event()) == ()
    assert passages("python", given, count=0, characters=600, seed="1", stop=threading.Event()) == ()


def test_they_are_kept_for_this_user_alone_and_come_back_the_same(tmp_path: Path) -> None:
    write(tmp_path / "p", "a.py")
    found = tuple(draw(tmp_path / "p"))
    folder = tmp_path / "checkpoint"
    assert project.kept(folder) is None
    project.keep(folder, found)
    assert project.kept(folder) == found
    assert stat.S_IMODE((folder / project.PASSAGES).stat().st_mode) == 0o600
    (folder / project.PASSAGES).write_text("[{")
    assert project.kept(folder) is None


def test_the_person_comes_back(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        passages("python", [lies_in(tmp_path, "x.py")], count=9, characters=600, seed="1", stop=stop)

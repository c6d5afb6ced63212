"""Passages of a project's files: which files are read, which never, and what a passage is."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from npllm.sleep import project
from npllm.sleep.interruption import Interrupted
from npllm.sleep.project import Passage, passages, set_aside
from npllm.types import Decision, Experience
from tests.fixtures_sleep import experience

TEXT = "".join(f"def number_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))


def lies_in(root: Path, path: str) -> Experience:
    """An experience in a file of a project."""
    made = experience(path=path)
    place = dataclasses.replace(made.place, uri=(root / path).as_uri(), project=str(root), path=path)
    return dataclasses.replace(made, place=place)


def draw(
    root: Path,
    experiences: Collection[Experience] = (),
    *,
    learned: Sequence[Experience] | None = None,
    held_out: Sequence[Experience] = (),
    apart: Sequence[Experience] = (),
    count: int = 1000,
    seed: str = "1",
) -> list[Passage]:
    given = [*experiences, lies_in(root, "elsewhere.py")]
    judged = {item.id for item in held_out}
    taught = [item for item in given if item.id not in judged] if learned is None else learned
    stop, sides = threading.Event(), {"learned": taught, "held_out": held_out, "apart": apart}
    return list(passages("python", given, **sides, count=count, characters=600, seed=seed, stop=stop))


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


def test_files_of_this_sleeps_experiences_come_last_and_those_of_held_out_ones_alone_never(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "b.py", "held/out.py")
    held_out, refused, learned = (lies_in(tmp_path, path) for path in ("held/out.py", "held/out.py", "a.py"))
    given = [learned, held_out, refused]  # what is refused is neither learned nor held out
    for count, wanted in ((2, {"b.py"}), (1000, {"a.py", "b.py"})):
        assert files(draw(tmp_path, given, learned=[learned], held_out=[held_out], count=count)) == wanted


CALL = "    return compute(held_out_argument, another)\n"
WRITTEN = "for one in everything:\n        total += one\n        count += 1"


@pytest.mark.parametrize(
    ("there", "prefix", "final", "suffix", "secret"),
    [
        (CALL, "    return compute(", "held_out_argument, another", ")\n", "held_out_argument"),
        (f"    {WRITTEN}\n", "    ", WRITTEN, "\n", "count += 1"),
        ("    x = 7\n", "def number_7(value, something):\n    ", "x = 7", "\n", "x = 7"),
        (CALL, "def number_7(value, something):\n    return ", "compute(held)", "\n", "held_out_argument"),
        (CALL, "    return ", "compute(held)", "\n\n\ndef number_8(value, something):\n", "held_out_argument"),
    ],
    ids=["a closed bracket", "many lines", "a short line", "changed, line above", "changed, line below"],
)
def test_of_a_file_that_is_learned_from_no_piece_with_a_held_out_text_is_read(
    tmp_path: Path, there: str, prefix: str, final: str, suffix: str, secret: str
) -> None:
    text = "".join(f"def number_{n}(value, something):\n    return value + {n}\n\n\n" for n in range(60))
    write(tmp_path, "a.py", text=text.replace("    return value + 7\n", there))
    held_out = dataclasses.replace(lies_in(tmp_path, "a.py"), prefix=prefix, final_text=final, suffix=suffix)
    given = [lies_in(tmp_path, "a.py"), held_out]

    def shown(**options: Sequence[Experience]) -> bool:
        found = [draw(tmp_path, given, **options, seed=seed) for seed in "123"]
        assert all(found)
        return any(secret in one.prefix + one.line + one.suffix for drawn in found for one in drawn)

    assert shown() and not shown(held_out=[held_out])
    assert not shown(apart=[held_out]), "what an earlier sleep held out is not read either"


def test_a_file_in_which_a_disliked_suggestion_was_left_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "b.py")
    left = lies_in(tmp_path, "a.py")
    left = dataclasses.replace(left, decision=Decision.AVOID, suggested=left.final_text)
    assert files(draw(tmp_path, [left])) == {"b.py"}


def test_a_file_of_held_out_lines_alone_is_known_by_whatever_way_it_is_reached(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "package/b.py", "package/c.py")
    (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    nested = lies_in(tmp_path / "package", "b.py")  # a workspace folder in a workspace folder
    alone = lies_in(tmp_path, "a.py")  # opened without its folder
    alone = dataclasses.replace(alone, place=dataclasses.replace(alone.place, project="", path="a.py"))
    linked = lies_in(tmp_path.parent / f"{tmp_path.name}-link", "package/c.py")
    assert draw(tmp_path, [nested, alone, linked], held_out=[nested, alone, linked]) == []


def test_what_is_set_aside_stands_in_nothing_that_is_learned_and_is_the_same_each_night(tmp_path: Path) -> None:
    text = "".join(f"def function_{n}(value):\n    return value + {n}\n\n\n" for n in range(200))
    write(tmp_path, "a.py", "b.py", text=text)
    found, again = draw(tmp_path), draw(tmp_path, seed="2")
    aside, others = set_aside(found, [], 3)
    assert len(found) / 6 < len(aside) < len(found) / 2
    assert sorted(map(str, (*aside, *others))) == sorted(map(str, found))

    def pieces(given: Collection[Passage]) -> set[tuple[str, str]]:
        return {(one.path, one.prefix + one.line + one.suffix) for one in given}

    assert pieces(set_aside(again, [], 3)[0]).isdisjoint(pieces(others)), "another draw asks for other lines of them"
    around = dataclasses.replace(lies_in(tmp_path, "a.py"), prefix="", final_text="import x\n", suffix=text)
    nested = dataclasses.replace(around, place=dataclasses.replace(around.place, project="", path="elsewhere"))
    for learned in (around, nested):
        aside, others = set_aside(found, [learned], 3)
        assert aside and files(aside) == {"b.py"}, "every line of a.py stands around what is learned there"
        assert len(aside) + len(others) == len(found)


def test_a_copy_of_what_is_held_out_is_not_read(tmp_path: Path) -> None:
    above, line = "def number_of_all_the_things(value):", "    return value + sum(things)"
    write(tmp_path, "copied.py", text=f"{TEXT}{above}\n{line}\n")
    write(tmp_path, "other.py")
    made = lies_in(tmp_path, "elsewhere.py")
    held_out = dataclasses.replace(made, prefix=f"import x\n{above}\n    ret", final_text="urn value + sum(things)")
    assert files(draw(tmp_path)) == {"copied.py", "other.py"}
    assert files(draw(tmp_path, held_out=[held_out])) == {"other.py"}
    common = dataclasses.replace(made, prefix="def number_1(value):\n    ", final_text="x")
    assert files(draw(tmp_path, held_out=[common])) == {"copied.py", "other.py"}, "what stands everywhere tells nothing"


def test_what_git_ignores_is_not_read_even_if_nothing_is_tracked(tmp_path: Path) -> None:
    write(tmp_path, "secret_local.py")
    (tmp_path / ".gitignore").write_text("secret_*\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert draw(tmp_path) == []
    write(tmp_path, ".demo/project/a.py", "several/one/b.py", "several/one/not_added.py", "several/c.py")
    with (tmp_path / ".gitignore").open("a") as stream:
        stream.write(".demo\nseveral\n")
    assert files(draw(tmp_path / ".demo/project")) == {"a.py"}, "a folder that a repository ignores is not part of it"
    subprocess.run(["git", "init", "-q", str(tmp_path / "several/one")], check=True)
    subprocess.run(["git", "-C", str(tmp_path / "several/one"), "add", "b.py"], check=True)
    assert files(draw(tmp_path / "several")) == {"one/b.py", "c.py"}, "a repository below is asked"


def test_a_damaged_repository_gives_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.py")
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    assert draw(tmp_path) == []


@pytest.mark.parametrize("git", [True, False])
def test_a_name_that_is_no_text_is_passed_over(tmp_path: Path, git: bool) -> None:
    write(tmp_path, "good.py")
    try:
        (tmp_path / os.fsdecode(b"bad\xff.py")).write_text(TEXT)
    except OSError:
        pytest.skip("this file system takes no such names")
    if git:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    assert files(draw(tmp_path)) == {"good.py"}


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

"""General code that is rehearsed: never what the gate judges by, never what is held out, of packages alone."""

from __future__ import annotations

import dataclasses
import sysconfig
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from npllm.sleep.general import general
from npllm.sleep.interruption import Interrupted
from npllm.sleep.project import Passage
from npllm.sleep.rehearsal import beside, between, passages
from npllm.types import Experience
from tests.fixtures_sleep import experience

TEXT = "".join(f"def number_{n}(value):\n    return value + {n}\n\n\n" for n in range(40))


def draw(root: Path | None = None, experiences: Collection[Experience] = (), **more: Any) -> tuple[Passage, ...]:
    options: dict[str, Any] = {"count": 1000, "characters": 600, "seed": "1", "stop": threading.Event(), "root": root}
    return passages("python", list(experiences), **(options | more))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small standard library."""
    for path, text in {
        "top.py": "".join(f"# {n}\n\nname_{n} = {n} * sum(range({n}))\n" for n in range(60)),
        "one/__init__.py": TEXT,
        "one/deep/two.py": TEXT.replace("number", "other"),
        "one/tests/test_two.py": TEXT,
        "test/__init__.py": TEXT,
        "encodings/__init__.py": TEXT,
        "site-packages/installed/__init__.py": TEXT,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def files(found: Collection[Passage]) -> set[str]:
    return {passage.path for passage in found}


def test_what_the_gate_judges_by_is_never_rehearsed() -> None:
    judged, _ = general("python")
    found = draw(count=2000, characters=3000)
    assert len(judged) == 60 and len(found) > 300
    root = Path(sysconfig.get_path("stdlib"))
    read = {(root / passage.path).resolve() for passage in found}
    assert read.isdisjoint((root / passage.path).resolve() for passage in judged)
    assert all(path.parent != root.resolve() for path in read), "no module at the top, whichever the gate chooses"
    texts = [passage.prefix + passage.line + passage.suffix for passage in found]
    for passage in judged:
        line = passage.prefix.rpartition("\n")[2] + passage.line
        above = passage.prefix.split("\n")[-2]
        assert not any(f"{above}\n{line}" in text for text in texts), f"{passage.path}: {line}"


def test_a_copy_of_a_line_that_is_judged_is_left_out(library: Path) -> None:
    judged, _ = general("python", library)
    assert {passage.path for passage in judged} == {"top.py"}
    copied = (library / "top.py").read_text(encoding="utf-8")
    (library / "one" / "copy.py").write_text(copied, encoding="utf-8")
    found = [passage for passage in draw(library) if passage.path == "one/copy.py"]
    assert found, "the rest of the file may be read"
    for passage in found:
        text = passage.prefix + passage.line + passage.suffix
        assert text in copied
        assert not any(one.line in text for one in judged)


def test_only_the_packages_code_is_read(library: Path) -> None:
    assert files(draw(library)) == {"one/__init__.py", "one/deep/two.py"}
    for passage in draw(library):
        assert passage.project == str(library)
        text = (library / passage.path).read_text(encoding="utf-8")
        assert passage.prefix + passage.line + passage.suffix in text


def test_what_is_held_out_or_worked_on_or_off_limits_is_left_out(library: Path) -> None:
    above, line = "def number_of_all_the_things(value):", "    return value + sum(things)"
    (library / "one" / "__init__.py").write_text(f"{above}\n{line}\n\n\n{TEXT}", encoding="utf-8")
    held_out = experience(prefix=f"import x\n{above}\n    ret", final="urn value + sum(things)")
    assert any(line in passage.prefix + passage.line + passage.suffix for passage in draw(library, count=2000))
    for passage in draw(library, held_out=[held_out], count=2000):
        assert above not in passage.prefix + passage.line + passage.suffix
    made = experience(path="one/deep/two.py")
    place = dataclasses.replace(made.place, uri=(library / "one/deep/two.py").as_uri(), project=str(library))
    assert files(draw(library, [dataclasses.replace(made, place=place)])) == {"one/__init__.py"}
    assert files(draw(library, off_limits=[str(library / "one" / "deep")])) == {"one/__init__.py"}
    assert draw(library, off_limits=[str(library)]) == ()
    assert files(draw(library, ignore=["deep/"])) == {"one/__init__.py"}


def test_there_is_none_for_other_languages_nor_without_a_library(library: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    assert passages("typescript", count=9, characters=600, seed="1", stop=stop, root=library) == ()
    assert "neither rehearsed nor judged" in general("typescript", library)[1]
    assert draw(library, count=0) == ()
    assert draw(tmp_path / "gone") == ()


def test_another_seed_draws_others_and_the_same_the_same(library: Path) -> None:
    assert draw(library, count=4) == draw(library, count=4) != draw(library, count=4, seed="2")
    assert len(draw(library, count=4)) == 4


def test_it_ends_when_the_person_is_back(library: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        draw(library, stop=stop)


def test_any_beginning_of_the_row_has_both_in_their_proportion() -> None:
    def some(name: str, count: int) -> list[Passage]:
        return [Passage("/p", name, "", str(number), "") for number in range(count)]

    own, other = some("own", 85), some("other", beside(85, 0.15))
    assert len(other) == 15
    row = between(own, other)
    assert sorted(row, key=str) == sorted([*own, *other], key=str)
    for end in range(20, 100):
        assert sum(passage.path == "other" for passage in row[:end]) == pytest.approx(0.15 * end, abs=1)
    assert between(own, ()) == tuple(own)
    assert between((), other) == tuple(other)
    assert between((), ()) == ()

"""Which files of a project are listed, and whether that is all."""

from __future__ import annotations

import time
from pathlib import Path

from npllm import projects


def test_when_the_time_is_up_what_was_found_is_listed(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"package{number:02}").mkdir()
        (tmp_path / f"package{number:02}" / "a.py").write_text("x = 1\n", encoding="utf-8")
    until, calls = time.monotonic() + 1.0, 0

    def look() -> None:
        nonlocal calls
        calls += 1
        while calls == 4 and time.monotonic() <= until:
            time.sleep(0.01)

    found = projects.files(tmp_path, (".py",), look, until)
    assert found.paths == ["package00/a.py", "package01/a.py"] and not found.whole
    found = projects.files(tmp_path, (".py",), lambda: None, time.monotonic() + 60)
    assert len(found.paths) == 20 and found.whole


def test_a_folder_that_is_gone_has_no_files_and_that_is_all(tmp_path: Path) -> None:
    assert projects.files(tmp_path / "gone", (".py",), lambda: None, time.monotonic() + 60) == projects.Listing(
        [], True
    )

"""`npllm bench memory`, small, over a real PostgreSQL of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from npllm import cli
from npllm.evaluation.bench import material, meaning, memory


def test_it_prints_latency_and_recall_and_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "REAL", 20)
    monkeypatch.setattr(memory, "QUERIES", 6)
    monkeypatch.setattr(meaning, "WRITING_S", 0.3)
    monkeypatch.setattr(material, "FILES", 60)
    (tmp_path / "mine.txt").write_text("stays", encoding="utf-8")
    folder = str(tmp_path)
    assert cli.main(["bench", "memory", "--sizes", "300", "--folder", folder, "--busy", "0", "--keep"]) == 0
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if re.match(r" +300  \w", line)]
    assert len(rows) == 8, said
    exact = [line for line in rows if "10 %" in line or "1 %" in line]  # small projects are searched exactly
    assert all(line.split()[-2:] == ["1.000", "0.0000"] for line in exact), said
    assert "experiences/s written" in said and "perturbing" in said
    assert (tmp_path / memory.FOLDER).exists()

    assert (
        cli.main(["bench", "memory", "--sizes", "200,400", "--folder", folder, "--busy", "0", "--only", "meaning"]) == 0
    )
    said = capsys.readouterr().out
    assert "200  there are 300 rows already" in said and "400  meaning" in said, "it goes on from what was kept"
    assert [path.name for path in tmp_path.iterdir() if path != home] == ["mine.txt"], "it removes its own folder alone"


def test_sizes_that_are_no_numbers_are_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "memory", "--sizes", "many"]) == 1
    assert "--sizes 'many' are no numbers" in capsys.readouterr().err

"""The ablation end to end: real assistant, PostgreSQL and sleeping child, a tiny base, a git history of real code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from npllm.config import Config
from npllm.evaluation.ablation import arms, command, exam, life, table
from npllm.evaluation.ablation.desk import Desk
from npllm.memory.postgres import destroy
from npllm.memory.store import Store
from npllm.types import StoreError

SOURCE = Path(__file__).resolve().parents[2] / "server" / "npllm"
FILES = ("types.py", "config.py", "feedback/reward.py", "assist/filters.py", "sleep/gate.py", "sleep/plan.py")
DAYS = 2
pytestmark = pytest.mark.timeout(900)  # for machines that are busy otherwise


def git(folder: Path, *arguments: str, day: int = 1) -> None:
    date = f"2026-03-0{day}T12:00:00Z"
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    environment = {**os.environ, **who, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=environment, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Our own source, grown by a third of each file a day, in two commits."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    for day in range(1, DAYS + 2):
        for half in (FILES[:3], FILES[3:]):
            for name in half:
                lines = (SOURCE / name).read_text(encoding="utf-8").splitlines(keepends=True)[:90]
                (folder / Path(name).name).write_text("".join(lines[: 30 * day]), encoding="utf-8")
            git(folder, "add", "-A", day=day)
            git(folder, "commit", "-qm", f"day {day}", day=day)
    return folder


@pytest.fixture
def arguments(project: Path, practised_model: Path, tmp_path: Path) -> list[str]:
    small = ["base.threads=1", "base.device=cpu", "base.context_tokens=192", "completion.max_new_tokens=4"]
    small += ["sleep.threads=1", "sleep.nice=0", "sleep.max_tokens=128", "sleep.min_holdout=2", "sleep.layers=all"]
    small += ["sleep.learning_rate=0.01", "sleep.project_share=0.3", "sleep.batch_tokens=256"]
    asked = ["--git", str(project), "--base", str(practised_model), "--arms", "LoRA", "--seeds", "0"]
    asked += ["--days", str(DAYS), "--morning", "10", "--heldout", "4", "--general", "1"]
    return ["--ablate", *asked, *(word for one in small for word in ("--set", one)), "--home", str(tmp_path / "eval")]


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "eval" / "ablation" / "cells"
    root = tmp_path / "eval" / "ablation"
    for _ in range(100):
        try:
            return destroy(root)
        except StoreError:
            time.sleep(0.1)


def test_days_go_on_after_a_kill(arguments: list[str], cells: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "npllm", "eval", "replay", *arguments],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    state = cells.parent / "state"
    while not list(state.glob("*/lora-*/seed0/day2/journal")):  # in the second day of the second arm
        assert process.poll() is None, said.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {file: file.read_bytes() for file in cells.rglob("*.jsonl")}
    assert len(before) == 3

    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{table.BEGIN}\nthe former table\n{table.END}\n\nIts end.\n")
    figures = tmp_path / "figures.json"
    assert command.main([*arguments, "--write", str(page), "--json", str(figures)]) == 0
    after = {file: file.read_bytes() for file in cells.rglob("*.jsonl")}
    assert len(after) == 2 * DAYS
    assert {file: after[file] for file in before} == before
    written = page.read_text()
    assert written.startswith("# A page") and written.endswith("Its end.\n") and "former" not in written
    assert "| + LoRA | 2 |" in written and "unfinished" not in written

    made = json.loads(figures.read_text())["projects"][0]["arms"]
    assert made["base"]["gain"]["value"] == 0.0
    learned = made["+ LoRA"]
    assert learned["cells"] == DAYS
    assert 1 <= learned["published"] + learned["rejected"] <= DAYS, "on a day with too little new nothing is judged"
    assert learned["published"] and learned["gain"]["value"] != 0.0
    assert learned["tokens_per_s"] > 0 and learned["forgetting"] is not None
    assert not list(state.glob("*/*/*/*")), "a chain that has ended keeps nothing"


def test_a_day_comes_out_the_same_again(arguments: list[str], cells: Path) -> None:
    arguments = [*arguments, "--days", "1"]
    assert command.main(arguments) == 0
    [learned] = cells.glob("*/lora-*/seed0/day1.jsonl")
    first = learned.read_bytes()
    learned.unlink()
    assert command.main(arguments) == 0
    before, after = _lines(first), _lines(learned.read_bytes())
    for one, other in zip(before, after, strict=True):
        # A sleep computes in pieces as large as the machine is fast, so sums are rounded differently; no more.
        assert other.pop("nats") == pytest.approx(one.pop("nats"), rel=1e-3)
        assert other == one


def test_a_placebo_s_sleep_alone_sees_other_texts(
    arguments: list[str], cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The morning's memory is what the exam finds; between the two the child reads what was exchanged."""
    asleep: dict[UUID, str] = {}
    at_exam: dict[UUID, str] = {}
    real_sleep, real_slices = life.sleep, exam.slices

    async def texts(store: Store) -> dict[UUID, str]:
        return {item.id: item.final_text for item in await store.experiences_since(None)}

    async def sleep(config: Config, id: UUID, note: life.Note) -> dict[str, Any]:
        store = await Store.connect(config)
        asleep.update(await texts(store))
        await store.close()
        return await real_sleep(config, id, note)

    async def slices(desk: Desk, *rest: Any, **options: Any) -> list[exam.Row]:
        assert desk.assistant.resources.store is not None
        at_exam.update(await texts(desk.assistant.resources.store))
        return await real_slices(desk, *rest, **options)

    monkeypatch.setattr(life, "sleep", sleep)
    monkeypatch.setattr(exam, "slices", slices)
    chosen = ["--days", "1", "--arms", arms.ASLEEP_PLACEBO, "--sleep-minutes", "30"]
    chosen += ["--set", "cerebellum.enabled=false"]  # adapters alone suffice
    assert command.main([*arguments, *chosen]) == 0
    assert asleep and asleep.keys() <= at_exam.keys()
    exchanged = [id for id, text in asleep.items() if at_exam[id] != text]
    assert len(exchanged) > len(asleep) / 2 and sorted(asleep.values()) == sorted(at_exam[id] for id in asleep)
    [facts] = [json.loads(file.read_text().splitlines()[0]) for file in cells.rglob("placebo*/seed0/day1.jsonl")]
    assert facts["sleep"]["ending"] in ("done", "nothing")


def _lines(content: bytes) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in content.splitlines()[1:]]
    return [{name: value for name, value in row.items() if name != "latency_ms"} for row in rows]

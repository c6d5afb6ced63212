"""What the tests of sleep share: experiences made from real source text, and a consolidation's surroundings."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from npllm.config import BaseConfig, CerebellumConfig, Config, SleepConfig
from npllm.types import Decision, Experience, OutcomeKind, Place, new_id

SOURCE = Path(__file__).resolve().parents[1] / "server" / "npllm"
PYTHON = "language:python"
MORNING = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def experience(
    number: int = 0,
    *,
    path: str = "a.py",
    prefix: str = "def f():\n    ",
    suffix: str = "\n",
    final: str = "return 1",
    suggested: str = "return 2",
    context: str = PYTHON,
    decision: Decision = Decision.KEEP,
    relevance: float = 0.8,
    start: datetime = MORNING,
) -> Experience:
    """One experience, `number` seconds into the morning."""
    return Experience(
        id=new_id(),
        place=Place(f"file:///p/{path}", path, "python", "/p", len(prefix)),
        prefix=prefix,
        suffix=suffix,
        context=context,
        suggested=suggested,
        final_text=final,
        outcome=OutcomeKind.EDITED,
        implicit=0.5,
        emotional=None,
        reward=0.5,
        relevance=relevance,
        decision=decision,
        created_at=start + timedelta(seconds=number),
    )


def from_source(
    count: int, *, files: Sequence[str] = ("types.py", "config.py"), start: datetime = MORNING, offset: int = 0
) -> list[Experience]:
    """Lines of our own source, each written where it stands."""
    made: list[Experience] = []
    number = 0
    for name in files:
        lines = (SOURCE / name).read_text(encoding="utf-8").splitlines(keepends=True)
        worth = [i for i, line in enumerate(lines) if len(line.strip()) > 8 and i > 10]
        for index in worth[offset::3][: -(-count // len(files))]:
            line = lines[index].rstrip("\n")
            indent = len(line) - len(line.lstrip())
            made.append(
                experience(
                    number,
                    path=name,
                    prefix="".join(lines[:index])[-3000:] + line[:indent],
                    suffix="\n" + "".join(lines[index + 1 :])[:1000],
                    final=line[indent:],
                    suggested="pass",
                    start=start,
                )
            )
            number += 1
    return made[:count]


def config_for(home: Path, model: Path, **sleep: object) -> Config:
    """Settings for the tiny model: quick, with one thread, and without the shipped cerebellum, which takes longer."""
    values = {
        "threads": 1,
        "layers": "all",  # slow enough to be interrupted
        "rank": 8,
        "alpha": 16,
        "epochs": 3,
        "max_tokens": 192,
        "batch_tokens": 512,
        "learning_rate": 1e-2,
        "max_minutes": 2.0,
        "checkpoint_s": 0.1,
        "min_holdout": 4,
        "max_general_loss": 1.0,  # a random base of one day's practice forgets what it never knew
        "nice": 0,  # a test shares its machine, and should end
        "max_load": 0.0,
        "min_battery": 0,
        **sleep,
    }
    return replace(
        Config(home=home),
        base=BaseConfig(model=str(model), device="cpu", threads=1, context_tokens=256),
        cerebellum=CerebellumConfig(enabled=False),
        sleep=replace(SleepConfig(), **values),  # type: ignore[arg-type]
    )


def write_settings(config: Config) -> None:
    """As config.toml, for a child that is started by hand."""
    sections = {
        "base": {"model": config.base.model, "device": "cpu", "threads": 1, "context_tokens": 256},
        "cerebellum": {
            name: getattr(config.cerebellum, name)
            for name in ("enabled", "model", "context_tokens", "learning_rate", "time_share", "plastic")
        },
        "sleep": {
            name: getattr(config.sleep, name)
            for name in (
                "threads layers rank alpha epochs max_tokens batch_tokens learning_rate max_minutes checkpoint_s "
                "idle_s min_experiences min_holdout max_general_loss nice max_load min_battery max_memory_mb"
            ).split()
        },
    }
    text = ""
    for section, values in sections.items():
        text += f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    (config.home / "config.toml").write_text(text, encoding="utf-8")


async def start_child(home: Path, run_id: UUID) -> asyncio.subprocess.Process:
    """The child by hand, without a parent's protocol; its messages on stdout."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "npllm.sleep.child", "--home", str(home), "--run-id", str(run_id)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 22,
    )

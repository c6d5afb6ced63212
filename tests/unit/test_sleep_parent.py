"""The parent's side of sleep: light to import, and right about when to sleep."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from npllm.config import Config, SleepConfig, merge
from npllm.sleep.process import threads
from npllm.sleep.scheduler import Scheduler, Situation, drowsiness
from npllm.sleep.supervisor import Sleeper, settings_of
from npllm.types import ServerState

CONFIG = SleepConfig(idle_s=600.0, min_experiences=20)
READY = Situation(idle_s=600.0, new=20, interrupted=False, tried=False)


def test_the_parents_side_imports_neither_torch_nor_an_optimizer() -> None:
    code = (
        "import sys, npllm.sleep.scheduler, npllm.sleep.supervisor, npllm.sleep.protocol\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'peft', 'transformers', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (READY, ServerState.SLEEPING),
        (replace(READY, idle_s=599.0), ServerState.DROWSY),
        (replace(READY, idle_s=299.0), ServerState.AWAKE),
        (replace(READY, new=19), ServerState.AWAKE),
        (replace(READY, new=0, interrupted=True), ServerState.SLEEPING),
        (replace(READY, tried=True), ServerState.AWAKE),
        (replace(READY, failed_ago_s=200.0, failures=1), ServerState.AWAKE),
        (replace(READY, failed_ago_s=301.0, failures=1), ServerState.SLEEPING),
        (replace(READY, failed_ago_s=301.0, failures=3), ServerState.AWAKE),
        (replace(READY, failed_ago_s=30_000.0, failures=60), ServerState.SLEEPING),
    ],
)
def test_when_to_sleep(situation: Situation, expected: ServerState) -> None:
    assert drowsiness(situation, CONFIG) is expected


def test_never_when_switched_off() -> None:
    assert drowsiness(READY, replace(CONFIG, enabled=False)) is ServerState.AWAKE


def test_the_childs_settings_are_all_of_the_parents(tmp_path: Path) -> None:
    config = merge(
        Config(home=tmp_path), {"sleep": {"rank": 8}, "database": {"url": "postgresql://x"}}, source="the editor"
    )
    assert merge(Config(home=tmp_path), settings_of(config), source="the server") == config


def test_one_core_is_left_to_the_person() -> None:
    assert threads(3) == 3
    assert threads(0) >= 1


async def test_a_scheduler_without_a_store_is_awake_and_closes(tmp_path: Path) -> None:
    scheduler = Scheduler(Config(home=tmp_path, sleep=replace(SleepConfig(), idle_s=0.1)), lambda: None)
    scheduler.start()
    scheduler.activity()
    assert (scheduler.state, scheduler.phase, scheduler.progress, scheduler.message) == (
        ServerState.AWAKE,
        "",
        None,
        "",
    )
    await scheduler.wake()
    await scheduler.close()


async def test_waking_nobody_is_no_error(tmp_path: Path) -> None:
    sleeper = Sleeper(Config(home=tmp_path))
    await sleeper.wake("nothing to wake")
    assert await sleeper.wait() is None

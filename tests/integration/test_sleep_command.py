"""`npllm sleep now --report` with a real PostgreSQL and the real child: the report of this very run, or none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from npllm.config import Config
from npllm.memory.store import Store
from npllm.sleep import archive
from npllm.sleep.command import main
from npllm.sleep.protocol import Ending, Phase
from npllm.sleep.record import Record
from npllm.sleep.report import Report
from npllm.types import new_id
from tests.fixtures_sleep import config_for, from_source, write_settings
from tests.integration.test_sleep_child import sleep


@pytest.fixture
def config(home: Path, tiny_model: Path) -> Config:
    made = config_for(home, tiny_model, layers="output", epochs=1)
    return replace(made, cerebellum=replace(made.cerebellum, enabled=False))


async def slept(config: Config, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status, and what was printed."""
    write_settings(config)
    capfd.readouterr()
    status = await asyncio.to_thread(main, ["now", "--report"])
    return status, capfd.readouterr().out


async def test_the_report_of_this_run_is_printed_and_never_an_earlier_ones(
    store: Store, config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    earlier = Record(new_id(), now, now, Report("b", "f", problem="Of an earlier sleep."), run=new_id())
    archive.save(config.home, earlier)
    missing = replace(config, base=replace(config.base, model=str(config.home / "nowhere")))
    status, said = await slept(missing, capfd)
    assert status == Ending.FAILED.exit_code
    assert "nowhere" in said and "This sleep wrote no report" in said
    assert "Of an earlier sleep." not in said and str(earlier.id) not in said

    status, said = await slept(config, capfd)
    assert status == Ending.NOTHING.exit_code and "This sleep wrote no report" in said

    # One that was interrupted keeps its id: the report is of the run that ended it, under the first one's.
    await store.write(from_source(40))
    ended = await sleep(config, lambda at: at.phase is Phase.LEARNING and at.step > 0)
    assert ended.ending is Ending.INTERRUPTED
    archive.save(config.home, replace(earlier, id=new_id()))  # newer than the interrupted one by its id
    status, said = await slept(config, capfd)
    assert status == Ending.DONE.exit_code, said
    row = await store.last_consolidation()
    assert row is not None and f"Sleep {row.id}" in said and "you wrote | " in said
    assert "Of an earlier sleep." not in said and "wrote no report" not in said
    found = archive.find(config.home, str(row.id))
    assert found is not None and found.run not in (None, found.id)

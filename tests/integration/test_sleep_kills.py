"""The kill test of `tests.benchmarks.kill_sleep`, with few kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.kill_sleep import run


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_random_nothing_is_half_published_and_the_next_sleep_goes_on(
    home: Path, tiny_model: Path
) -> None:
    tally = await run(home, tiny_model, kills=5, seed=3)
    assert sum(tally.killed.values()) == 5
    assert tally.problems == []
    assert tally.versions > 0

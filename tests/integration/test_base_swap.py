"""Another base: the next sleep makes adapters for it from all that is remembered; the old ones wait for theirs."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from npllm.config import Config
from npllm.memory.store import Store
from npllm.models.manifest import read_manifest
from npllm.sleep.gathering import gather
from npllm.sleep.protocol import Ending
from npllm.sleep.supervisor import Sleeper
from npllm.types import AdapterVersion, Experience, VersionState, new_id
from tests.fixtures_lineage import fingerprint_of, make_version
from tests.fixtures_sleep import MORNING, config_for, from_source
from tests.tiny import make_tiny_model


@pytest.fixture
def config(home: Path, tiny_model: Path) -> Config:
    return config_for(home, tiny_model, epochs=1, layers="auto", rank=0, alpha=0)


async def new_to(store: Store, config: Config) -> int:
    """How many experiences the next sleep of a base would begin with."""
    base = fingerprint_of(Path(config.base.model))
    jobs, waiting = await gather(store, config, base, new_id(), threading.Event())
    return sum(len(job.part.all) for job in jobs) + sum(part.new for part in waiting)


def used(config: Config, version: AdapterVersion) -> set[str]:
    data = read_manifest(config.home / version.folder).data
    return {*data["learned"], *data["validated"], *data["held_out"]}


async def test_a_new_base_learns_all_that_is_remembered_and_the_old_one_finds_its_own_again(
    store: Store, config: Config, tmp_path: Path
) -> None:
    days: list[list[Experience]] = [
        from_source(30, start=MORNING + timedelta(days=day), offset=day) for day in range(2)
    ]
    former = None
    for day in days:  # two days that the first base has learned
        await store.write(day)
        former = await make_version(
            store, config, parent=former, learned=[one.id for one in day], until=max(one.created_at for one in day)
        )
    assert former is not None
    assert await new_to(store, config) == 0, "nothing is new to the first base"

    larger = make_tiny_model(tmp_path / "larger", hidden=96, layers=3, seed=3)
    other = replace(config, base=replace(config.base, model=str(larger)))
    assert await new_to(store, other) == len(days[0]) + len(days[1]), "to another all is"
    sleeper = Sleeper(other)
    await sleeper.start(new_id(), "test")
    ended = await sleeper.wait()
    assert ended is not None and ended.ending is Ending.DONE, ended
    (made,) = await store.adapter_versions(base_fingerprint=fingerprint_of(larger))
    assert made.parent is None
    assert made.metrics["gain"] > 0 and made.state is VersionState.PUBLISHED
    texts = {one.final_text for day in days for one in day}
    by_id = {str(one.id): one for day in days for one in day}
    assert {by_id[id].final_text for id in used(other, made)} == texts, "of both days"
    assert {by_id[id].created_at.date() for id in used(other, made)} == {day[0].created_at.date() for day in days}
    assert await new_to(store, other) == 0

    (waiting,) = await store.adapter_versions(
        state=VersionState.PUBLISHED, base_fingerprint=fingerprint_of(Path(config.base.model))
    )
    assert waiting.id == former.id, "the old one is in use still, as soon as its base is"
    assert await new_to(store, config) == 0, "and has lost nothing"

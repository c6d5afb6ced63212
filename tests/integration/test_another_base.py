# ruff: noqa: F811
"""After a change of the base the cerebellum's say is found anew, and of its versions only a few keep their weights."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from npllm.config import CerebellumConfig, Config
from npllm.forgetting.taint import Taint
from npllm.memory.forgetting import Version
from npllm.memory.places import Selector
from npllm.memory.store import Store
from npllm.models.cerebellum import WEIGHTS, Calibration, Cerebellum
from npllm.models.manifest import read_manifest, sha256_file
from npllm.sleep import say_exam
from npllm.sleep.cerebellum_pruning import SUPERSEDED, spare
from npllm.sleep.consolidation import Sleep
from npllm.sleep.interruption import Interrupted
from npllm.sleep.protocol import Ending, Finished
from npllm.types import Experience, Pattern, StoreError, VersionState, new_id
from tests.fixtures_cerebellum import make_cerebellum
from tests.fixtures_lineage import fingerprint_of, make_version
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import MORNING, config_for, experience, from_source
from tests.tiny import PRACTICE, make_tiny_model

NEVER = threading.Event()
DAY = timedelta(days=1)
ELSEWHERE = Calibration(None, 50, 0, 0, share=0.3, base="the base before")


@pytest.fixture
def config(home: Path, tiny_model: Path, practised_model: Path, database_url: str) -> Config:
    """A base that knows nothing, and a cerebellum that knows `PRACTICE`."""
    made = config_for(home, tiny_model, epochs=1, layers="output", project_share=0.0, general_share=0.0)
    small = CerebellumConfig(model=str(practised_model), learning_rate=0.0, context_tokens=192)
    return replace(made, database=replace(made.database, url=database_url), cerebellum=small)


async def sleep(store: Store, config: Config) -> Finished:
    return await Sleep(store, config, lambda _: None, NEVER).run(new_id())


def practice(start: datetime = MORNING) -> list[Experience]:
    lines = [line for line in PRACTICE.splitlines() if line.strip()]
    return [
        experience(
            number,
            path=f"f{number}.py",
            prefix=PRACTICE[: PRACTICE.index(line)],
            suffix=PRACTICE[PRACTICE.index(line) + len(line) :],
            final=line,
            start=start,
        )
        for number, line in enumerate(lines)
    ]


@pytest.mark.parametrize("more", [False, True], ids=["nothing is new", "what is new spoils it"])
async def test_the_next_sleep_of_another_base_finds_its_say(
    store: Store, config: Config, practised_model: Path, more: bool
) -> None:
    items = practice()
    await store.write(items)
    until = items[-1].created_at
    adapter = await make_version(store, config, until=MORNING + 9 * DAY)  # so that no adapter has a job
    known = Pattern("python", "value = compute(name)", 3, MORNING)
    small = await make_cerebellum(
        *(store, config, practised_model),
        until=until,
        held_out=[one.id for one in items],
        calibration=ELSEWHERE,
        patterns=[known],
    )
    await store.write(practice(MORNING + DAY) if more else [])
    config = replace(config, cerebellum=replace(config.cerebellum, learning_rate=0.5))
    config = replace(config, sleep=replace(config.sleep, min_holdout=3))
    ended = await sleep(store, config)
    assert ended.ending is Ending.DONE and ended.report is not None and ended.report.cerebellum is not None
    assert "another base writes" in ended.report.text.lower() and "of the say" in ended.report.text
    (made,) = await store.cerebellum.versions(state=VersionState.PUBLISHED)
    assert (made.parent, made.sha256, made.metrics["until"]) == (small.id, small.sha256, small.metrics["until"])
    assert made.metrics["beside_after"] < made.metrics["beside_before"]
    serving = Cerebellum.load(config.home / made.folder, context_tokens=192)
    assert serving.calibration is not None and serving.version_id == made.id
    assert serving.calibration.base == fingerprint_of(Path(config.base.model)) == adapter.base_fingerprint
    assert serving.calibration.share > 0
    before, after = (dict(read_manifest(config.home / one.folder).data) for one in (small, made))
    assert before | {"calibration": None} == after | {"calibration": None}, "it has learned nothing"
    assert await store.cerebellum.patterns() == [known]
    states = [one.state for one in await store.cerebellum.versions() if one.id != made.id]
    assert sorted(states) == sorted([VersionState.RETIRED, *([VersionState.REJECTED] if more else [])])
    if not more:
        assert (await sleep(store, config)).ending is Ending.NOTHING, "it was asked"


@pytest.mark.parametrize("away", [False, True], ids=["the person is back", "the database is away"])
async def test_cut_short_while_the_former_version_is_asked_the_rejected_one_is_still_told_of(
    store: Store, config: Config, practised_model: Path, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    items = practice()
    await store.write(items)
    await make_version(store, config, until=MORNING + 9 * DAY)
    ids = [one.id for one in items]
    await make_cerebellum(
        store, config, practised_model, until=items[-1].created_at, held_out=ids, calibration=ELSEWHERE
    )
    await store.write(practice(MORNING + DAY))
    config = replace(config, cerebellum=replace(config.cerebellum, learning_rate=0.5))
    config = replace(config, sleep=replace(config.sleep, min_holdout=3))

    def cut_short(*_: Any) -> None:
        raise StoreError("away") if away else Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(say_exam, "ask", cut_short)
        if away:
            with pytest.raises(StoreError):
                await sleep(store, config)
        else:
            assert (await sleep(store, config)).ending is Ending.INTERRUPTED
    ended = await sleep(store, config)
    assert ended.ending is Ending.DONE and ended.report is not None
    told = ended.report.cerebellum
    (rejected,) = await store.cerebellum.versions(state=VersionState.REJECTED)
    assert told is not None and told.version == str(rejected.id) and told.reason.startswith(rejected.reason)


async def test_where_it_does_not_help_another_base_that_is_remembered(
    store: Store, config: Config, tiny_model: Path, practised_model: Path
) -> None:
    knowing = replace(config, base=replace(config.base, model=str(practised_model)))
    knowing = replace(knowing, cerebellum=replace(config.cerebellum, model=str(tiny_model)))
    items = practice()
    await store.write(items)
    await make_version(store, knowing, until=MORNING + 9 * DAY)
    ids = [one.id for one in items]
    await make_cerebellum(store, knowing, tiny_model, until=items[-1].created_at, held_out=ids, calibration=ELSEWHERE)
    off = replace(knowing, cerebellum=replace(knowing.cerebellum, blend=False))
    assert (await sleep(store, off)).ending is Ending.NOTHING
    assert (await sleep(store, knowing)).ending is Ending.DONE
    (made,) = await store.cerebellum.versions(state=VersionState.PUBLISHED)
    found = Calibration.from_json(read_manifest(config.home / made.folder).data["calibration"])
    assert (found.share, found.base) == (0.0, fingerprint_of(practised_model))
    assert (await sleep(store, knowing)).ending is Ending.NOTHING


async def test_a_base_with_other_tokens_is_not_asked(
    store: Store, config: Config, practised_model: Path, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", vocab=500)
    config = replace(config, base=replace(config.base, model=str(other)))
    items = practice()
    await store.write(items)
    await make_version(store, config, until=MORNING + 9 * DAY)
    ids = [one.id for one in items]
    await make_cerebellum(
        store, config, practised_model, until=items[-1].created_at, held_out=ids, calibration=ELSEWHERE
    )
    assert (await sleep(store, config)).ending is Ending.NOTHING


# -- what is kept on the disk ------------------------------------------------------------------------------------------


async def test_a_sleep_removes_the_weights_of_old_versions_and_keeps_their_rows(
    store: Store, config: Config, practised_model: Path
) -> None:
    states = [VersionState.PUBLISHED] * (SUPERSEDED + 3) + [VersionState.REJECTED] * 4
    made = [await make_cerebellum(store, config, practised_model, until=MORNING - DAY, state=state) for state in states]
    config = replace(config, sleep=replace(config.sleep, keep_rejected=2))
    config = replace(config, cerebellum=replace(config.cerebellum, blend=False))  # so that it gains nothing
    await make_version(store, config, until=MORNING + 9 * DAY)
    await store.write(from_source(40))
    assert (await sleep(store, config)).ending is Ending.DONE
    there = {one.id for one in made if (config.home / one.folder / WEIGHTS).exists()}
    in_use = made[SUPERSEDED + 2]
    newest_superseded = made[2 : SUPERSEDED + 2]
    assert there == {in_use.id, *(one.id for one in (*newest_superseded, made[-1]))}, "with the new one two rejected"
    every = await store.cerebellum.versions()
    assert len(every) == len(made) + 1
    new = config.home / every[0].folder
    assert sha256_file(new / WEIGHTS) == every[0].sha256
    taint = Taint(config.home, Selector(path="/p"))

    def usable(number: int) -> bool:
        one = made[number]
        return taint.usable(Version("cerebellum_versions", one.id, None, new_id(), one.folder, "retired", ()))

    assert all(read_manifest(config.home / one.folder).version_id == one.id for one in made)
    assert not usable(0) and usable(2), "without weights it cannot come back into use"


async def test_the_parent_of_the_version_in_use_is_kept_and_other_origins_count_by_themselves(
    store: Store, config: Config, practised_model: Path
) -> None:
    old = [await make_cerebellum(store, config, practised_model, until=MORNING) for _ in range(SUPERSEDED + 2)]
    now = await make_cerebellum(store, config, practised_model, until=MORNING, parent=old[0])
    every = await store.cerebellum.versions()
    assert [one.id for one in spare(every, 0)] == [old[1].id]
    elsewhere = [replace(one, origin="another") if one.id in {old[3].id, old[4].id} else one for one in every]
    assert spare(elsewhere, 0) == [] and now.id == every[0].id

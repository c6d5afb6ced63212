# ruff: noqa: F811
"""Sleep after sleep, in real child processes: what was held out stays apart, what forgets is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from npllm.config import Config, DatabaseConfig
from npllm.memory.store import Store
from npllm.models.manifest import Manifest, read_manifest
from npllm.sleep.protocol import Ending
from npllm.sleep.report import ContextReport, SliceKind, Verdict
from npllm.sleep.supervisor import Sleeper
from npllm.types import AdapterVersion, Experience, VersionState, new_id
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import MORNING, PYTHON, config_for, experience, from_source


@pytest.fixture
def config(home: Path, tiny_model: Path, database_url: str) -> Config:
    return replace(
        config_for(home, tiny_model, min_holdout=10, max_holdout=10), database=DatabaseConfig(url=database_url)
    )


async def sleep(config: Config) -> ContextReport:
    """One sleep; what it did with the only context."""
    sleeper = Sleeper(config)
    await sleeper.start(new_id(), "test")
    ended = await sleeper.wait()
    assert ended is not None
    log = config.home / "logs" / "sleep.log"
    assert ended.ending is Ending.DONE, (ended, log.read_text(encoding="utf-8") if log.exists() else "")
    assert ended.report is not None
    (part,) = ended.report.contexts
    return part


def manifest(config: Config, version: AdapterVersion) -> Manifest:
    return read_manifest(config.home / version.folder)


def habit(words: str, count: int, day: int) -> list[Experience]:
    """The same few words in ever other orders: soon learned, and soon unlearned."""
    made = []
    for n in range(count):
        chance = random.Random(f"{words}{n}")
        order = [chance.choice(words.split()) for _ in range(9)]
        prefix = f"{chance.random()} = {chance.random()}\n"
        made.append(
            experience(
                n, path=f"f{n % 6}.py", prefix=prefix, final=" ".join(order), start=MORNING + timedelta(days=day)
            )
        )
    return made


async def test_what_a_sleep_held_out_is_judged_by_again_and_never_learned(store: Store, config: Config) -> None:
    for day in range(3):
        await store.write(from_source(40, start=MORNING + timedelta(days=day), offset=day))
        part = await sleep(config)
        assert part.held_out == 10
        kinds = [item.kind for item in part.slices]
        assert kinds[0] is SliceKind.NEW
        assert kinds[-1] is SliceKind.GENERAL
        assert part.slices[-1].texts >= 40
        assert part.notes == ()
        published = await store.adapter_versions(state=VersionState.PUBLISHED)
        assert len(published) == 1
        if day == 0:
            (first,) = published
            held_out = manifest(config, first).data["held_out"]
        else:
            slices = {item.name: item for item in part.slices if item.kind is SliceKind.OLD}
            assert slices[str(first.id)].texts == 10
            assert slices[str(first.id)].date == first.created_at.date().isoformat()
            newest, *_ = await store.adapter_versions()
            assert set(manifest(config, newest).data["judged_again"][str(first.id)]) == set(held_out)
            # On the very texts that it was judged by, the first version stands as it was measured then.
            best = slices[str(first.id)].nll_best
            assert best <= first.metrics[f"slice.{first.id}.nll"] + 1e-4
            assert newest.metrics[f"slice.{first.id}.nll"] == pytest.approx(slices[str(first.id)].nll_after)
    versions = await store.adapter_versions()
    assert len(versions) == 3
    for version in versions:
        data = manifest(config, version).data
        assert not set(held_out) & {*data["learned"], *data["validated"]}
        assert (set(held_out) == set(data["held_out"])) == (version.id == first.id)

    connection = await asyncpg.connect(store.url)
    rows = await connection.fetch("SELECT * FROM npllm.replay WHERE context <> 'cerebellum'")
    await connection.close()
    learned = {id for one in versions for id in manifest(config, one).data["learned"]}
    assert rows
    assert {str(row["experience_id"]) for row in rows} <= learned
    assert all(row["surprise"] > 0 and row["base_fingerprint"] == first.base_fingerprint for row in rows)


async def test_what_gains_on_the_new_but_forgets_the_old_is_rejected_and_its_weights_go_in_time(
    store: Store, config: Config
) -> None:
    careless = replace(config, sleep=replace(config.sleep, replay="off", keep_rejected=0, epochs=6, max_forgetting=0.0))
    await store.write(habit("return self total of_all values", 60, day=0))
    first = await sleep(careless)
    assert first.verdict is Verdict.PUBLISHED
    await store.write(habit("QXZ ~~ VVV !! JKJK", 60, day=1))
    part = await sleep(careless)
    assert part.gain_low > 0
    assert part.verdict is Verdict.REJECTED
    assert "but forgets: older ones cost" in part.reason
    assert part.old == 0
    (old,) = [item for item in part.slices if item.kind is SliceKind.OLD]
    assert old.gain < -0.02

    rejected, published = await store.adapter_versions()
    assert [rejected.state, published.state] == [VersionState.REJECTED, VersionState.PUBLISHED]
    assert rejected.reason == part.reason
    assert not (config.home / rejected.folder / "adapter_model.safetensors").exists(), "none is to be kept"
    assert manifest(config, rejected).version_id == rejected.id
    assert (config.home / published.folder / "adapter_model.safetensors").is_file()
    held_out = set(manifest(config, rejected).data["held_out"])
    assert not held_out & {str(item.id) for item in await store.replay.apart(PYTHON, limit=999)}, "it is new again"


async def test_what_forgets_too_much_goes_back_a_part_of_its_way(store: Store, config: Config) -> None:
    careless = replace(config, sleep=replace(config.sleep, replay="off", epochs=6, max_forgetting=0.02))
    await store.write(habit("return self total of_all values", 60, day=0))
    assert (await sleep(careless)).verdict is Verdict.PUBLISHED
    await store.write(habit("QXZ ~~ VVV !! JKJK", 60, day=1))
    part = await sleep(careless)
    assert part.verdict is Verdict.PUBLISHED and part.gain_low > 0
    assert any("of the way it learned" in note for note in part.notes)
    (old,) = [item for item in part.slices if item.kind is SliceKind.OLD]
    assert old.nll_after <= 1.02 * old.nll_best
    newest, _ = await store.adapter_versions()
    assert newest.metrics[f"slice.{newest.id}.nll"] == pytest.approx(part.nll_after, rel=0.2)  # of what serves


async def test_a_language_without_general_code_says_so(store: Store, config: Config) -> None:
    lines = from_source(40)
    await store.write([replace(i, context="language:cobol", place=replace(i.place, language="cobol")) for i in lines])
    part = await sleep(config)
    assert [item.kind for item in part.slices] == [SliceKind.NEW]
    assert "General code was neither rehearsed nor judged" in part.text


async def test_uniform_replay_draws_and_weighs_all_alike(store: Store, config: Config) -> None:
    await store.write(from_source(60))
    await sleep(config)
    await store.write(from_source(40, start=MORNING + timedelta(days=1), offset=1))
    part = await sleep(replace(config, sleep=replace(config.sleep, replay="uniform")))
    assert part.old == pytest.approx(part.new * 3 / 7, abs=3)
    assert part.context == PYTHON


async def test_a_sleep_prunes_what_is_beyond_the_bounds(store: Store, config: Config) -> None:
    made = from_source(40)
    await store.write(made)
    part = await sleep(replace(config, memory=replace(config.memory, keep_experiences=20)))
    left = {item.id for item in await store.experiences_since(None)}
    by_age = sorted(made, key=lambda item: (item.created_at, item.id))
    newest = {item.id for item in by_age[20:]}
    assert newest <= left and len(left) < 40
    assert len(left - newest) <= part.held_out, "older ones stay only where a version is judged by them"

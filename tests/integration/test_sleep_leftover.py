"""What a sleep had no time for: not learned, still new, taken up by the next one. Real PostgreSQL, real tiny models."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from npllm.bases.learned import _ahead
from npllm.config import CerebellumConfig, Config, DatabaseConfig
from npllm.memory.store import Store
from npllm.models.manifest import Manifest, read_manifest, write_manifest
from npllm.sleep import cerebellum_gathering
from npllm.sleep.cerebellum_trainer import CerebellumTrainer
from npllm.sleep.consolidation import Sleep
from npllm.sleep.gate import GENERAL, best_key
from npllm.sleep.gathering import gather
from npllm.sleep.leftover import LEFT, UNTRAINED, left_by
from npllm.sleep.protocol import Ending
from npllm.sleep.report import ContextReport, Report, Verdict
from npllm.sleep.trainer import Trainer
from npllm.types import (
    AdapterVersion,
    CerebellumVersion,
    Consolidation,
    ConsolidationState,
    Experience,
    VersionState,
    new_id,
)
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import MORNING, PYTHON, config_for, experience, from_source
from tests.tiny import make_tiny_model

# ruff: noqa: F811

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an attribute's old name

NEVER = threading.Event()
DAY = timedelta(days=1)


@pytest.fixture
def config(home: Path, tiny_model: Path, database_url: str, tmp_path: Path) -> Config:
    sister = make_tiny_model(tmp_path / "sister", seed=3, hidden=32)
    small = CerebellumConfig(
        model=str(sister), learning_rate=1e-2, context_tokens=192, batch_tokens=256, time_share=0.5
    )
    made = config_for(home, tiny_model, epochs=1, kto_weight=0.1)
    return replace(made, database=DatabaseConfig(url=database_url), cerebellum=small)


def habit(words: str, count: int) -> list[Experience]:
    """The same few words in ever other orders: soon learned."""
    made = []
    for number in range(count):
        chance = random.Random(f"{words}{number}")
        final = " ".join(chance.choice(words.split()) for _ in range(9))
        prefix = f"{chance.random()} = {chance.random()}\n"
        made.append(experience(number, path=f"f{number % 6}.py", prefix=prefix, final=final))
    return made


def ids(version: AdapterVersion | CerebellumVersion, home: Path, name: str) -> set[UUID]:
    return {UUID(id) for id in read_manifest(home / version.folder).data[name]}


async def test_what_did_not_fit_is_not_learned_and_the_next_sleep_takes_it(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = config.home

    async def night() -> Report:
        ended = await Sleep(store, config, lambda _: None, NEVER).run(new_id())
        assert ended.ending is Ending.DONE and ended.report is not None, ended
        return ended.report

    made = habit("return self total of_all values", 60)
    await store.write(made)
    with monkeypatch.context() as short:
        short.setattr(Trainer, "_steps_in", lambda *_: 3)
        short.setattr(CerebellumTrainer, "_steps_in", lambda *_: 3)
        report = await night()
    (part,) = report.contexts
    assert part.verdict is Verdict.PUBLISHED, part.text
    (first,) = await store.adapter_versions()
    learned, untrained, held_out = (ids(first, home, name) for name in ("learned", UNTRAINED, "held_out"))
    assert len(learned) > 3 and len(untrained) > 8 and not learned & untrained
    assert learned | untrained | held_out == {item.id for item in made}
    assert first.metrics[LEFT] == len(untrained) and part.new == len(learned)
    assert f"For {len(untrained)} of {len(learned) + len(untrained)} new experiences there was no time" in part.text
    connection = await asyncpg.connect(store.url)
    rows = await connection.fetch("SELECT * FROM npllm.replay")
    await connection.close()
    for small in (False, True):
        measured = {UUID(str(row["experience_id"])) for row in rows if (row["context"] == "cerebellum") is small}
        known = ids((await store.cerebellum.versions())[0], home, "learned") if small and measured else learned
        assert small or measured
        assert measured <= known, "how surprising it still is says nothing of what was not learned"
    last = await store.last_consolidation(ConsolidationState.DONE)
    assert left_by([first], last) == len(untrained) == await _ahead(store, [first])
    (cerebellum,) = await store.cerebellum.versions()
    small_learned, small_left = (ids(cerebellum, home, name) for name in ("learned", UNTRAINED))
    assert small_learned and small_left and not small_learned & small_left
    assert report.cerebellum is not None and report.cerebellum.new == len(small_learned)

    report = await night()
    second, _ = await store.adapter_versions()
    again = {*ids(second, home, "learned"), *ids(second, home, "held_out")}
    assert untrained <= again, "nothing else was new"
    assert not ids(second, home, UNTRAINED) and not held_out & again
    assert second.metrics["until"] == first.metrics["until"], "what is older moves it not back"


async def test_general_code_is_counted_from_the_best_that_the_version_in_use_tells_of(
    store: Store, config: Config
) -> None:
    config = replace(config, cerebellum=replace(config.cerebellum, enabled=False))

    async def night() -> ContextReport:
        ended = await Sleep(store, config, lambda _: None, NEVER).run(new_id())
        assert ended.report is not None
        return ended.report.contexts[0]

    await store.write(habit("return self total of_all values", 40))
    part = await night()
    assert part.verdict is Verdict.PUBLISHED, part.text
    (first,) = await store.adapter_versions()
    general = part.slices[-1]
    best = first.metrics[best_key(GENERAL)]
    assert best == pytest.approx(min(general.nll_before, general.nll_after))
    better = {**first.metrics, best_key(GENERAL): 0.3 * best}
    await store.insert_adapter_version(replace(first, metrics=better))
    later = [replace(item, created_at=item.created_at + DAY) for item in habit("yield from every other", 40)]
    await store.write(later)
    part = await night()
    assert part.verdict is Verdict.REJECTED and "general code costs" in part.reason, part.text
    assert part.slices[-1].nll_best == pytest.approx(0.3 * best)
    newest, _ = await store.adapter_versions()
    assert newest.metrics[best_key(GENERAL)] == pytest.approx(0.3 * best)


def version(context: str, until: datetime, **changes: object) -> AdapterVersion:
    made = AdapterVersion(
        *(new_id(), context, "base", None, new_id(), "adapters/none", "", VersionState.PUBLISHED, ""),
        {"until": until.timestamp()},
        datetime.now(UTC),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def leave(home: Path, made: AdapterVersion | CerebellumVersion, items: list[Experience]) -> None:
    """A manifest that says what there was no time for."""
    (home / made.folder).mkdir(parents=True)
    data = {"learned": [], UNTRAINED: [str(item.id) for item in items]}
    manifest = Manifest(made.id, PYTHON, "base", None, made.consolidation_id, "", made.created_at, data)
    write_manifest(home / made.folder, manifest)


async def test_what_is_left_is_that_of_the_version_in_use_and_is_not_drawn_for_replay(
    store: Store, config: Config
) -> None:
    made = from_source(60)
    await store.write(made)
    until = max(item.created_at for item in made)
    parent = version(PYTHON, until, folder="adapters/one")
    leave(config.home, parent, made[:20])
    await store.publish(parent)
    refused = version(PYTHON, until, folder="adapters/two", state=VersionState.REJECTED)
    leave(config.home, refused, made[30:50])
    await store.insert_adapter_version(refused)

    [job], _ = await gather(store, config, "base", new_id(), NEVER)
    new = {item.id for item in (*job.part.learn, *job.part.inner, *job.part.held_out)}
    assert new == {item.id for item in made[:20]}
    assert job.part.replay and not new & {item.id for item in job.part.replay}
    assert job.until == until, "it never goes back"
    later = from_source(20, start=MORNING + DAY, offset=1)
    await store.write(later)
    [job], _ = await gather(store, config, "base", new_id(), NEVER)
    new = {item.id for item in (*job.part.learn, *job.part.inner, *job.part.held_out)}
    assert {item.id for item in made[:20]} <= new <= {item.id for item in (*made[:20], *later)}
    assert job.until == max(item.created_at for item in later)

    small = CerebellumVersion(
        *(new_id(), "origin", None, new_id(), "cerebellum/one", "", VersionState.PUBLISHED, ""),
        {"until": later[-1].created_at.timestamp()},
        datetime.now(UTC),
    )
    leave(config.home, small, made[20:40])
    await store.cerebellum.publish(small, [])
    origin = cerebellum_gathering.Origin(config.home, "origin")
    found = await cerebellum_gathering.gather(store, config, origin, new_id(), NEVER)
    assert isinstance(found, cerebellum_gathering.Job)
    new = {item.id for item in (*found.part.learn, *found.part.held_out)}
    assert new == {item.id for item in made[20:40]}
    assert found.part.replay and not new & {item.id for item in found.part.replay}
    assert found.until >= later[-1].created_at


def test_only_the_last_sleep_s_own_versions_are_a_reason_to_sleep_on() -> None:
    last = Consolidation(new_id(), ConsolidationState.DONE, MORNING)
    own = version(PYTHON, MORNING, consolidation_id=last.id, metrics={LEFT: 30.0})
    earlier = version("project:/q", MORNING, metrics={LEFT: 70.0})
    refused = replace(own, state=VersionState.REJECTED, metrics={LEFT: 90.0})
    assert left_by([own, earlier, refused], last) == 30
    assert left_by([earlier], last) == left_by([own], None) == 0

# ruff: noqa: F811
"""What a sleep finds to do: each part by its own count, whether or not an adapter has a job; and when one begins."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from npllm import cli
from npllm.config import AttentionConfig, CerebellumConfig, Config, ModulatorConfig
from npllm.memory.store import Store
from npllm.models.base import Base
from npllm.models.manifest import read_manifest
from npllm.sleep import attending
from npllm.sleep.consolidation import Sleep
from npllm.sleep.pending import pending
from npllm.sleep.protocol import Ending, Finished
from npllm.sleep.report import Report, Verdict
from npllm.sleep.scheduler import Scheduler
from npllm.types import (
    AttentionVersion,
    Consolidation,
    ConsolidationState,
    Experience,
    ServerState,
    VersionState,
    new_id,
)
from tests.fixtures_cerebellum import make_cerebellum
from tests.fixtures_lineage import fingerprint_of, make_version
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import MORNING, PYTHON, config_for, from_source, write_settings
from tests.integration.test_models_modulator import by_half, decisions
from tests.integration.test_sleep_attention import with_memories
from tests.tiny import make_tiny_model

NEVER = threading.Event()
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def sister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("sister"), seed=3, hidden=32)


@pytest.fixture
def config(home: Path, tiny_model: Path, sister: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("NPLLM_DATABASE_URL", database_url)
    made = config_for(home, tiny_model, epochs=1, layers="output", project_share=0.0, general_share=0.0)
    small = CerebellumConfig(model=str(sister), learning_rate=1e-2, context_tokens=192, blend=False)
    made = replace(made, database=replace(made.database, url=database_url), cerebellum=small)
    write_settings(made)
    return made


@pytest.fixture
def no_cerebellum(config: Config) -> Config:
    return replace(config, cerebellum=replace(config.cerebellum, enabled=False))


async def sleep(store: Store, config: Config) -> Finished:
    """A sleep in this process."""
    return await Sleep(store, config, lambda _: None, NEVER).run(new_id())


def in_language(items: list[Experience], name: str) -> list[Experience]:
    context = f"language:{name}"
    return [
        replace(one, id=new_id(), place=replace(one.place, language=name), context=context, contexts=(context,))
        for one in items
    ]


async def test_languages_that_each_have_too_little_are_enough_for_the_cerebellum(store: Store, config: Config) -> None:
    few = from_source(18)
    for number, name in enumerate(("python", "go", "rust")):
        await store.write(in_language(few[6 * number : 6 * number + 6], name))
    ended = await sleep(store, config)
    assert ended.ending is Ending.DONE and ended.report is not None
    assert {part.verdict for part in ended.report.contexts} == {Verdict.WAITING}
    (version,) = await store.cerebellum.versions()
    assert ended.report.cerebellum is not None and ended.report.cerebellum.version == str(version.id)
    assert not await store.adapter_versions()
    base = ended.report.base_fingerprint
    assert await pending(store, base, None) == 0, "it was a sleep, though no adapter came of it"
    last = await store.last_consolidation()
    assert last is not None and last.state is ConsolidationState.DONE


async def test_only_a_pinned_context_leaves_the_rest_to_learn_and_is_told(
    store: Store, config: Config, no_cerebellum: Config
) -> None:
    version = await make_version(store, config, until=MORNING - DAY)
    await store.lineage.pin(version.id, True)
    await store.write(from_source(20))
    nothing = await sleep(store, no_cerebellum)
    assert nothing.ending is Ending.NOTHING and "is pinned" in nothing.summary
    assert await store.last_consolidation() is None
    ended = await sleep(store, config)
    assert ended.ending is Ending.DONE and ended.report is not None
    (part,) = ended.report.contexts
    assert part.verdict is Verdict.WAITING and "is pinned" in part.reason
    assert len(await store.cerebellum.versions()) == 1


async def test_attention_learns_where_no_adapter_does(store: Store, no_cerebellum: Config) -> None:
    version = await make_version(store, no_cerebellum, until=MORNING - DAY)
    await store.lineage.pin(version.id, True)
    await store.write(with_memories(100))
    assert (await sleep(store, no_cerebellum)).ending is Ending.NOTHING
    settings = replace(no_cerebellum, attention=AttentionConfig(enabled=True, learning_rate=0.2))
    ended = await sleep(store, settings)
    assert ended.ending is Ending.DONE and ended.report is not None
    assert [part.context for part in ended.report.contexts] == [attending.NAME, PYTHON]
    assert len(await store.attention_versions(version.base_fingerprint)) == 1


async def test_gains_that_were_forgotten_have_learned_nothing(store: Store, no_cerebellum: Config) -> None:
    config = replace(no_cerebellum, attention=AttentionConfig(enabled=True))
    shown = with_memories(100)
    await store.write(shown)
    until = max(one.created_at for one in shown).timestamp()
    base, now = fingerprint_of(Path(config.base.model)), datetime.now(UTC)
    gains = AttentionVersion(
        *(new_id(), base, None, new_id(), "attention/none", "", VersionState.PUBLISHED, "", {"until": until}, now)
    )
    await store.insert_attention_version(gains)
    assert not await attending.wanted(store, config, base, new_id(), NEVER)
    await store.insert_attention_version(replace(gains, state=VersionState.FORGOTTEN))
    assert await attending.wanted(store, config, base, new_id(), NEVER)
    assert await attending.wanted(store, config, base, gains.consolidation_id, NEVER), "nor has that sleep decided"


async def test_the_modulator_learns_where_no_adapter_does_and_again_for_as_many_new_decisions(
    store: Store, no_cerebellum: Config
) -> None:
    await decisions(store, Base.load(no_cerebellum.base.model, device="cpu"), 60, (0.0,) * 8)
    assert (await sleep(store, no_cerebellum)).ending is Ending.NOTHING, "the texts are all the same"
    learned = ModulatorConfig(policy="learned", min_decisions=40)
    ended = await sleep(store, replace(no_cerebellum, modulator=learned))
    assert ended.ending is Ending.DONE and ended.report is not None and "Learned from 60" in ended.report.policy
    assert (await sleep(store, replace(no_cerebellum, modulator=learned))).ending is Ending.NOTHING


@pytest.mark.parametrize("many", [0, 1], ids=["to learn from", "to judge by"])
async def test_decisions_almost_all_of_one_half_begin_no_sleep_until_there_are_others(
    store: Store, no_cerebellum: Config, many: int
) -> None:
    base, documents = Base.load(no_cerebellum.base.model, device="cpu"), by_half(30)
    config = replace(no_cerebellum, modulator=ModulatorConfig(policy="learned", min_decisions=40))
    await decisions(store, base, 60, (0.0,) * 8, documents=documents[many])
    await decisions(store, base, 9, (0.0,) * 8, documents=documents[1 - many])
    assert (await sleep(store, config)).ending is Ending.NOTHING
    assert await store.last_consolidation() is None
    await decisions(store, base, 1, (0.0,) * 8, documents=documents[1 - many])
    ended = await sleep(store, config)
    assert ended.ending is Ending.DONE and ended.report is not None and "Learned from 70" in ended.report.policy


# -- after a forgetting ------------------------------------------------------------------------------------------------


async def done(store: Store, config: Config, id: UUID) -> None:
    """As if a sleep had just been done for the base."""
    base = fingerprint_of(Path(config.base.model))
    now = datetime.now(UTC)
    report = Report(config.base.model, base).to_json()
    await store.upsert_consolidation(Consolidation(id, ConsolidationState.DONE, now, now, report))


def in_project(items: list[Experience], project: Path, name: str) -> list[Experience]:
    uri = (project / name).as_uri()
    return [replace(one, place=replace(one.place, project=str(project), path=name, uri=uri)) for one in items]


async def forget(path: Path) -> None:
    assert await asyncio.to_thread(cli.main, ["memory", "forget", "--path", str(path), "--yes"]) == 0


def learned(config: Config, folder: str) -> set[str]:
    data = read_manifest(config.home / folder).data
    return {*data["learned"], *data["validated"]}


async def test_what_forgotten_versions_had_learned_is_learned_again_without_what_was_forgotten(
    store: Store, config: Config, tmp_path: Path, sister: Path
) -> None:
    secret = tmp_path / "secret.py"
    first, later = from_source(20, files=("types.py",)), from_source(20, files=("config.py",), start=MORNING + DAY)
    first, open_file = in_project(first, tmp_path, "a.py"), in_project(later[:12], tmp_path, "b.py")
    hidden = in_project(later[12:], tmp_path, secret.name)
    await store.write([*first, *open_file, *hidden])
    clean = await make_version(store, config, learned=[one.id for one in first], until=first[-1].created_at)
    ids = [one.id for one in (*open_file, *hidden)]
    tainted = await make_version(store, config, parent=clean, learned=ids, until=hidden[-1].created_at)
    small = await make_cerebellum(
        store, config, sister, until=hidden[-1].created_at, project_files=[(str(tmp_path), secret.name)]
    )
    await done(store, config, tainted.consolidation_id)
    base = tainted.base_fingerprint
    assert await pending(store, base, None) == 0
    await forget(secret)
    assert await pending(store, base, None) == len(first) + len(open_file), "the cerebellum has none to go back to"

    ended = await sleep(store, config)
    assert ended.ending is Ending.DONE, ended.summary
    gone = {str(one.id) for one in hidden}
    made, former, before = await store.adapter_versions()
    assert (former.id, former.state) == (tainted.id, VersionState.FORGOTTEN)
    assert (before.id, made.parent) == (clean.id, clean.id)
    again = learned(config, made.folder)
    assert again & {str(one.id) for one in open_file} and not again & gone
    anew, old = await store.cerebellum.versions()
    assert (old.id, old.state, anew.parent) == (small.id, VersionState.FORGOTTEN, None)
    again = learned(config, anew.folder)
    assert again & {str(one.id) for one in open_file} and not again & gone
    assert await pending(store, base, None) == 0


async def test_the_time_of_idleness_after_a_forgetting_brings_a_sleep(
    store: Store, no_cerebellum: Config, tmp_path: Path
) -> None:
    config = replace(no_cerebellum, sleep=replace(no_cerebellum.sleep, idle_s=0.8, epochs=500))
    hidden = in_project(from_source(30), tmp_path, "secret.py")
    kept = in_project(from_source(30, offset=1), tmp_path, "a.py")
    await store.write([*hidden, *kept])
    version = await make_version(store, config, learned=[hidden[0].id], until=datetime.now(UTC))
    await done(store, config, version.consolidation_id)
    scheduler = Scheduler(config, lambda: store, base=lambda: version.base_fingerprint)
    scheduler.start()
    await asyncio.sleep(2.0)
    assert scheduler.state is ServerState.AWAKE, "nothing is new"
    await forget(tmp_path / "secret.py")
    async with asyncio.timeout(60):
        while scheduler.state is not ServerState.SLEEPING:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await scheduler.close()


# -- the scheduler -----------------------------------------------------------------------------------------------------


async def test_a_sleep_that_finds_nothing_to_do_is_not_begun_again_for_the_same(
    store: Store, no_cerebellum: Config
) -> None:
    config = replace(no_cerebellum, sleep=replace(no_cerebellum.sleep, idle_s=0.5, min_holdout=30))
    await store.write(from_source(30))
    began: list[ServerState] = []
    scheduler = Scheduler(config, lambda: store, on_change=lambda: began.append(scheduler.state))
    scheduler.start()
    async with asyncio.timeout(120):
        while scheduler.last is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert scheduler.last.ending is Ending.NOTHING
    while scheduler._settling is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    began.clear()
    scheduler.activity()
    await asyncio.sleep(2.0)
    assert ServerState.DROWSY not in began, "idle once more"
    await store.write(from_source(20, start=datetime.now(UTC), offset=1))
    async with asyncio.timeout(60):
        while ServerState.DROWSY not in began:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await scheduler.close()


async def test_what_there_was_no_time_for_waits_once_a_sleep_could_not_do_anything_with_it(
    store: Store, no_cerebellum: Config
) -> None:
    made = from_source(30)
    await store.write(made)
    left = [one.id for one in made[:25]]
    version = await make_version(store, no_cerebellum, until=datetime.now(UTC), untrained=left)
    await done(store, no_cerebellum, version.consolidation_id)
    base = version.base_fingerprint
    assert await pending(store, base, None) == 25
    assert await pending(store, base, datetime.now(UTC)) == 0
    assert await pending(store, base, MORNING) == 25, "that was before"


async def test_where_somebody_else_held_the_lock_what_waits_still_counts_the_next_time_of_idleness(
    store: Store, no_cerebellum: Config
) -> None:
    config = replace(no_cerebellum, sleep=replace(no_cerebellum.sleep, idle_s=0.5, min_holdout=30))
    await store.write(from_source(30))
    problems: list[str] = []
    began: list[ServerState] = []
    scheduler = Scheduler(
        config, lambda: store, on_change=lambda: began.append(scheduler.state), on_problem=problems.append
    )
    async with store.trainer_lock() as ours:  # as `npllm adapters` does
        assert ours
        scheduler.start()
        async with asyncio.timeout(120):
            while scheduler.last is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    held = scheduler.last
    assert (held.ending, held.ending.exit_code) == (Ending.HELD, 5) and "Another sleep" in held.text
    await asyncio.sleep(0.2)
    began.clear()
    await asyncio.sleep(2.0)
    assert ServerState.DROWSY not in began, "in this time of idleness it was tried"
    scheduler.activity()
    async with asyncio.timeout(60):
        while scheduler.last is held:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert scheduler.last.ending is Ending.NOTHING, "it had the lock"
    await scheduler.close()
    assert problems == []


async def test_everything_is_new_to_another_base_and_counted_for_each_by_itself(
    store: Store, no_cerebellum: Config
) -> None:
    await store.write(from_source(20))
    base = fingerprint_of(Path(no_cerebellum.base.model))
    assert await pending(store, base, None) == 20
    await done(store, no_cerebellum, new_id())
    assert await pending(store, base, None) == 0, "whether or not it made an adapter"
    assert await pending(store, "another", None) == 20
    assert await pending(store, "another", datetime.now(UTC)) == 0

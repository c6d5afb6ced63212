"""Gains of attention, from experiences in PostgreSQL through a real sleep to the editor's model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from npllm.assist import attending
from npllm.assist.worker import EngineWorker
from npllm.config import AttentionConfig, Config
from npllm.memory.store import Store
from npllm.models.adapters import AdapterSet
from npllm.models.attention import WEIGHTS, Gains, Neuromodulation, read
from npllm.models.base import Base
from npllm.models.manifest import read_manifest, sha256_file
from npllm.sleep import archive
from npllm.sleep.attending import NAME, acting, consolidate
from npllm.sleep.interruption import Interrupted
from npllm.sleep.page import page
from npllm.sleep.protocol import Ending, Message, Phase, Progress
from npllm.sleep.report import ContextReport, Verdict
from npllm.sleep.supervisor import Ended, Sleeper
from npllm.types import AttentionVersion, Experience, Suggestion, VersionState, new_id
from tests.fixtures_attention import write_version
from tests.fixtures_lineage import fingerprint_of, make_version
from tests.fixtures_sleep import MORNING, config_for, from_source
from tests.integration.test_sleep_child import log_of

COUNT = 100


@pytest.fixture
def config(home: Path, tiny_model: Path) -> Config:
    made = config_for(home, tiny_model, layers="output", epochs=1, project_share=0.0, max_minutes=60.0)
    return replace(made, attention=AttentionConfig(enabled=True, learning_rate=0.2))


async def sleep(config: Config, until: Callable[[Progress], bool] = lambda _: False) -> Ended:
    """One sleep through the supervisor, sent away (or killed, where it is slow to go) when `until` says so."""
    enough = asyncio.Event()
    sleeper = Sleeper(config, on_progress=lambda progress: enough.set() if until(progress) else None)
    await sleeper.start(new_id(), "test")
    life = asyncio.create_task(sleeper.wait())
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        await sleeper.wake("test")
    waiting.cancel()
    ended = await life
    assert ended is not None
    return ended


def suggestion_for(item: Experience, *remembered: Experience) -> Suggestion:
    return Suggestion(
        id=item.id,
        place=item.place,
        text=item.suggested,
        prefix=item.prefix,
        suffix=item.suffix,
        context=item.context,
        base_fingerprint="b",
        adapter_versions=(),
        memory_ids=tuple(one.id for one in remembered),
        mean_logprob=-1.0,
        latency_ms=1.0,
        created_at=item.created_at,
    )


def with_memories(count: int, *, days: int = 0) -> list[Experience | Suggestion]:
    """Experiences of which each had the two before it in its prompt; every other one was satisfying."""
    files = ("types.py", "config.py", "cli.py", "doctor.py", "sleep/dataset.py", "models/fim.py")
    items = [
        replace(item, reward=1.0 if index % 2 else -0.25, prefix=item.prefix[-60:], suffix=item.suffix[:50])
        for index, item in enumerate(from_source(count, files=files, start=MORNING + timedelta(days=days), offset=days))
    ]
    shown = [suggestion_for(items[i], items[i - 1], items[i - 2]) for i in range(2, len(items))]
    return [*items, *shown]


def part_of(contexts: tuple[ContextReport, ...]) -> ContextReport:
    (part,) = [one for one in contexts if one.context == NAME]
    return part


async def test_a_morning_with_memories_is_learned_judged_and_published(store: Store, config: Config) -> None:
    await store.write(with_memories(COUNT))
    ended = await sleep(config)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert ended.report is not None
    part = part_of(ended.report.contexts)
    assert (part.new, part.held_out) == (COUNT - 2 - 30, 30)
    assert part.steps == 2 * -(-part.new // 16)
    base = Base.load(config.base.model, device="cpu", threads=1)
    (version,) = await store.attention_versions(base.info.fingerprint)
    folder = config.home / version.folder
    assert sha256_file(folder / WEIGHTS) == version.sha256
    manifest = read_manifest(folder)
    assert part.nll_zeroed is None
    assert read(folder, version.sha256, (2, 4)).parts == {}
    learned, held_out = set(manifest.data["learned"]), set(manifest.data["held_out"])
    assert learned.isdisjoint(held_out)
    assert len(learned | held_out) == COUNT - 2
    acting = Neuromodulation(base)
    acting.load(version.id, folder)
    assert acting.gains is not None
    assert 0 < acting.gains.values.abs().max() <= config.attention.max_gain
    assert -0.25 < acting.gains.centre < 1.0
    expected = VersionState.PUBLISHED if part.gain_low > 0 else VersionState.REJECTED
    assert version.state is expected
    assert Verdict(expected.value) is part.verdict
    assert not list(config.attention_dir.glob(".tmp-*"))
    record = archive.newest(config.home)
    assert record is not None and record.run == record.id
    told = record.details_of(NAME)
    assert [point.step for point in told.curve] == list(range(1, part.steps + 1))
    assert sum(source.texts for source in told.sources) == part.new
    assert f'<h2>{NAME} <span class="badge {expected.value}">' in page(record)

    # A second day: what is published is learned on from, and its experiences are not new any more.
    await store.write(with_memories(COUNT, days=1))
    ended = await sleep(config)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    newest, former = await store.attention_versions(base.info.fingerprint)
    assert former.id == version.id
    if expected is VersionState.PUBLISHED:
        assert newest.parent == version.id
        assert part_of(ended.report.contexts).new == COUNT - 2 - 30  # type: ignore[union-attr]
    published = await store.attention_versions(base.info.fingerprint, state=VersionState.PUBLISHED)
    assert len(published) <= 1


async def test_plastic_gains_are_judged_as_they_will_serve_and_without_their_trace(
    store: Store, config: Config
) -> None:
    await store.write(with_memories(COUNT))
    plastic = replace(config, attention=replace(config.attention, plastic=True))
    ended = await sleep(plastic, lambda at: at.context == NAME and at.phase is Phase.LEARNING and at.step >= 2)
    assert ended.ending is Ending.INTERRUPTED, (ended, log_of(config))
    ended = await sleep(plastic)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert ended.report is not None
    part = part_of(ended.report.contexts)
    assert part.steps == 2 * -(-part.new // 16)
    (version,) = await store.attention_versions(ended.report.base_fingerprint)
    assert version.metrics["nll_zeroed"] == part.nll_zeroed
    assert part.nll_zeroed == pytest.approx(part.nll_after, abs=0.1), "a few steps leave little in a trace"
    assert "With the trace zeroed they cost" in part.text
    base = Base.load(config.base.model, device="cpu", threads=1)
    acting = Neuromodulation(base)
    acting.load(version.id, config.home / version.folder)
    assert acting.gains is not None
    parts = read(config.home / version.folder, version.sha256, (2, 4)).parts
    serves = (parts["w"] + parts["alpha"] * parts["hebb"]).clamp(-config.attention.max_gain, config.attention.max_gain)
    assert parts["hebb"].any()
    torch.testing.assert_close(acting.gains.values, serves)


async def test_sent_away_it_goes_on_and_decides_once(store: Store, config: Config) -> None:
    await store.write(with_memories(COUNT))
    ended = await sleep(config, lambda at: at.context == NAME and at.phase is Phase.LEARNING and at.step >= 2)
    assert ended.ending is Ending.INTERRUPTED, (ended, log_of(config))
    assert [file.name for file in sorted(config.checkpoints_dir.glob(f"*/{NAME}/*"))] == [
        "curve.jsonl",
        "state.safetensors",
    ]
    ended = await sleep(config, lambda at: at.context != NAME and at.phase is Phase.LEARNING)
    assert ended.ending is Ending.INTERRUPTED, (ended, log_of(config))
    steps: list[Progress] = []
    ended = await sleep(config, lambda at: bool(steps.append(at)))
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert not [step for step in steps if step.context == NAME]
    assert ended.report is not None
    assert part_of(ended.report.contexts).steps > 0
    fingerprint = ended.report.base_fingerprint
    assert len(await store.attention_versions(fingerprint)) == 1
    assert not list(config.checkpoints_dir.glob("*"))


async def test_sent_away_before_its_folder_is_announced_it_is_written_again_under_the_same_id(
    store: Store, config: Config
) -> None:
    await store.write(with_memories(COUNT))
    base, sleep, stop = fingerprint_of(Path(config.base.model)), new_id(), threading.Event()

    def leave(message: Message) -> None:
        if isinstance(message, Progress) and message.phase is Phase.PUBLISHING:
            stop.set()

    async def again() -> list[AttentionVersion]:
        await consolidate(store, config, base, sleep, threading.Event(), lambda _: None)
        return await store.attention_versions(base)

    with pytest.raises(Interrupted):
        await consolidate(store, config, base, sleep, stop, leave)
    (left,) = config.attention_dir.iterdir()
    (version,) = await again()
    assert [config.home / version.folder] == list(config.attention_dir.iterdir()) == [left]
    await store.insert_attention_version(replace(version, state=VersionState.FORGOTTEN))
    anew, former = await again()
    assert (former.id, former.state) == (version.id, VersionState.FORGOTTEN) and anew.id != version.id


async def test_too_few_wait_and_disabled_nothing_happens(store: Store, config: Config) -> None:
    await store.write(with_memories(40))
    off = replace(config, attention=AttentionConfig())
    ended = await sleep(off)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert ended.report is not None
    assert NAME not in [part.context for part in ended.report.contexts]
    await store.write(with_memories(15, days=1))
    ended = await sleep(config)
    assert ended.report is not None
    part = part_of(ended.report.contexts)
    assert part.verdict is Verdict.WAITING
    assert "are needed" in part.reason
    assert await store.attention_versions(ended.report.base_fingerprint) == []


async def _version(
    store: Store, config: Config, fingerprint: str, spoil: Callable[[Path], None] = lambda _: None
) -> AttentionVersion:
    """A version with gains, published as a sleep does."""
    folder = config.attention_dir / str(new_id())
    id = write_version(folder, fingerprint, Gains(torch.ones(2, 4), 0.0))
    digest = sha256_file(folder / WEIGHTS)
    spoil(folder / WEIGHTS)
    made = AttentionVersion(
        id=id,
        base_fingerprint=fingerprint,
        parent=None,
        consolidation_id=new_id(),
        folder=folder.relative_to(config.home).as_posix(),
        sha256=digest,
        state=VersionState.PUBLISHED,
        reason="",
        metrics={"gain": 0.1},
        created_at=MORNING,
    )
    await store.insert_attention_version(made)
    return made


async def test_a_published_version_acts_at_once_and_goes_with_the_setting(store: Store, config: Config) -> None:
    heard: list[str] = []
    announced = asyncio.Event()
    await store.listen(lambda id: (heard.append(id), announced.set()))  # type: ignore[func-returns-value]
    worker = EngineWorker()
    info = await worker.load(config.base)

    async def acting() -> object:
        return await worker.run(lambda desk: desk.neuromodulation.version)

    assert await attending.refresh(store, worker, info.fingerprint, config) == []
    assert await acting() is None
    first = await _version(store, config, info.fingerprint)
    await asyncio.wait_for(announced.wait(), 10.0)
    assert heard == [str(first.id)]
    assert await attending.refresh(store, worker, info.fingerprint, config) == []
    assert await acting() == first.id
    assert await attending.refresh(store, worker, info.fingerprint, replace(config, attention=AttentionConfig())) == []
    assert await acting() is None

    second = await _version(store, config, info.fingerprint, lambda file: file.write_bytes(b"damaged"))
    found = await store.attention_versions(info.fingerprint)
    assert {one.id: one.state for one in found} == {
        first.id: VersionState.RETIRED,
        second.id: VersionState.PUBLISHED,
    }
    assert replace(next(one for one in found if one.id == first.id), state=VersionState.PUBLISHED) == first
    (problem,) = await attending.refresh(store, worker, info.fingerprint, config)
    assert "sha256" in problem
    assert await acting() is None
    worker.close()


async def test_the_adapter_in_use_acts_while_gains_are_learned(store: Store, config: Config) -> None:
    version = await make_version(store, config)
    adapters = AdapterSet(Base.load(config.base.model, shared=False))
    adapters.load(version.id, config.home / version.folder, version.context)
    assert acting(adapters, version.context, config).versions == (version.id,)
    off = replace(config, adapters=replace(config.adapters, enabled=False))
    assert acting(adapters, version.context, off).versions == ()
    assert acting(adapters, "language:go", config).versions == ()

"""The journal on its way to PostgreSQL: exactly once, whatever is killed or away."""

# ruff: noqa: F811, ASYNC110, ASYNC220
from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from npllm.assist.recorder import Recorder
from npllm.config import FeedbackConfig, JournalConfig
from npllm.memory import codec
from npllm.memory.journal import Journal
from npllm.memory.pump import Pump
from npllm.memory.store import Store
from npllm.types import ModelError, StoreError
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    store,
    store_config,
    unit_vector,
)


class Embeds:
    """Counts what it is asked, and fails when told to. Vectors by the text's length: no model is needed here."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    async def __call__(self, texts: list[str]) -> list[tuple[float, ...]]:
        if self.broken:
            raise ModelError("no weights")
        self.asked.extend(texts)
        return [unit_vector(len(text) % 384) for text in texts]


class Provider:
    """The store, or StoreError while it is away."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False
        self.asked = 0

    async def __call__(self) -> Store:
        self.asked += 1
        if self.away:
            raise StoreError("away")
        return self.store


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def make_pump(journal: Journal, store: Store, **settings: int) -> tuple[Pump, Provider, Embeds]:
    provider, embeds = Provider(store), Embeds()
    return Pump(journal, provider, embeds, JournalConfig(**{"flush_ms": 10, **settings})), provider, embeds


async def written(store: Store) -> int:
    return (await store.counts()).suggestions


async def found(store: Store, text_length: int) -> Sequence[object]:
    return await store.similar(
        unit_vector(text_length % 384), project=None, language="python", limit=5, min_similarity=0.9
    )


async def test_records_reach_the_store_in_batches_and_the_file_goes(journal: Journal, store: Store) -> None:
    pump, _, _ = make_pump(journal, store, batch=7)
    records = [make_suggestion() for _ in range(40)]
    journal.append(records[:20])
    running = asyncio.create_task(pump.run())
    await asyncio.to_thread(journal.append, records[20:])
    assert await pump.drain(30)
    assert journal.backlog() == 0 and await written(store) == 40
    running.cancel()
    journal.close()
    assert list(journal.folder.iterdir()) == []


async def test_a_database_that_is_away_costs_nothing_but_time(
    journal: Journal, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    pump, provider, _ = make_pump(journal, store)
    provider.away = True
    running = asyncio.create_task(pump.run())
    journal.append([make_suggestion()])
    while provider.asked < 3:
        await asyncio.sleep(0.01)
    journal.append([make_suggestion()])
    assert journal.backlog() == 2
    assert not await pump.drain(0.2)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "away" in warnings[0].getMessage()  # once per outage
    provider.away = False
    assert await pump.drain(30)
    assert await written(store) == 2
    running.cancel()


async def test_replaying_a_journal_twice_is_once(journal: Journal, store: Store) -> None:
    suggestion = make_suggestion()
    experience = make_experience(id=suggestion.id)
    later = dataclasses.replace(experience, revision=1, final_text="return sum(v)")
    journal.append([suggestion, make_outcome(suggestion), experience, later])
    assert journal.path is not None
    lines = journal.path.read_bytes()
    pump, _, embeds = make_pump(journal, store)
    assert await pump.drain(30)
    before = await store.counts()
    assert embeds.asked == ["def add(values):\n    return sum(v)"]  # the earlier look was overtaken
    journal.close()

    (journal.folder / "0.jsonl").write_bytes(lines)
    again = Journal(journal.folder)
    pump, _, _ = make_pump(again, store)
    assert again.backlog() == 4
    assert await pump.drain(30)
    assert await store.counts() == before
    kept = await store.experience(experience.id)
    assert kept is not None and kept.final_text == "return sum(v)"


async def test_what_a_killed_process_left_is_carried_by_the_next(
    journal: Journal, store: Store, tmp_path: Path
) -> None:
    script = """
import sys
from pathlib import Path
from npllm.memory.journal import Journal
from tests.fixtures_memory import make_suggestion
journal = Journal(Path(sys.argv[1]))
while True:
    journal.append([make_suggestion()])
    print("written", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script, str(journal.folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(20):
        child.stdout.readline()
    pump, _, _ = make_pump(journal, store)
    assert await pump.drain(30) and await written(store) == 0  # it lives: its journal is its own
    child.send_signal(signal.SIGKILL)
    acknowledged = 20 + child.stdout.read().count("written\n")
    child.stdout.close()
    child.wait()
    others = [make_pump(Journal(journal.folder), store)[0] for _ in range(2)]  # two windows at once
    assert all(await asyncio.gather(pump.drain(30), *(other.drain(30) for other in others)))
    assert acknowledged <= await written(store) <= acknowledged + 1
    assert not list(journal.folder.glob("*.jsonl"))


async def test_a_bad_record_does_not_hold_up_the_others(journal: Journal, store: Store) -> None:
    pump, _, _ = make_pump(journal, store)
    bad = make_suggestion(place=make_place(offset=2**40))
    journal.append([make_suggestion(), bad, make_suggestion()])
    path = journal.path
    assert path is not None
    with path.open("ab") as file:  # a damaged line in the middle
        file.write(b"damaged\n")
    journal.close()
    after = Journal(journal.folder)
    after.append([make_suggestion()])
    pump, _, _ = make_pump(after, store)
    assert await pump.drain(30)
    assert await written(store) == 3
    aside = path.with_suffix(".corrupt").read_bytes()
    assert aside == b"damaged\n" + codec.encode(bad)


async def test_experiences_are_embedded_once_and_later_if_the_model_failed(
    journal: Journal, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("npllm.memory.pump.BACKFILL_PAUSE_S", 0.05)
    pump, _, embeds = make_pump(journal, store)
    embeds.broken = True
    experience = make_experience()
    text = "def add(values):\n    return sum(values)"
    running = asyncio.create_task(pump.run())
    await asyncio.to_thread(journal.append, [experience])
    assert await pump.drain(30)
    assert await store.experience(experience.id) is not None and not await found(store, len(text))
    embeds.broken = False
    async with asyncio.timeout(30):
        while not await found(store, len(text)):
            await asyncio.sleep(0.02)
    assert embeds.asked == [text]
    journal.append([dataclasses.replace(experience, revision=1, reward=0.9)])
    assert await pump.drain(30)
    assert embeds.asked == [text] and await found(store, len(text))  # the same text: not embedded again
    running.cancel()


async def test_at_the_journals_bound_recording_stops_visibly_and_goes_on(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal", most=20_000)
    pump, provider, _ = make_pump(journal, store)
    provider.away = True
    said: list[str] = []
    recorder = Recorder(journal, FeedbackConfig(), lambda _: None, said.append)
    recorder.start()
    made = [make_suggestion(prefix="x = 1\n" * 300) for _ in range(30)]
    for suggestion in made:
        recorder.suggestion(suggestion)
        await recorder.flush()  # it does not wait for room
    assert "journal.max_mb" in said[-1] and journal.waiting() <= 20_000
    kept = journal.backlog()
    assert 0 < kept < 30
    assert "recording stops" in caplog.text

    provider.away = False
    assert await pump.drain(30)
    later = make_suggestion()
    recorder.suggestion(later)
    await recorder.flush()
    assert said[-1] == "" and f"{30 - kept} records were not written down" in caplog.text
    assert await pump.drain(30)
    assert await written(store) == kept + 1
    assert await store.suggestion(later.id) is not None and await store.suggestion(made[0].id) is not None
    await recorder.close()


async def test_what_waits_in_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("npllm.assist.recorder.MOST_WAITING", 10)
    blocked = tmp_path / "journal"
    blocked.write_text("a file where the folder should be")
    said: list[str] = []
    journal = Journal(blocked)
    recorder = Recorder(journal, FeedbackConfig(), lambda _: None, said.append)
    recorder.start()
    for _ in range(15):
        recorder.suggestion(make_suggestion())
        await asyncio.sleep(0.02)
    assert any("waits in memory" in text for text in said) and "too much waits in memory" in said[-1]
    blocked.unlink()
    await recorder.flush()
    assert said[-1] == "" and "records were not written down" in caplog.text
    await recorder.close()
    assert 10 <= journal.backlog() < 15

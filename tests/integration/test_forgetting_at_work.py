# ruff: noqa: F811
"""What is being written while something is forgotten held it in its prompt: neither offered, kept nor recorded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from npllm import config
from npllm.assist.assistant import Assistant
from npllm.memory.places import Selector
from npllm.memory.store import Store
from npllm.types import Place, Snippet
from tests.fixtures_memory import database_url, make_experience, make_place, postgres  # noqa: F401
from tests.lsp_session import settings

CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1200):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to pass")


@pytest.fixture
async def assistant(home: Path, practised_model: Path, database_url: str) -> AsyncIterator[Assistant]:
    sections = settings(practised_model, database={"url": database_url}, completion={"timeout_ms": 60_000})
    made = Assistant(config.merge(config.Config(home=home), sections, source="the test"))
    made.start()
    resources = made.resources
    await until(lambda: resources.worker.info is not None and resources.retriever is not None)
    yield made
    await made.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "w"
    folder.mkdir()
    return make_place(project=str(folder), uri=(folder / "app.py").as_uri(), offset=len(CODE))


async def forget_something(assistant: Assistant) -> None:
    """As `npllm memory forget` does, from another process; returns when this one has heard of it."""
    store, before = assistant.resources.store, assistant._offering.generation
    assert store is not None
    await store.write([make_experience(place=make_place(path="secret.py", uri="file:///project/secret.py"))])
    meant = Selector(path="/project/secret.py")
    found = await store.forgetting.forget(meant, tainted=lambda *_: (), usable=lambda _: True)
    assert found.counts["experiences"] == 1
    await until(
        lambda: assistant._offering.generation >= before + 2
    )  # at once, and when it is known what is off limits


async def suggestions(store: Store | None) -> int:
    assert store is not None
    return (await store.counts()).suggestions


async def test_a_completion_that_is_being_written_is_dropped(assistant: Assistant, place: Place) -> None:
    offer = await assistant.complete(place, CODE, asked=True)
    assert offer is not None, "else this test would say nothing"
    assistant._cache.clear()
    go_on = threading.Event()
    busy = asyncio.create_task(assistant.resources.worker.run(lambda _: go_on.wait(60)))
    asked = asyncio.create_task(assistant.complete(place, CODE, asked=True))
    await until(lambda: assistant.thinking == 1)
    await forget_something(assistant)
    go_on.set()
    assert await busy and await asked is None
    assert assistant._cache.lookup(place, CODE, "") is None
    again = await assistant.complete(place, CODE, asked=True)
    assert again is not None and again.text == offer.text, "the next request is served"


async def test_what_the_models_thread_had_written_already_is_dropped(
    assistant: Assistant, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is done before the forgetting, the event loop hears of it after: nothing looks at `cancel` in time."""
    run, heard, go_on = assistant.resources.worker.run, asyncio.Event(), asyncio.Event()

    async def slow(job, cancel=None):  # type: ignore[no-untyped-def]
        made = await run(job, cancel)
        if cancel is not None:  # a request's
            heard.set()
            await go_on.wait()
        return made

    monkeypatch.setattr(assistant.resources.worker, "run", slow)
    asked = asyncio.create_task(assistant.complete(place, CODE, asked=True))
    await heard.wait()
    monkeypatch.setattr(assistant.resources.worker, "run", run)
    await forget_something(assistant)
    go_on.set()
    assert await asked is None and assistant._cache.lookup(place, CODE, "") is None


async def test_a_rewrite_that_has_read_its_memories_is_dropped(
    assistant: Assistant, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CODE + "depth + depth\n"
    assert await assistant.rewrite(place, text, len(text) - 1) is not None
    await assistant.settle()
    before = await suggestions(assistant.resources.store)
    recall, heard, go_on = assistant.resources.recall, asyncio.Event(), asyncio.Event()

    async def slow(place: Place, prefix: str, suffix: str) -> tuple[Snippet, ...]:
        found = await recall(place, prefix, suffix)
        heard.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(assistant.resources, "recall", slow)
    asked = asyncio.create_task(assistant.rewrite(place, text, len(text) - 1))
    await heard.wait()
    await forget_something(assistant)
    go_on.set()
    assert await asked is None
    await assistant.settle()
    assert await suggestions(assistant.resources.store) == before


async def test_what_is_done_before_it_is_known_what_is_off_limits_is_dropped(
    assistant: Assistant, place: Place, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    """The announcement comes, what is off limits only later: another connection has the table locked."""
    store = assistant.resources.store
    assert store is not None
    await store.write([make_experience(place=make_place(path="secret.py", uri="file:///project/secret.py"))])
    run, heard, go_on = assistant.resources.worker.run, asyncio.Event(), asyncio.Event()

    async def slow(job, cancel=None):  # type: ignore[no-untyped-def]
        made = await run(job, cancel)
        if cancel is not None:  # a request's
            heard.set()
            await go_on.wait()
        return made

    monkeypatch.setattr(assistant.resources.worker, "run", slow)
    asked = asyncio.create_task(assistant.complete(place, CODE, asked=True))
    await heard.wait()
    monkeypatch.setattr(assistant.resources.worker, "run", run)
    before = assistant._offering.generation
    other = await asyncpg.connect(database_url)
    await other.execute("BEGIN; LOCK TABLE npllm.off_limits IN ACCESS EXCLUSIVE MODE")
    announcing = await asyncpg.connect(database_url)
    await announcing.execute("SELECT pg_notify(channel, 'forgotten') FROM npllm.persons WHERE owner = current_user")
    await until(lambda: assistant._offering.generation > before)
    assert assistant._offering.generation == before + 1, "what is off limits is not known yet"
    go_on.set()
    assert await asked is None and assistant._cache.lookup(place, CODE, "") is None
    await other.execute("ROLLBACK")
    await until(lambda: assistant._offering.generation >= before + 2)
    await other.close()
    await announcing.close()

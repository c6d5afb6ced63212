"""What stands in a prompt: what is remembered is used only where the base itself finds it useful. Shipped starter."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from npllm.assist import writing
from npllm.assist.worker import EngineWorker
from npllm.config import BaseConfig, CompletionConfig, Config
from npllm.types import Place, Snippet, new_id

ABOVE = "class Quokka:\n    def __init__(self, zebra_width, gnu_height):\n        self.limit = 3\n"
TAIL = (
    "    def migrate_herd(self, zebra_width, gnu_height):\n"
    "        self.herd_register.append(zebra_width * gnu_height)\n"
    "        self.herd_register.sort(key=self.migration_order)\n"
    "        "
)
ALIKE = (
    "    def migrate_flock(self, zebra_width, gnu_height):\n" + TAIL.split("\n", 1)[1] + "return self.herd_register\n"
)
UNLIKE = '<div class="a"><p>The quick brown fox</p></div>\n<span id="x">Lorem ipsum dolor sit amet.</span>\n'


@pytest.fixture
async def worker():
    made = EngineWorker()
    await made.load(BaseConfig(threads=1))
    yield made
    made.close()


def request_with(text: str) -> writing.Request:
    place = Place("file:///w/a.py", "a.py", "python", "/w", len(ABOVE + TAIL))
    config = Config(home=Path("/nowhere"), completion=CompletionConfig(min_mean_logprob=-100.0, max_new_tokens=16))
    return writing.Request(place, ABOVE + TAIL, "\n", (Snippet("b.py", text, 0.9, new_id()),), config)


async def test_what_makes_the_last_lines_likelier_is_used(worker):
    request = request_with(ALIKE)
    cancel = threading.Event()
    made = await worker.run(lambda desk: writing.suggest(desk, request, cancel, "inline"))
    assert made is not None
    assert made.memory_ids == (request.snippets[0].experience_id,)
    scored = await worker.run(lambda desk: writing.score(desk, request, "return self.herd_register", cancel))
    assert scored.memories == 1


async def test_what_does_not_is_left_out(worker):
    request = request_with(UNLIKE)
    cancel = threading.Event()
    made = await worker.run(lambda desk: writing.suggest(desk, request, cancel, "inline"))
    assert made is not None
    assert made.memory_ids == ()


async def test_while_a_line_is_typed_the_base_is_asked_once(worker, monkeypatch):
    """Else two prompts would take turns, and at every key all of both would be computed."""
    from npllm.models import decoding

    asked: list[str] = []
    real = decoding.score
    monkeypatch.setattr(decoding, "score", lambda *a, **k: (asked.append(a[3]), real(*a, **k))[1])
    request, cancel = request_with(ALIKE), threading.Event()
    for typed in ("", "return", "return self."):
        now = replace(request, prefix=request.prefix + typed)
        made = await worker.run(lambda desk, now=now: writing.suggest(desk, now, cancel, "inline"))
        assert made.memory_ids == (request.snippets[0].experience_id,)
    assert len(asked) == 2  # with and without
    below = replace(request, prefix=request.prefix + "return self.herd_register\n    ")
    await worker.run(lambda desk: writing.suggest(desk, below, cancel, "inline"))
    assert len(asked) == 4


async def test_a_loaded_base_costs_later_collections_nothing_and_goes_when_another_comes(worker, tiny_model):
    base = weakref.ref(await worker.run(lambda desk: desk.base.model))
    assert not any(one is base() for one in gc.get_objects())  # set aside
    await worker.load(BaseConfig(model=str(tiny_model), threads=1))
    gc.collect()
    assert base() is None
    gc.unfreeze()


async def test_a_request_taken_back_gives_nothing(worker):
    cancel = threading.Event()
    cancel.set()
    request = request_with(ALIKE)
    assert await worker.run(lambda desk: writing.suggest(desk, request, cancel, "inline")) is None

"""What loads beside what: weights must not be made while peft makes modules without any, in whatever thread."""

from __future__ import annotations

import asyncio
from pathlib import Path

from npllm.assist.resources import Resources
from npllm.config import Config
from npllm.memory.embedder import Embedder
from npllm.memory.store import Store


async def test_the_embedder_is_not_loaded_while_an_adapter_is(home: Path) -> None:
    async def nothing(_: Store) -> None:
        return None

    resources = Resources(Config(home=home), lambda: None, lambda _: None, nothing, lambda: None, nothing)
    embedder = resources._embedder = Embedder()
    resources._base_tried.set()
    async with resources._loading:  # as base and adapters are loaded
        vectors = asyncio.create_task(resources.embed(["x = 1"]))
        await asyncio.sleep(0.3)
        assert embedder._model is None and not vectors.done()
    assert len((await vectors)[0]) == 384
    async with resources._loading:  # once it is there, nobody waits
        assert len((await resources.embed(["y = 2"]))[0]) == 384
    embedder.close()
    resources.worker.close()

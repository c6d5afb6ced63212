"""The pump: carries the journal to PostgreSQL, in order, in batches, as often as it takes.

While the database is away nothing is lost and nobody waits: the journal grows. Writing twice is writing once
(`Store.write`), so a pump that dies between writing and noting its position does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import UUID

from npllm.config import JournalConfig
from npllm.memory import codec
from npllm.memory.database import DataRefused
from npllm.memory.journal import Batch, Journal, claimed, forget, read_batch, set_aside
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import Experience, JournalRecord, NpllmError

log = logging.getLogger(__name__)

Embed = Callable[[list[str]], Awaitable[list[tuple[float, ...]]]]
StoreProvider = Callable[[], Awaitable[Store]]

MAX_PAUSE_S = 30.0
BACKFILL_PAUSE_S = 300.0  # after the embedder failed
REMEMBERED = 2_000  # experiences whose embedded text is known to be in the store


class Pump:
    """One per process. `store_provider` gives the connected store or raises StoreError.

    `on_problem` is told in one sentence when nothing can be carried, and "" when it can.
    """

    def __init__(
        self,
        journal: Journal,
        store_provider: StoreProvider,
        embed: Embed,
        config: JournalConfig,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_problem = on_problem
        self._journal = journal
        self._store_provider = store_provider
        self._embed = embed
        self._config = config
        self._carrying = asyncio.Lock()
        self._embedded: OrderedDict[UUID, str] = OrderedDict()
        self._backfill_at = 0.0  # monotonic; infinity = all is embedded

    async def run(self) -> None:
        """Carry for ever; end it by cancelling. What is wrong with the database is said once per outage."""
        pause = self._config.flush_ms / 1000
        away = False
        while True:
            await asyncio.sleep(pause)
            try:
                await self._carry()
                if time.monotonic() >= self._backfill_at:
                    await self._backfill()
                pause = self._config.flush_ms / 1000
                if away:
                    log.info("the database is back; the journal has been carried over")
                    self._on_problem("")
                away = False
            except (NpllmError, OSError) as error:
                pause = min(pause * 2, MAX_PAUSE_S)
                (log.debug if away else log.warning)("the journal waits for the database: %s", error)
                self._on_problem(f"What is learned waits in the journal: {error}")
                away = True
            except Exception:
                pause = min(pause * 2, MAX_PAUSE_S)
                log.exception("carrying the journal failed; trying again in %.1f s", pause)

    async def drain(self, timeout_s: float) -> bool:
        """Carry all there is now; False when that did not succeed in time (the journal keeps it)."""
        deadline = time.monotonic() + timeout_s
        pause = 0.05
        while True:
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.01)):
                    await self._carry()
            except (NpllmError, OSError, TimeoutError) as error:
                log.debug("draining the journal: %r", error)
            if await asyncio.to_thread(self._journal.backlog) == 0:
                return True
            if time.monotonic() + pause > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _carry(self) -> None:
        """Everything: what dead processes left first, then our own."""
        async with self._carrying:
            for path in await asyncio.to_thread(self._journal.orphans):
                with claimed(path) as mine:
                    if mine:
                        await self._carry_file(path, complete=True)
                        forget(path)
            own = self._journal.path
            if own is not None:
                with contextlib.suppress(FileNotFoundError):  # it was full, and another process carried it
                    await self._carry_file(own, complete=False)

    async def _carry_file(self, path: Path, *, complete: bool) -> None:
        while True:
            batch = await asyncio.to_thread(read_batch, path, self._config.batch, complete=complete)
            if batch is None:
                return
            if batch.records:
                await self._write(path, batch)
            self._journal.carried(path, batch)

    async def _write(self, path: Path, batch: Batch) -> None:
        store = await self._store_provider()
        records = await self._with_embeddings(_newest(batch.records))
        try:
            await store.write(records)
        except DataRefused:
            for record in records:  # find the bad one; the others must not suffer for it
                try:
                    await store.write([record])
                except DataRefused as error:
                    set_aside(path, codec.encode(record), str(error))
        self._remember(records)

    def _remember(self, records: Sequence[JournalRecord]) -> None:
        """Whose embeddings the store has, and of which text."""
        for record in records:
            if isinstance(record, Experience) and record.embedding is not None:
                self._embedded[record.id] = embedding_text(record.prefix, record.final_text)
                self._embedded.move_to_end(record.id)
        while len(self._embedded) > REMEMBERED:
            self._embedded.popitem(last=False)

    async def _with_embeddings(self, records: Sequence[JournalRecord]) -> list[JournalRecord]:
        """The records, experiences with an embedding where they had none and the store has not their text's."""
        wanting: dict[int, str] = {}
        for index, record in enumerate(records):
            if isinstance(record, Experience) and record.embedding is None and record.final_text.strip():
                text = embedding_text(record.prefix, record.final_text)
                if self._embedded.get(record.id) != text:
                    wanting[index] = text
        if not wanting:
            return list(records)
        try:
            vectors = await self._embed(list(wanting.values()))
        except Exception:
            log.exception("experiences are written without embeddings; they will be embedded later")
            self._backfill_at = time.monotonic() + BACKFILL_PAUSE_S
            return list(records)
        filled = list(records)
        for index, vector in zip(wanting, vectors, strict=True):
            record = filled[index]
            assert isinstance(record, Experience)
            filled[index] = dataclasses.replace(record, embedding=vector)
        return filled

    def embed_again(self) -> None:
        """What is in the store may lack embeddings."""
        self._embedded.clear()
        self._backfill_at = 0.0

    async def _backfill(self) -> None:
        """Embed some of what is in the store without an embedding: the embedder failed once, or is another now."""
        store = await self._store_provider()
        if not await store.embeddings.in_use():  # it is being changed, by another process
            self._backfill_at = time.monotonic() + BACKFILL_PAUSE_S
            return
        found = await store.experiences_without_embedding(self._config.batch)
        self._backfill_at = math.inf if not found else 0.0
        if found:
            records = await self._with_embeddings(found)
            embedded = [one for one in records if isinstance(one, Experience) and one.embedding is not None]
            if not embedded:
                self._backfill_at = time.monotonic() + BACKFILL_PAUSE_S
                return
            await store.embeddings.fill(embedded)
            self._remember(embedded)


def _newest(records: Sequence[JournalRecord]) -> list[JournalRecord]:
    """Without the earlier looks at an experience of which the batch has a later one."""
    last: dict[UUID, int] = {}
    for record in records:
        if isinstance(record, Experience):
            last[record.id] = max(record.revision, last.get(record.id, record.revision))
    return [r for r in records if not isinstance(r, Experience) or r.revision == last[r.id]]

"""What the assistant stands on, and what may be missing for a while: base, adapters, store, journal, retrieval.

Loads and connects in the background and says what is wrong, by part. Nothing here fails a request: without a
base there are no suggestions, without a store there is no memory, and what is to be remembered waits in the journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from npllm.assist import attending, context
from npllm.assist.indexer import Indexer
from npllm.assist.library import Library, Shelf
from npllm.assist.small import Small, loading
from npllm.assist.worker import Desk, EngineWorker
from npllm.config import Config
from npllm.ignoring import of_place
from npllm.memory.embedder import Embedder
from npllm.memory.forgetting import ANNOUNCED
from npllm.memory.index.records import ANNOUNCED as INDEXED
from npllm.memory.index.search import CodeSearch
from npllm.memory.journal import Journal
from npllm.memory.presence import RECONNECT
from npllm.memory.pump import Pump
from npllm.memory.retrieval import Retriever
from npllm.memory.store import Store
from npllm.types import ModelError, NpllmError, Place, Snippet, StoreError, VersionState

log = logging.getLogger(__name__)
MAX_DELAY_S = 30.0  # between two attempts to connect


class Resources:
    """One per server process.

    Args:
        on_change: called whenever something that the status shows has changed.
        on_problem: called with one sentence (cause and mend) when something is wrong.
        on_connected: called once, with the store.
        on_forgotten: called when something was forgotten on purpose, or may have been, and what is off limits is known.
        on_stale: called before that, at once, before anything is awaited.
    """

    def __init__(
        self,
        config: Config,
        on_change: Callable[[], None],
        on_problem: Callable[[str], None],
        on_connected: Callable[[Store], Coroutine[Any, Any, None]],
        on_forgotten: Callable[[Store], Coroutine[Any, Any, None]],
        on_stale: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self._on_change = on_change
        self._on_problem = on_problem
        self._on_connected = on_connected
        self._on_stale = on_stale
        self._on_forgotten = on_forgotten
        self.worker = EngineWorker()
        self.store: Store | None = None
        self.retriever: Retriever | None = None
        self.adapters: tuple[UUID, ...] = ()
        self.off_limits: tuple[str, ...] = ()  # files and folders of which nothing is written down
        self._small = Small(
            self.worker, lambda text: self.problem("cerebellum", text) if text else self.solved("cerebellum")
        )
        self.library = Library(lambda: self.worker.codec)
        self.library.ignore = config.memory.ignore
        self.indexer = Indexer(config, lambda text: self.problem("index", text) if text else self.solved("index"))
        self.journal = Journal(config.journal_dir, most=config.journal.max_mb * 1_000_000)
        self.backlog = 0  # journal records that have not reached PostgreSQL, as of a second ago
        self.problems: dict[str, str] = {}  # by part: "base", "store", "journal", "adapters", "memory", "cerebellum"...
        self._embedder: Embedder | None = None
        self._embeds = False  # its weights are loaded
        self._pump: Pump | None = None
        self._base_tried = asyncio.Event()
        self._loading = asyncio.Lock()  # of base and adapters: one change after the other
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def versions(self) -> tuple[UUID, ...]:
        """All versions that take part in a suggestion: adapters, and the cerebellum's."""
        small = self._small.version
        return self.adapters if small is None else (*self.adapters, small)

    # -- life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load the base and to connect to the store, in the background."""
        self._embedder = Embedder(self.config.memory.embedder, threads=self.config.memory.threads)
        self._pump = Pump(self.journal, self._stored, self.embed, self.config.journal, self._carrying)
        for job in (self._prepare(), self._connect(self._pump), self._count()):
            self.background(job)

    async def drain(self, timeout_s: float) -> None:
        """Carry the journal to PostgreSQL, for so long at most; what is left waits for the next time."""
        if self._pump is not None and self.store is not None:
            await self._pump.drain(timeout_s)

    async def close(self) -> None:
        """Carry what is left to PostgreSQL, if that is quick, and let go of everything."""
        await self.drain(1.5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.retriever is not None:
            await self.retriever.close()
        await asyncio.gather(self.library.close(), self.indexer.close())
        self.worker.close()
        if self._embedder is not None:
            self._embedder.close()
        self.journal.close()
        if self.store is not None:
            await self.store.close()

    async def configure(self, config: Config) -> None:
        """Take new settings; a changed base is loaded in the background, beside the old one."""
        old, self.config = self.config, config
        self.journal.most = config.journal.max_mb * 1_000_000
        if config.memory.ignore != old.memory.ignore:
            self.library.ignore = config.memory.ignore
            self.library.forget()
        await self.indexer.configure(config)
        if config.memory.embedder != old.memory.embedder:
            self.problem("memory", "The setting memory.embedder changed: restart the server to use it.")
        if self.store is not None and config.memory != old.memory:
            await self._retrieve_from(self.store)
        if self._pump is None:  # not started yet
            return
        if config.base != old.base:
            self.background(self._load_base())
        elif config.attention != old.attention or loading(config.cerebellum) != loading(old.cerebellum):
            self.background(self._try_refresh())
        if config.database != old.database:
            self.config = replace(config, database=old.database)
            self.problem("store", "The database setting changed: restart the server to use it.")

    def background(self, job: Coroutine[Any, Any, None]) -> None:
        """Run a job beside everything else; what goes wrong in it is told, never lost."""
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Vectors of texts. Waits for the base: two threads that import transformers at once meet half-made modules.

        The first time, also for an adapter that is being loaded: while peft makes its modules without weights, whatever
        another thread makes has none either.

        Raises:
            ModelError: there is no embedder, or its weights cannot be loaded.
        """
        await self._base_tried.wait()
        if self._embedder is None:
            raise ModelError("The server has not started yet.")
        if not self._embeds:
            async with self._loading:
                await self._embedder.warm_up()
            self._embeds = True
        return await self._embedder.embed(texts)

    async def load(self, job: Callable[[], object]) -> object:
        """Load another model in a thread, after the base and while nothing else is loaded (see `embed`)."""
        await self._base_tried.wait()
        async with self._loading:
            return await asyncio.to_thread(job)

    def leaves_alone(self, place: Place) -> bool:
        """Whether a document is neither read nor written about nor suggested in."""
        return of_place(place, self.config.memory.ignore)

    # -- memory ---------------------------------------------------------------------------------------

    async def recall(self, place: Place, prefix: str, suffix: str) -> tuple[Snippet, ...]:
        """What is remembered that resembles a place, within `memory.wait_ms`."""
        self._index(place)
        if self.retriever is None:
            return ()
        return await self.retriever.snippets(place, prefix, suffix, self.config.memory.wait_ms)

    async def shelf(self, place: Place) -> Shelf | None:
        """What the project says word for word, as far as it is known within `memory.wait_ms`."""
        if not (self.config.memory.enabled and self.config.memory.continuations):
            return None
        return await self.library.shelf(place, self.config.memory.wait_ms)

    def prefetch(self, place: Place, text: str) -> None:
        """Look in memory for what resembles a place, in the background."""
        self._index(place)
        if self.config.memory.enabled and self.config.memory.continuations:
            self.library.look(place)
        if self.retriever is not None:
            self.retriever.prefetch(place, *context.window(text, place.offset))

    async def indexed(self, project: str = "", timeout_s: float = 600.0) -> None:
        """Wait until the index of the open projects, and of this one, is as their files are now; for evaluations.

        Raises:
            StoreError: that did not come in time.
        """
        self._index(Place("", "", "", project, 0))
        if not await self.indexer.settled(timeout_s):
            why = self.problems.get("index", f"it was not done within {timeout_s:.0f} s")
            raise StoreError(f"The index of the projects' code is not up to date: {why}")
        if self.retriever is not None:
            await self.retriever.loaded()

    def _index(self, place: Place) -> None:
        if self.store is not None:  # it has migrated the database
            self.indexer.open(place.project)

    # -- adapters -------------------------------------------------------------------------------------

    async def refresh_adapters(self) -> None:
        """Swap in the published adapters for the present base, and the policy that chooses among them.

        Raises:
            StoreError: the database does not answer.
        """
        async with self._loading:
            info, store = self.worker.info, self.store
            if info is None or store is None:
                return
            versions = await store.adapter_versions(state=VersionState.PUBLISHED, base_fingerprint=info.fingerprint)
            home = self.config.home
            wanted = {version.id: (version.context, home / version.folder) for version in versions}
            policy = await store.policies.published(info.fingerprint)

            def swap(desk: Desk) -> tuple[tuple[UUID, ...], list[str]]:
                refused = []
                for old in desk.adapters.loaded():
                    if old not in wanted:
                        desk.adapters.unload(old)
                for version_id, (family, folder) in wanted.items():
                    if version_id not in desk.adapters.loaded():
                        try:
                            desk.adapters.load(version_id, folder, family)
                        except ModelError as error:
                            refused.append(str(error))
                try:
                    desk.modulator.use(policy.id if policy else None, home / policy.folder if policy else home)
                except ModelError as error:
                    refused.append(str(error))
                return desk.adapters.loaded(), refused

            self.adapters, refused = await self.worker.run(swap)
            refused += await attending.refresh(store, self.worker, info.fingerprint, self.config)
        if refused:
            self.problem("adapters", " ".join(refused))
        else:
            self.solved("adapters")
        self._on_change()

    # -- what is wrong --------------------------------------------------------------------------------

    def problem(self, part: str, text: str) -> None:
        """Something is wrong with a part; said once."""
        if self.problems.get(part) != text:
            self.problems[part] = text
            self._on_problem(text)
            self._on_change()

    def solved(self, part: str) -> None:
        """A part works (again)."""
        if self.problems.pop(part, None) is not None:
            self._on_change()

    # -- background -----------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        try:
            await self._load_base()
        finally:
            self._base_tried.set()
        try:
            await self.embed(["def warm_up():"])
        except NpllmError as error:
            self.problem("memory", str(error))

    async def _load_base(self) -> None:
        try:
            async with self._loading:
                await self.worker.load(self.config.base)
        except ModelError as error:
            self.problem("base", str(error))
            return
        self.solved("base")
        self._on_change()
        await self._try_refresh()

    async def _connect(self, pump: Pump) -> None:
        delay = 1.0
        store: Store | None = None
        while True:
            try:
                store = store or await Store.connect(self.config)
                self.off_limits = self.library.off_limits = await store.forgetting.off_limits()
                await store.listen(self._announced)
                break
            except StoreError as error:
                self.problem("store", str(error))
                await asyncio.sleep(delay)
                delay = min(2 * delay, MAX_DELAY_S)
        self.store = store
        self.library.connect(store)
        self.background(pump.run())
        self.background(self._use_embedder(store, pump))
        await self._retrieve_from(store)
        self.solved("store")
        self._on_change()
        await self._on_connected(store)
        await self._try_refresh()

    async def _use_embedder(self, store: Store, pump: Pump) -> None:
        """See to it that the stored vectors are this embedder's: those of another go, and are made anew."""
        while self._embedder is not None:
            try:
                await self.embed(["def warm_up():"])
                fingerprint = await self._embedder.fingerprint()
                if await store.embeddings.use(fingerprint, shipped=self._embedder.shipped):
                    pump.embed_again()
                    if self.retriever is not None:
                        self.retriever.forget()
                return
            except ModelError:  # `_prepare` tells it
                return
            except StoreError as error:
                log.warning("the embedder in use is not known: %s", error)
                await asyncio.sleep(MAX_DELAY_S)

    def _announced(self, what: str) -> None:
        if self.retriever is not None and (what == RECONNECT or what.startswith(INDEXED)):
            self.retriever.announced(what)
        if what.startswith(INDEXED):
            return
        self.background(self._try_refresh())
        if what in (ANNOUNCED, RECONNECT):
            self._on_stale()
            self.background(self._forget())

    async def _forget(self) -> None:
        """Drop what is held in memory, carry the journal over and begin a new one: the old one holds texts still."""
        if self.store is None:
            return
        try:
            if self.retriever is not None:
                self.retriever.forget()
            self.off_limits = self.library.off_limits = await self.store.forgetting.off_limits()
            self.library.forget()
            self.indexer.look_again()
            if self._pump is not None:  # what was redacted has no embedding
                self._pump.embed_again()
            await self._on_forgotten(self.store)
            await self.drain(30.0)
            await asyncio.to_thread(self.journal.close)
        except StoreError as error:
            log.warning("what was forgotten may still be in memory until the server ends: %s", error)

    async def _try_refresh(self) -> None:
        try:
            await self.refresh_adapters()
            async with self._loading:
                changed = await self._small.refresh(self.config, self.store)
        except NpllmError as error:
            self.problem("adapters", str(error))
            return
        if changed:
            self._on_change()

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            backlog = await asyncio.to_thread(self.journal.backlog)
            if backlog != self.backlog:
                self.backlog = backlog
                self._on_change()

    def _carrying(self, problem: str) -> None:
        if problem:
            self.problem("database", problem)
        else:
            self.solved("database")

    async def _stored(self) -> Store:
        if self.store is None:
            raise StoreError("The database is not connected yet.")
        return self.store

    async def _retrieve_from(self, store: Store) -> None:
        memory = self.config.memory
        code = (
            CodeSearch(store.index, by_meaning=memory.index == "identifiers+meaning") if self.indexer.wanted else None
        )
        old, self.retriever = self.retriever, Retriever(store, self, memory, code)
        if old is not None:
            await old.close()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)
            self.problem("server", f"A background task failed: {error}. The log has the details.")

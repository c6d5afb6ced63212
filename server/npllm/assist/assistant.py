"""The assistant: takes a place in a document and gives a suggestion; hears what became of it; learns of new adapters.

It knows nothing of LSP and nothing of sleep. All methods are called on the event loop; the model computes
in `EngineWorker`'s thread. A database or a model that is not there (yet) costs suggestions or memory,
never an error in the editor.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from npllm.assist import context, filters, writing
from npllm.assist.recorder import Recorder
from npllm.assist.worker import Desk, EngineWorker
from npllm.assist.writing import LineScore, Request
from npllm.config import Config
from npllm.feedback.implicit import ImplicitFeedback
from npllm.memory.cache import CompletionCache
from npllm.memory.embedder import Embedder
from npllm.memory.journal import Journal
from npllm.memory.pump import Pump
from npllm.memory.retrieval import Retriever
from npllm.memory.store import Store
from npllm.types import (
    Decision,
    Experience,
    Feedback,
    ModelError,
    NpllmError,
    Outcome,
    OutcomeKind,
    Place,
    Snippet,
    StoreError,
    Suggestion,
    VersionState,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered at a request: a suggestion, and the text to insert (its rest, when typed through)."""

    suggestion: Suggestion
    text: str


class Assistant:
    """One per server process.

    Args:
        on_change: called whenever something that the status shows has changed.
        on_problem: called with one sentence (cause and mend) when something is wrong.
    """

    def __init__(
        self,
        config: Config,
        on_change: Callable[[], None] = lambda: None,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config = config
        self._on_change = on_change
        self._on_problem = on_problem
        self.worker = EngineWorker()
        self.store: Store | None = None
        self.problems: dict[str, str] = {}  # by part: "base", "store", "journal", "adapters"
        self.thinking = 0
        self.adapters: tuple[UUID, ...] = ()
        self.journal = Journal(config.journal_dir)
        self.backlog = 0  # journal records that have not reached PostgreSQL, as of a second ago
        self._embedder = Embedder(threads=config.memory.threads)
        self._retriever: Retriever | None = None
        self._pump = Pump(self.journal, self._stored, self._embedder.embed, config.journal)
        self._cache = CompletionCache()
        self._implicit = ImplicitFeedback(config.feedback)
        self._recorder = Recorder(
            self.journal, config.feedback, self._experienced, lambda text: self._problem("journal", text)
        )
        self._avoided: frozenset[str] = frozenset()
        self._cancel = threading.Event()
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load the base and to connect to the store, in the background."""
        self._started = True
        self._recorder.start()
        for job in (self._prepare(), self._connect(), self._pump.run(), self._look_again()):
            self._background(job)

    async def close(self) -> None:
        """Write down what is pending, and let go of everything."""
        self._cancel.set()
        if self.config.memory.record:
            self._recorder.outcomes(self._implicit.close_all(self._now()))
        await self._recorder.close()
        if self.store is not None:
            await self._pump.drain(timeout_s=2.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._retriever is not None:
            await self._retriever.close()
        self.worker.close()
        self._embedder.close()
        self.journal.close()
        if self.store is not None:
            await self.store.close()

    async def configure(self, config: Config) -> None:
        """Take new settings; a changed base is loaded in the background."""
        old, self.config = self.config, config
        self._recorder.config = config.feedback
        self._implicit.config = config.feedback
        if self.store is not None:
            await self._retrieve_from(self.store)
        if config.memory != old.memory or config.adapters != old.adapters or config.base != old.base:
            self._cache.clear()
        if config.base != old.base and self._started:
            self._background(self._load_base())
        if config.database != old.database and self._started:
            self._problem("store", "The database setting changed: restart the server to use it.")

    # -- requests -----------------------------------------------------------------------------------

    async def complete(self, place: Place, text: str, kind: str = "inline") -> Offer | None:
        """A suggestion for a place, or None.

        Args:
            place: the cursor.
            text: the whole document.
        """
        config = self.config
        if not config.completion.enabled or self.worker.info is None:
            return None
        prefix, suffix = context.window(text, place.offset)
        hit = self._cache.lookup(place, prefix, suffix)
        if hit is not None:
            return Offer(*hit)
        self._cancel.set()  # the newest request is the one that counts
        cancel = self._cancel = threading.Event()
        started = time.perf_counter()
        snippets = await self._recall(place, prefix, suffix)
        if cancel.is_set():
            return None
        timer = asyncio.get_running_loop().call_later(config.completion.timeout_ms / 1000, cancel.set)
        self._think(+1)
        try:
            request = Request(place, prefix, suffix, snippets, config)
            suggestion = await self.worker.run(
                lambda desk: writing.suggest(desk, request, cancel, kind, self._avoided), cancel
            )
        except ModelError as error:
            self._problem("base", str(error))
            return None
        finally:
            timer.cancel()
            self._think(-1)
        if suggestion is None or cancel.is_set():
            return None
        suggestion = replace(suggestion, latency_ms=(time.perf_counter() - started) * 1000)
        if self._cache.rejected(place, suggestion.text):
            return None
        self._cache.put(place, prefix, suffix, suggestion)
        if config.memory.record:
            self._recorder.suggestion(suggestion)
            self._recorder.outcomes(self._implicit.shown(suggestion, self._now()))
        return Offer(suggestion, suggestion.text)

    async def rewrite(self, start: Place, text: str, end: int) -> Suggestion | None:
        """What the base would write in place of `text[start.offset:end]`, by infilling; None if nothing else."""
        prefix, _ = context.window(text, start.offset)
        _, suffix = context.window(text, end)
        old = text[start.offset : end]
        request = Request(start, prefix, suffix, await self._recall(start, prefix, suffix), self.config)
        cancel = threading.Event()
        self._think(+1)
        try:
            suggestion = await self.worker.run(lambda desk: writing.rewrite(desk, request, cancel, old), cancel)
        finally:
            self._think(-1)
        if suggestion is not None and self.config.memory.record:
            self._recorder.suggestion(suggestion)
            self._recorder.outcomes(self._implicit.shown(suggestion, self._now(), replaced=len(old)))
        return suggestion

    async def score(self, place: Place, text: str, target: str) -> LineScore:
        """How well serving predicts `target` at a place: same prompt, memory and adapters as `complete`.

        Raises:
            ModelError: no base is loaded.
        """
        prefix, suffix = context.window(text, place.offset)
        request = Request(place, prefix, suffix, await self._recall(place, prefix, suffix), self.config)
        cancel = threading.Event()
        return await self.worker.run(lambda desk: writing.score(desk, request, target, cancel), cancel)

    # -- what became of it ---------------------------------------------------------------------------

    def changed(self, place: Place, before: str, start: int, end: int, new_text: str) -> None:
        """A document changed: `before[start:end]` became `new_text`."""
        if self.config.memory.record:
            self._recorder.outcomes(self._implicit.changed(place.uri, before, start, end, new_text, self._now()))

    def desk_moved(self, place: Place, text: str) -> None:
        """The person works at this place now: look in memory for what resembles it, in the background."""
        if self._retriever is not None:
            self._retriever.prefetch(place, *context.window(text, place.offset))

    def closed(self, uri: str) -> None:
        self._cache.invalidate(uri)
        self._outcomes(self._implicit.closed(uri, self._now()))

    def visible(self, suggestion_id: UUID) -> None:
        self._implicit.visible(suggestion_id, self._now())

    def dismissed(self, uri: str) -> None:
        self._outcomes(self._implicit.dismissed(uri, self._now()))

    def partially_accepted(self, suggestion_id: UUID, length: int) -> None:
        self._outcomes(self._implicit.partially_accepted(suggestion_id, length, self._now()))

    async def accepted(self, suggestion_id: UUID) -> None:
        """The item's command ran. Returns when that is on disk."""
        self._outcomes(self._implicit.accepted_command(suggestion_id, self._now()))
        await self._recorder.flush()

    async def feedback(self, emoji: str, comment: str, suggestion_id: UUID | None = None) -> Feedback | None:
        """What the person says about a suggestion (default: the last one). Returns when that is on disk."""
        if suggestion_id is None:
            latest = self._recorder.latest()
            suggestion_id = latest.id if latest else None
        if suggestion_id is None:
            return None
        given = self._recorder.feedback(suggestion_id, emoji, comment)
        await self._recorder.flush()
        return given

    async def settle(self) -> None:
        """Treat every pending suggestion as settled now, and carry everything to PostgreSQL."""
        self._outcomes(self._implicit.close_all(self._now()))
        await self._recorder.flush()
        await self._pump.drain(timeout_s=120.0)

    # -- new versions ---------------------------------------------------------------------------------

    async def refresh_adapters(self) -> None:
        """Swap in the published adapters for the present base."""
        info, store = self.worker.info, self.store
        if info is None or store is None:
            return
        versions = await store.adapter_versions(state=VersionState.PUBLISHED, base_fingerprint=info.fingerprint)
        home = self.config.home
        wanted = {version.id: (version.context, home / version.folder) for version in versions}

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
            desk.engine.forget()
            return tuple(desk.adapters.loaded()), refused

        self.adapters, refused = await self.worker.run(swap)
        self._cache.clear()
        if refused:
            self._problem("adapters", " ".join(refused))
        else:
            self._solved("adapters")
        self._on_change()

    # -- background ------------------------------------------------------------------------------------

    async def _load_base(self) -> None:
        try:
            await self.worker.load(self.config.base)
        except ModelError as error:
            self._problem("base", str(error))
            return
        self._solved("base")
        self._on_change()
        await self._try_refresh()

    async def _prepare(self) -> None:
        # One after the other: two threads that import transformers at once can meet half-made modules.
        await self._load_base()
        try:
            await self._embedder.warm_up()
        except NpllmError as error:
            self._problem("memory", str(error))

    async def _connect(self) -> None:
        delay = 1.0
        while True:
            try:
                store = await Store.connect(self.config)
                await store.listen(self._announced)
                break
            except StoreError as error:
                self._problem("store", str(error))
                await asyncio.sleep(delay)
                delay = min(2 * delay, 30.0)
        self.store = store
        await self._retrieve_from(store)
        self._solved("store")
        self._on_change()
        await self._try_refresh()
        try:
            avoided = await store.avoided(None, 1000)
            self._avoided |= {filters.normalise(item.suggested) for item in avoided}
        except StoreError as error:
            log.warning("avoided suggestions could not be read: %s", error)

    async def _stored(self) -> Store:
        if self.store is None:
            raise StoreError("The database is not connected yet.")
        return self.store

    async def _retrieve_from(self, store: Store) -> None:
        old, self._retriever = self._retriever, Retriever(store, self._embedder, self.config.memory)
        if old is not None:
            await old.close()

    def _announced(self, _payload: str) -> None:
        self._background(self._try_refresh())

    async def _try_refresh(self) -> None:
        try:
            await self.refresh_adapters()
        except NpllmError as error:
            self._problem("adapters", str(error))

    async def _look_again(self) -> None:
        """Looks that are due: how much of an accepted text survives, what was typed instead."""
        while True:
            await asyncio.sleep(1.0)
            self._outcomes(self._implicit.tick(self._now()))
            backlog = await asyncio.to_thread(self.journal.backlog)
            if backlog != self.backlog:
                self.backlog = backlog
                self._on_change()

    def _background(self, job: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(job)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)
            self._problem("server", f"A background task failed: {error}. The log has the details.")

    # -- small things -----------------------------------------------------------------------------------

    async def _recall(self, place: Place, prefix: str, suffix: str) -> tuple[Snippet, ...]:
        if self._retriever is None:
            return ()
        return await self._retriever.snippets(place, prefix, suffix, self.config.memory.wait_ms)

    def _outcomes(self, outcomes: list[Outcome]) -> None:
        if self.config.memory.record:
            self._recorder.outcomes(outcomes)

    def _experienced(self, experience: Experience) -> None:
        if experience.decision is Decision.AVOID:
            self._avoided |= {filters.normalise(experience.suggested)}
            if self._retriever is not None:
                self._retriever.forget()
        if experience.outcome in (OutcomeKind.REJECTED, OutcomeKind.DISMISSED, OutcomeKind.DELETED):
            self._cache.reject(experience.place, experience.suggested)

    def _think(self, step: int) -> None:
        self.thinking += step
        self._on_change()

    def _problem(self, part: str, text: str) -> None:
        if self.problems.get(part) != text:
            self.problems[part] = text
            self._on_problem(text)
            self._on_change()

    def _solved(self, part: str) -> None:
        if self.problems.pop(part, None) is not None:
            self._on_change()

    @staticmethod
    def _now() -> float:
        return time.monotonic()

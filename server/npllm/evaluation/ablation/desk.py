"""An editor in this process: the assistant that serves, without LSP between, so that many days fit into an evening.

It tells the assistant what `npllm.lsp` tells it of a document (opened, changed, closed, accepted), with one difference:
nothing is looked up ahead of need. A request then meets the same memory however fast the machine is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from npllm import types
from npllm.assist import context, reflexes
from npllm.assist.assistant import Assistant
from npllm.assist.library import Shelf, around
from npllm.assist.offering import Offer
from npllm.assist.worker import Desk as Models
from npllm.assist.writing import LineScore
from npllm.config import Config
from npllm.evaluation.client import Offered
from npllm.evaluation.sources import EvaluationError
from npllm.types import Place, VersionState

READY_S = 600.0  # for a base to be loaded and a database to answer, on a busy machine
LOOK_S = 0.05


@dataclass(slots=True)
class _Document:
    language: str
    text: str


class Desk:
    """One editor window on `workspace`; see `hands.Keyboard` and `developer.Assisted`."""

    def __init__(self, assistant: Assistant, workspace: Path) -> None:
        self.assistant = assistant
        self.workspace = workspace
        self._documents: dict[str, _Document] = {}

    def open(self, path: str, text: str, language: str) -> str:
        """Open a document below the workspace; its URI."""
        uri = (self.workspace / path).as_uri()
        self._documents[uri] = _Document(language, text)
        return uri

    def text(self, uri: str) -> str:
        """The document as it stands."""
        return self._documents[uri].text

    def change(self, uri: str, start: int, end: int, new_text: str) -> None:
        """Replace `text[start:end]`."""
        document = self._documents[uri]
        before = document.text
        document.text = before[:start] + new_text + before[end:]
        self.assistant.changed(self._place(uri, start + len(new_text)), before, start, end, new_text)

    def close(self, uri: str) -> None:
        """Close a document."""
        del self._documents[uri]
        self.assistant.closed(uri)

    async def complete(self, uri: str, offset: int) -> Offered | None:
        """Ask for a completion; None when nothing is offered."""
        made = await self.assistant.complete(self._place(uri, offset), self.text(uri))
        if made is None:
            return None
        self.assistant.offered(made)
        return Offered(made.text, offset, offset, made)

    def shown(self, offered: Offered) -> None:
        """The completion is on screen."""
        self.assistant.listener.visible(_of(offered).suggestion.id)

    async def accept(self, uri: str, offered: Offered) -> None:
        """Insert the completion, then run its command, as an editor does on Tab."""
        self.change(uri, offered.start, offered.end, offered.text)
        await self.assistant.accepted(_of(offered).suggestion.id)

    async def feedback(self, offered: Offered, emoji: str, comment: str) -> None:
        """Say what the person feels about the completion."""
        await self.assistant.feedback(emoji, comment, _of(offered).suggestion.id)

    async def score(self, uri: str, offset: int, text: str) -> LineScore:
        """How well serving predicts `text` there."""
        return await self.assistant.score(self._place(uri, offset), self.text(uri), text)

    def _place(self, uri: str, offset: int) -> Place:
        return context.place(uri, self._documents[uri].language, offset, (str(self.workspace),))


class SmallDesk(Desk):
    """A window in which the cerebellum alone reads and predicts, as it gives reflexes: without base and adapters."""

    @classmethod
    async def of(cls, desk: Desk) -> SmallDesk | None:
        """Beside another window; None where this version, or this assistant, has no cerebellum."""
        there = await desk.assistant.resources.worker.run(lambda models: _cerebellum(models) is not None)
        return cls(desk.assistant, desk.workspace) if there else None

    async def score(self, uri: str, offset: int, text: str) -> LineScore:
        """How well the cerebellum predicts `text` there."""
        place = self._place(uri, offset)
        prefix, suffix = context.window(self.text(uri), offset)
        document = around(self.text(uri), offset)
        resources = self.assistant.resources
        shelf = await resources.shelf(place)
        return await resources.worker.run(lambda models: _alone(models, place, prefix, suffix, text, document, shelf))


def _cerebellum(models: Models) -> Any:
    return getattr(models, "cerebellum", None)


def _alone(
    models: Models,
    place: Place,
    prefix: str,
    suffix: str,
    text: str,
    document: tuple[str, str],
    shelf: Shelf | None,
) -> LineScore:
    from npllm.models import decoding
    from npllm.models.fim import PromptParts
    from npllm.models.torch_engine import TorchEngine

    small = _cerebellum(models)
    ids = small.builder.encode_middle(text)
    prompt = small.builder.build(PromptParts(place.path, prefix, suffix, ()), reserve=len(ids), snippet_budget=0)
    known = reflexes.known(models, small, document, shelf)
    made = decoding.score(TorchEngine(small.base), prompt.ids, ids, text, threading.Event(), known=known)
    return LineScore(made.nats, made.tokens, made.utf8_bytes, 0)


def _of(offered: Offered) -> Offer:
    made: Offer = offered.item
    return made


class _Counted:
    """In the place of `uuid_utils`: ids that say the seed, the day and their number, in the order of making."""

    def __init__(self, seed: int, day: int) -> None:
        self._names = (UUID(int=day << 80 | number << 40 | seed, version=4) for number in count())

    def uuid7(self) -> UUID:
        return next(self._names)


@contextmanager
def repeatable_ids(seed: int, day: int) -> Iterator[None]:
    """Let this process make the same ids in every run of a day: a sleep draws what it replays by experiences' ids."""
    names = vars(types)
    real, names["uuid_utils"] = names["uuid_utils"], _Counted(seed, day)
    try:
        yield
    finally:
        names["uuid_utils"] = real


def day_of(id: UUID) -> int:
    """The day in which `repeatable_ids` made an id."""
    return id.int >> 80


@asynccontextmanager
async def awake(config: Config) -> AsyncIterator[Assistant]:
    """The assistant of a new working day, when it serves all that is published; closed on any way out.

    Raises:
        EvaluationError: that does not happen; with the assistant's reason.
    """
    assistant = Assistant(config)
    assistant.start()
    try:
        await _ready(assistant)
        yield assistant
    finally:
        await assistant.close()


async def _ready(assistant: Assistant) -> None:
    resources = assistant.resources
    deadline = time.monotonic() + READY_S
    while resources.worker.info is None or resources.store is None or resources.retriever is None:
        if "base" in resources.problems or time.monotonic() > deadline:
            why = " ".join(resources.problems.values()) or "neither base nor database came"
            raise EvaluationError(f"The assistant was not ready: {why}")
        await asyncio.sleep(LOOK_S)
    await resources.embed(["def warm_up():"])
    await resources._try_refresh()  # everything that sleeps publish, not adapters alone
    fingerprint = resources.worker.info.fingerprint
    published = await resources.store.adapter_versions(state=VersionState.PUBLISHED, base_fingerprint=fingerprint)
    if len(resources.adapters) < len(published):
        why = " ".join(resources.problems.values())
        raise EvaluationError(f"What was published is not served: {why}")

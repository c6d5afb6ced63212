"""What the person's code says word for word: the project's files and what they wrote lately, as tokens to look up.

Read and indexed in the background, one folder and language at a time, and looked at again while the person works there:
files by their time and size, what was written by its revision. Nothing is read before it is known what is off limits.
The document at the cursor counts as it is in the editor, around the cursor; its file on disk does not. `continuations`
does the rest. Nothing is written down.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from npllm import projects
from npllm.ignoring import of_document, of_place
from npllm.memory.places import covered, paths_of
from npllm.memory.redaction import redact
from npllm.types import Decision, NpllmError, Place, Trace

if TYPE_CHECKING:
    from npllm.models.codec import TextCodec
    from npllm.models.continuations import Index, Tokens
    from npllm.models.reading import Reader

log = logging.getLogger(__name__)

DOCUMENT_CHARS = 40_000  # of the document, before the cursor and after it
MOST_TOKENS = 2_000_000  # of a folder, the newest files first: about 7 MB of text, 30 MB of memory
READING_S = 60.0  # then what was read is all
MOST_WRITTEN = 2000  # texts
REVISED_FOR = timedelta(hours=5)  # after so long what became of a text does not change
LINES_BEFORE = 2  # of what stood above a written text, that lead to it
REST_S = 10.0  # between two looks at a folder, and at least
REST_SHARE = 20  # times as long as the last one took
SHELVES = 8  # folders and languages that are kept


class Written(Protocol):
    """The part of `Store` that is needed here."""

    async def traces(
        self, since: datetime | None, *, language: str | None = None, limit: int = 2000
    ) -> list[Trace]: ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is known in one folder for a language."""

    index: Index
    codec: TextCodec  # whose tokens they are
    without: str | None = None  # the name of a document in it that does not count


class Library:
    """One per server; used on the event loop. What is slow happens in a thread.

    Args:
        codec: the base's, with how many tokens there are; None while no base is loaded.
    """

    def __init__(self, codec: Callable[[], tuple[TextCodec, int] | None]) -> None:
        self.off_limits: Collection[str] | None = None  # not known before the database has said it
        self.ignore: Sequence[str] = ()  # patterns of files that are left alone
        self._codec = codec
        self._kept: OrderedDict[tuple[str, str], _Folder] = OrderedDict()
        self._looking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._store: Written | None = None

    def connect(self, store: Written | None) -> None:
        """From now on also what is written in a store."""
        self._store = store
        self.forget()

    def look(self, place: Place) -> asyncio.Task[None] | None:
        """See to it that what is known around a place is known, and not old; returns at once.

        Returns: the look that is going on, if there is one.
        """
        key = (place.project, place.language)
        if (task := self._looking.get(key)) is not None:
            return task
        folder, codec = self._folder(key), self._codec()
        if codec is None or self.off_limits is None or (folder.codec is codec[0] and time.monotonic() < folder.due):
            return None
        limits = tuple(self.off_limits), tuple(self.ignore)
        task = self._looking[key] = asyncio.create_task(self._look(folder, codec, self._store, *limits))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(functools.partial(self._looked, key))
        return task

    async def shelf(self, place: Place, wait_ms: float) -> Shelf | None:
        """What is known in the folder of a place; waits for the first look at it, for so long at most."""
        task, folder = self.look(place), self._folder((place.project, place.language))
        if task is not None and folder.index is None:
            await asyncio.wait([task], timeout=wait_ms / 1000)
        if folder.index is None or folder.codec is None:
            return None
        return Shelf(folder.index, folder.codec, name_of(place.project, place.path))

    def forget(self) -> None:
        """Read everything again: something was forgotten on purpose, or is off limits now."""
        self._kept.clear()
        self._looking.clear()  # a look that is going on is of no use any more

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _looked(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._looking.get(key) is task:
            del self._looking[key]

    def _folder(self, key: tuple[str, str]) -> _Folder:
        folder = self._kept.setdefault(key, _Folder(*key))
        self._kept.move_to_end(key)
        if len(self._kept) > SHELVES:
            self._kept.popitem(last=False)
        return folder

    async def _look(
        self,
        folder: _Folder,
        codec: tuple[TextCodec, int],
        store: Written | None,
        off_limits: Collection[str],
        ignore: Sequence[str],
    ) -> None:
        began = time.monotonic()
        written: list[Trace] = []
        if store is not None:
            try:
                since = folder.since - REVISED_FOR if folder.since and folder.codec is codec[0] else None
                written = await store.traces(since, language=folder.language, limit=MOST_WRITTEN)
            except NpllmError as error:
                log.warning("what was written lately could not be read: %s", error)
        try:
            folder.index = await asyncio.to_thread(folder.read, codec, written, off_limits, ignore)
            folder.codec = codec[0]
        except Exception:  # a background task: without it there is less to know, nothing else
            log.exception("%s could not be read", folder.project)
        took = time.monotonic() - began
        folder.due = time.monotonic() + max(REST_S, REST_SHARE * took)
        log.info("%s: %d tokens known after %.1f s", folder.project, len(folder.index or ()), took)


def around(text: str, offset: int) -> tuple[str, str]:
    """What is read of a document before and after a place, in characters."""
    return text[max(0, offset - DOCUMENT_CHARS) : offset], text[offset : offset + DOCUMENT_CHARS]


def name_of(project: str, path: str) -> str:
    """The name of a document in an index."""
    return f"{project}\n{path}"


@dataclass(frozen=True, slots=True)
class _Text:
    """What somebody wrote somewhere, as of a revision; None: it says nothing of how they write."""

    revision: int
    place: Place
    tokens: Tokens | None


class _Folder:
    """A folder and language: its files' tokens, what was written lately, and the index of all."""

    def __init__(self, project: str, language: str) -> None:
        self.project = project
        self.language = language
        self.codec: TextCodec | None = None
        self.index: Index | None = None
        self.due = 0.0  # monotonic
        self.since: datetime | None = None
        self._left_alone: frozenset[str] = frozenset()  # documents, by URI, of which nothing counts
        self._files: dict[str, tuple[tuple[int, int], Tokens]] = {}  # path -> (mtime_ns, size), tokens
        self._written: OrderedDict[UUID, _Text] = OrderedDict()  # the oldest first

    def read(
        self,
        codec: tuple[TextCodec, int],
        written: Sequence[Trace],
        off_limits: Collection[str],
        ignore: Sequence[str] = (),
    ) -> Index:
        """Look at the files again; blocking. The index of all that is known, the old one where nothing is new."""
        if self.codec is not codec[0]:
            self._files.clear()
            self._written.clear()
        from npllm.models.reading import Reader

        reader = Reader(codec[0])
        changed = self._read_files(reader, off_limits, ignore)
        changed |= self._read_written(reader, written, ignore)
        if changed or self.index is None or self.codec is not codec[0]:
            return self._indexed(codec[1])
        return self.index

    def _read_written(self, reader: Reader, written: Sequence[Trace], ignore: Sequence[str]) -> bool:
        """Whether anything is other than it was."""
        changed = False
        for item in reversed(written):
            kept = self._written.get(item.id)
            if kept is None or item.revision > kept.revision:
                text = _lines(item)
                tokens = reader.tokens(text) if text is not None else None
                self._written[item.id] = _Text(item.revision, item.place, tokens)
                changed = True
        while len(self._written) > MOST_WRITTEN:
            self._written.popitem(last=False)
        alone = {place.uri: place for place in (one.place for one in self._written.values())}
        left_alone = frozenset(uri for uri, place in alone.items() if of_place(place, ignore))
        changed |= left_alone != self._left_alone
        self._left_alone = left_alone
        if written:
            self.since = max(item.created_at for item in written)
        return changed

    def _read_files(self, reader: Reader, off_limits: Collection[str], ignore: Sequence[str]) -> bool:
        """Whether anything is other than it was."""
        root, endings = Path(self.project), projects.ENDINGS.get(self.language, ())
        if not self.project or not endings:
            return False
        states: dict[str, tuple[int, int]] = {}
        listing = projects.files(root, endings, lambda: None, time.monotonic() + READING_S, ignore)
        kept_on = (
            () if listing.whole else [one for one in self._files if not of_document(self.project, one, "", ignore)]
        )
        for path in {*listing.paths, *kept_on}:
            try:
                found = (root / path).stat()
            except OSError:
                continue
            states[path] = (found.st_mtime_ns, found.st_size)
        kept: dict[str, tuple[tuple[int, int], Tokens]] = {}
        changed, total, until = False, 0, time.monotonic() + READING_S
        for path in sorted(states, key=lambda path: states[path], reverse=True):  # the newest first
            if total >= MOST_TOKENS or time.monotonic() > until:
                break
            known = self._files.get(path)
            if known is None or known[0] != states[path]:
                forbidden = bool(off_limits) and covered(paths_of(self.project, path, ""), off_limits)
                text = "" if forbidden else projects.text(root, path) or ""
                known = states[path], self._read_text(reader, text)
                changed = True
            kept[path] = known
            total += len(known[1])
        changed |= kept.keys() != self._files.keys()
        self._files = kept
        return changed

    def _read_text(self, reader: Reader, text: str) -> Tokens:
        """A file's tokens, without its secrets: another file's are no suggestion. In blocks, between which other
        threads get their turn: neither a regular expression nor the tokenizer lets go of the interpreter."""
        import numpy as np

        from npllm.models.reading import blocks

        parts = [text] if "-----BEGIN" in text else blocks(text)  # a key's lines belong together
        made = [np.empty(0, dtype=np.int32)]
        for part in parts:
            made.append(reader.tokens(redact(part, self.language, second_pass=False)))
            time.sleep(0.001)
        return np.concatenate(made)

    def _indexed(self, vocabulary: int) -> Index:
        import numpy as np

        from npllm.models.continuations import Index

        gap = np.full(1, -1, dtype=np.int32)
        parts: dict[str, list[Tokens]] = {}
        for path, (_, tokens) in self._files.items():
            parts[name_of(self.project, path)] = [tokens]
        for one in self._written.values():
            if one.tokens is not None and one.place.uri not in self._left_alone:
                parts.setdefault(name_of(one.place.project, one.place.path), []).extend([gap, one.tokens])
        return Index({name: np.concatenate(each) for name, each in parts.items()}, vocabulary)


def _lines(item: Trace) -> str | None:
    """A written text with what led to it; None where it says nothing of how the person writes."""
    final = item.final_text.replace("\r\n", "\n").rstrip()
    if not final.strip() or (item.decision is Decision.AVOID and final == item.suggested.rstrip()):
        return None
    lines = item.prefix.replace("\r\n", "\n").splitlines(keepends=True)
    return "".join(lines[-LINES_BEFORE:]) + final + "\n"

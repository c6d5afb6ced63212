"""Working memory: what is on the desk besides the document at the cursor, as pieces of code for the prompt.

Where the other open documents of the project were edited last, as the lines stand now; what is imported from them here,
by the first lines of its definition; where they were looked at. The other documents do not change while the person
types in this one, and a name that is used here for the first time comes after all that stood there before, so the
prompt's beginning stays the same, and with it the key-value cache. What is left alone, or off limits, is left out, and
secrets are replaced. Nothing is written down.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from npllm.config import MemoryConfig
from npllm.ignoring import of_place
from npllm.memory.index.chunks import chunks
from npllm.memory.index.grammars import family
from npllm.memory.places import off_limits
from npllm.memory.redaction import AROUND, redact_parts
from npllm.types import Place, Snippet

log = logging.getLogger(__name__)

DOCUMENTS = 32  # that are kept
MARKS = 8  # places that are kept of each
NEAR = 400  # characters; so near a mark, it is the same place
SPAN = 600  # characters; a longer stretch of typing is several places
LARGE = 4000  # characters; an edit of so many is a branch switch or a formatter, not the person
EDITED = 3  # pieces of each kind, at most
IMPORTED = 4
VISITED = 1
ABOVE, BELOW = 3, 2  # lines around a place
HEAD = 6  # lines of a definition
LATELY = 30  # lines before the cursor in which an imported name is looked for
MOST_PARSED = 200_000  # characters of a document whose definitions are known
_IMPORT = re.compile(r"^[ \t]*(?:from|import|use|export)\b[^\n({]*(?:[({][^)}]*[)}])?[^\n]*", re.MULTILINE)
_NAME = re.compile(r"[^\W\d]\w+")
_parsing = threading.Lock()  # a parser is for one thread at a time


@dataclass(slots=True)
class _Mark:
    """A place of a document, from where it was first touched to where it was last, and when that was."""

    begin: int
    end: int
    at: int
    edited: bool


@dataclass(slots=True)
class _Page:
    """One open document."""

    place: Place
    text: str
    marks: list[_Mark] = field(default_factory=list)
    used: list[str] = field(default_factory=list)  # imported names that the person used here, the newest first
    defined: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)  # by text: each name's first lines

    def copy(self) -> _Page:
        """As it is now, for a thread; what is found out about its text is shared."""
        return _Page(self.place, self.text, [replace(mark) for mark in self.marks], defined=self.defined)


class Working:
    """One per server; used on the event loop. What is slow happens in a thread.

    Args:
        on: else nothing is noted.
    """

    def __init__(self, on: bool) -> None:
        self._on = on
        self._pages: OrderedDict[str, _Page] = OrderedDict()
        self._clock = count()
        self._redacted: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def switch(self, on: bool) -> None:
        """Begin to note what is on the desk, or forget it."""
        self._on = on
        if not on:
            self.forget()

    def opened(self, place: Place, text: str) -> None:
        """A document was opened, or opened again."""
        if not self._on:
            return
        page = self._pages.get(place.uri)
        if page is None or page.text != text:
            self._pages[place.uri] = _Page(place, text)
        self._page(place, text)

    def changed(self, place: Place, before: str, start: int, end: int, new_text: str) -> None:
        """`before[start:end]` became `new_text`."""
        if not self._on:
            return
        page = self._page(place, before[:start] + new_text + before[end:])
        grown = len(new_text) - (end - start)
        kept = [mark for mark in page.marks if not (start < end and start <= mark.begin and mark.end <= end)]
        for mark in kept:
            mark.begin += grown if mark.begin >= end else min(0, start - mark.begin)
            mark.end = max(mark.begin, mark.end + grown if mark.end >= end else min(mark.end, start))
        page.marks = kept
        if max(len(new_text), end - start) < LARGE:
            self._mark(page, start, start + len(new_text), edited=True)

    def visited(self, place: Place, text: str) -> None:
        """The person works at a place."""
        if not self._on:
            return
        page = self._page(place, text)
        if not any(mark.begin - NEAR <= place.offset <= mark.end + NEAR for mark in page.marks):
            self._mark(page, place.offset, place.offset, edited=False)

    def closed(self, uri: str) -> None:
        """A document was closed: what its file says from now on is not known here."""
        self._pages.pop(uri, None)

    def forget(self) -> None:
        """Something was forgotten on purpose: begin with an empty desk."""
        self._pages.clear()
        self._redacted = OrderedDict()  # a new one: who works in a thread writes to the old

    async def snippets(
        self, place: Place, text: str, config: MemoryConfig, limits: Collection[str] | None
    ) -> tuple[Snippet, ...]:
        """What is on the desk for a place, what matters most first; nothing where that takes longer than `wait_ms`.

        Args:
            limits: what is off limits; None while that is not known: then nothing is said.
        """
        if not (self._on and config.enabled) or limits is None:
            return ()
        here = self._page(place, text)
        languages = family(place.language)
        others = [
            page.copy()
            for page in reversed(self._pages.values())
            if page is not here and page.place.project == place.project and page.place.language in languages
        ]
        if not others:
            return ()
        _use(here, text, text[: place.offset].splitlines()[-LATELY:])
        asked = others, tuple(here.used), config.ignore, tuple(limits), self._redacted
        job = asyncio.create_task(asyncio.to_thread(_pieces, *asked))
        done, _ = await asyncio.wait([job], timeout=config.wait_ms / 1000)
        if not done:  # what it has done so far serves the next request
            return ()
        if (error := job.exception()) is not None:
            log.error("what is on the desk beside %s cannot be said", place.path, exc_info=error)
            return ()
        return job.result()

    def _page(self, place: Place, text: str) -> _Page:
        page = self._pages.setdefault(place.uri, _Page(place, text))
        page.place, page.text = place, text
        self._pages.move_to_end(place.uri)
        while len(self._pages) > DOCUMENTS:
            self._pages.popitem(last=False)
        return page

    def _mark(self, page: _Page, begin: int, end: int, *, edited: bool) -> None:
        for mark in page.marks:
            low, high = min(mark.begin, begin), max(mark.end, end)
            if mark.begin - NEAR <= begin <= mark.end + NEAR and high - low <= SPAN:
                mark.begin, mark.end, mark.at, mark.edited = low, high, next(self._clock), mark.edited or edited
                return
        page.marks.append(_Mark(begin, end, next(self._clock), edited))
        page.marks.sort(key=lambda mark: -mark.at)
        del page.marks[MARKS:]


def _use(page: _Page, text: str, lately: Sequence[str]) -> None:
    """Note which imported names the lines just written use; one that is known keeps its rank."""
    imports = "\n".join(found.group() for found in _IMPORT.finditer(text))
    imported = set(_NAME.findall(imports))
    written = [name for line in lately if line.strip() not in imports for name in _NAME.findall(line)]
    page.used = [name for name in page.used if name in imported]
    for name in written:
        if name in imported and name not in page.used:
            page.used.insert(0, name)
    del page.used[4 * IMPORTED :]


def _pieces(
    pages: Sequence[_Page],
    names: Sequence[str],
    ignore: Sequence[str],
    limits: Collection[str],
    redacted: OrderedDict[tuple[str, str, str], str],
) -> tuple[Snippet, ...]:
    """The pieces of some documents, without those to be left alone; none of them says only what others say."""
    chosen: list[Snippet] = []
    said: set[str] = set()
    with _parsing:
        pages = [one for one in pages if not of_place(one.place, ignore) and not off_limits(one.place, limits)]
        for page, begin, end in _regions(pages, names):
            piece = _redacted(page.text, begin, end, page.place.language, redacted)
            lines = {line.strip() for line in piece.splitlines()} - {""}
            if not lines <= said:
                said |= lines
                chosen.append(Snippet(page.place.path, piece, 0.0, project=page.place.project, uri=page.place.uri))
    return tuple(chosen)


def _regions(pages: Sequence[_Page], names: Sequence[str]) -> Iterator[tuple[_Page, int, int]]:
    """Documents, with the bounds of a piece in each: what is imported, what was edited, what was looked at."""
    known = [(page, _definitions(page)) for page in pages] if names else []
    found = [(page, *where[name]) for name in names for page, where in known if name in where]
    yield from found[:IMPORTED]
    marks = sorted(((mark, page) for page in pages for mark in page.marks), key=lambda one: -one[0].at)
    for edited, most in ((True, EDITED), (False, VISITED)):
        for mark, page in [one for one in marks if one[0].edited is edited][:most]:
            yield page, *_lines_around(page.text, mark.begin, mark.end)


def _definitions(page: _Page) -> dict[str, tuple[int, int]]:
    """Where the first lines of each definition of a document stand."""
    text = page.text
    if (done := page.defined.get(text)) is None:
        found: dict[str, tuple[int, int]] = {}
        if len(text) <= MOST_PARSED:
            starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
            for one in chunks(text, page.place.language):
                if one.symbol and "." not in one.symbol:
                    last = one.line + min(HEAD, one.text.count("\n") + 1)
                    found.setdefault(one.symbol, (starts[one.line], starts[min(last, len(starts) - 1)]))
        page.defined.clear()
        done = page.defined[text] = found
    return done


def _lines_around(text: str, begin: int, end: int) -> tuple[int, int]:
    """Bounds of whole lines, some more on both sides."""
    low, high = text.rfind("\n", 0, begin) + 1, end
    for _ in range(ABOVE):
        low = text.rfind("\n", 0, max(low - 1, 0)) + 1
    for _ in range(BELOW + 1):
        high = (text.find("\n", high) + 1) or len(text)
    return low, high


def _redacted(text: str, begin: int, end: int, language: str, known: OrderedDict[tuple[str, str, str], str]) -> str:
    """A piece of a text with its secrets replaced, those that begin or end outside of it, too."""
    above = text.find("\n", max(0, begin - AROUND), begin) + 1 or begin if begin > AROUND else 0
    below = text.rfind("\n", end, end + AROUND) + 1 or end if end + AROUND < len(text) else len(text)
    key = text[above:begin], text[begin:end], text[end:below]
    if (found := known.get(key)) is None:
        found = known[key] = redact_parts(key, language)[1].replace("\r\n", "\n")
        while len(known) > 4 * (EDITED + IMPORTED + VISITED):
            known.popitem(last=False)
    return found

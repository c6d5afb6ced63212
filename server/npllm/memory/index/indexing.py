"""One project's index kept like its files: what is new or other is read, cut and written, what is gone is dropped.

A look lists the files (those that git tracks, or neither tracks nor ignores; never what is to be left alone or off
limits), compares times and sizes with what PostgreSQL knows, and reads what differs, newest first, in batches. So it
does not matter how much changed meanwhile, or how often. Runs in the indexing process (`child`), blocking parts in a
thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from npllm import projects
from npllm.memory.index import terms
from npllm.memory.index.chunks import chunks
from npllm.memory.index.records import ChunkRecords, File, Piece, State
from npllm.memory.places import covered, paths_of
from npllm.memory.redaction import redact

log = logging.getLogger(__name__)

MADE_BY = 1  # this way of reading, redacting and cutting; with another number everything is read again
MOST_FILES = 30_000  # of a project, the newest
LISTING_S = 60.0
FULL = 0.98  # of `memory.keep_chunks`; the rest is room for a batch, and for files that grow
BATCH = 50  # files read and written at a time
ENDINGS = tuple(sorted({ending for endings in projects.ENDINGS.values() for ending in endings}))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a project came to: its files, how many of them were read, and how many are gone."""

    files: int
    read: int
    gone: int
    folders: frozenset[str]  # those that hold a file, relative to the project


@dataclass(frozen=True, slots=True)
class _Difference:
    states: Mapping[str, State]  # of all files that were seen
    unread: tuple[str, ...]  # the newest first
    gone: tuple[str, ...]


async def look(
    project: str,
    records: ChunkRecords,
    ignore: Sequence[str],
    off_limits: Collection[str],
    wanted: Callable[[], bool] = lambda: True,
    *,
    keep: int = 0,
) -> Looked:
    """Bring a project's index up to date.

    Args:
        ignore: `memory.ignore`.
        off_limits: files and folders of which nothing is written down.
        wanted: asked between batches; False ends the look.
        keep: `memory.keep_chunks`: where the projects that are open come near it, no file is read that was not known,
            since a sleep would delete it. 0 = all are read.

    Raises:
        StoreError: the database is away.
    """
    known = await records.known(project)
    found = await asyncio.to_thread(_compare, project, known, ignore, off_limits)
    if found.gone:
        await records.write(project, (), found.gone)
    read, full = 0, False
    unread = sorted(found.unread, key=lambda path: path not in known)  # what is known but other goes first
    for begin in range(0, len(unread), BATCH):
        if not wanted():
            break
        batch = unread[begin : begin + BATCH]
        if keep and batch[-1] not in known:
            full = full or await records.kept(project) >= keep * FULL
            batch = [path for path in batch if path in known] if full else batch
        if not batch:
            break
        files = await asyncio.to_thread(_read_all, Path(project), batch, found.states)
        await records.write(project, files)
        read += len(batch)
    there = {*found.states, *known} - {*found.gone}
    folders = frozenset(path.rpartition("/")[0] for path in there)
    return Looked(len(found.states), read, len(found.gone), folders)


def _compare(
    project: str, known: Mapping[str, State], ignore: Sequence[str], off_limits: Collection[str]
) -> _Difference:
    root = Path(project)
    states: dict[str, State] = {}
    unsure: set[str] = set()
    listing = projects.files(root, ENDINGS, lambda: None, time.monotonic() + LISTING_S, ignore, untracked=True)
    for path in listing.paths:
        if off_limits and covered(paths_of(project, path, ""), off_limits):
            continue
        try:
            found = (root / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unsure.add(path)
            continue
        states[path] = State(found.st_mtime_ns, found.st_size, MADE_BY)
    newest = sorted(states, key=lambda path: -states[path].mtime_ns)[:MOST_FILES]
    states = {path: states[path] for path in newest}
    unread = tuple(path for path in newest if known.get(path) != states[path])
    gone = known.keys() - states.keys() - unsure if listing.whole else ()
    return _Difference(states, unread, tuple(gone))


def _read_all(root: Path, paths: Sequence[str], states: Mapping[str, State]) -> list[File]:
    return [_read_safely(root, path, states[path]) for path in paths]


def _read_safely(root: Path, path: str, state: State) -> File:
    """The same as `read`; a file that breaks a parser is kept without chunks, and stops no other."""
    try:
        return read(root, path, state)
    except Exception:
        log.exception("%s of %s cannot be cut, so nothing of it is found", path, root)
        return File(path, projects.language(path) or "", state, ())


def read(root: Path, path: str, state: State) -> File:
    """A file cut into chunks, without its secrets; without chunks where it is no text of somebody's."""
    language = projects.language(path) or ""
    text = projects.text(root, path)
    found = chunks(redact(text, language), language) if text else []
    pieces = [
        Piece(hashlib.blake2b(one.text.encode(), digest_size=16).digest(), one.line, one.symbol, one.text, packed)
        for one in found
        if (packed := terms.packed(one.text))
    ]
    return File(path, language, state, tuple(pieces))

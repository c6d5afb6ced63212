"""What files still hold of what was forgotten: journals, weights, checkpoints, reports; and the database's own pages.

The database says what is forgotten (`forgetting`), so all of this may be killed at any moment and runs again to its
end: at the next forgetting, or when the next sleep begins. Call with the trainer's lock held.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from uuid import UUID

import asyncpg

from npllm.config import Config
from npllm.memory import codec, journal
from npllm.memory.places import Selector, texts
from npllm.memory.redaction import Redactor
from npllm.memory.store import Store
from npllm.types import Experience, JournalRecord, Outcome, StoreError, Suggestion

log = logging.getLogger(__name__)

Around = Callable[[Collection[UUID]], Awaitable[Sequence[JournalRecord]]]

PAGE = 500  # lines of a journal that are looked through at once
_HEX_ID = re.compile(rb"[0-9a-f]{32}")


async def finish(store: Store, config: Config) -> tuple[str, ...]:
    """Remove what is left of all that was forgotten; what could not be done, in a sentence each.

    Raises:
        StoreError: the database is away, or a file cannot be removed; it is tried again the next time.
    """
    if not await store.forgetting.unfinished():
        return ()
    try:
        for folder in await store.forgetting.folders():
            await asyncio.to_thread(_remove, config.home / folder)
        await asyncio.to_thread(_remove, config.checkpoints_dir)
        for id in await store.forgetting.emptied_reports():
            for path in (config.home / "reports").glob(f"*{id}*"):
                await asyncio.to_thread(_remove, path)
        await _scrub_journals(store, config.journal_dir)
    except OSError as error:
        raise StoreError(
            f"Not all files could be removed: {error}. Mend that and say it again, or let it sleep."
        ) from error
    try:
        await store.forgetting.vacuum()
        problems: tuple[str, ...] = ()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        problems = (
            f"The rows are deleted, but the database has not given their pages back yet ({error or 'it took long'}); "
            "it does so by itself in time.",
        )
    await store.forgetting.finished()
    return problems


def in_journals(folder: Path, selector: Selector) -> frozenset[UUID]:
    """Suggestions that are meant and stand in a journal, carried or not. Reads other processes' files, too."""
    found: set[UUID] = set()
    for path in _journals(folder):
        for line in _read(path):
            try:
                record = codec.decode(line)
            except ValueError:
                if any(needle in line for needle in _needles(selector)):
                    found |= _ids(line)
                continue
            if selector.takes(record):
                found.add(record.id if isinstance(record, Suggestion | Experience) else record.suggestion_id)
    return frozenset(found)


async def _scrub_journals(store: Store, folder: Path) -> None:
    """Take forgotten records out of the files of dead processes; a living server sees to its own."""
    for path in await asyncio.to_thread(_journals, folder):
        if path.suffix == ".corrupt":
            await _scrub(store, path)
            continue
        with journal.claimed(path) as ours:
            if ours:
                await _scrub(store, path)


async def _scrub(store: Store, path: Path) -> None:
    lines = await asyncio.to_thread(_read, path)
    gone = await store.forgetting.forgotten_among({id for line in lines for id in _about(line)})
    kept = [line for line in lines if not gone.intersection(_about(line))]
    if len(kept) < len(lines):
        await asyncio.to_thread(_replace, path, kept)


async def redact_journals(folder: Path, around: Around) -> int:
    """Take secrets out of what dead processes left, as earlier versions wrote it; how many records that were.

    Args:
        around: gives those of these suggestions that the database has: outcomes may be about them.
    """
    return sum([await _redact(path, around) for path in await asyncio.to_thread(_journals, folder)])


async def _redact(path: Path, around: Around) -> int:
    with journal.claimed(path) as ours:
        if not ours:
            return 0
        redactor, lines, changed = Redactor(), [], 0
        all_lines = await asyncio.to_thread(_read, path)
        for start in range(0, len(all_lines), PAGE):
            page = all_lines[start : start + PAGE]
            here, about = _suggestions(page)
            for suggestion in await around({id for id in about - here if not redactor.knows(id)}):
                redactor.record(suggestion)
            written, count = await asyncio.to_thread(_without, page, redactor)
            lines += written
            changed += count
        if changed:
            await asyncio.to_thread(_replace, path, lines)
        return changed


def _suggestions(lines: Iterable[bytes]) -> tuple[set[UUID], set[UUID]]:
    """Those that stand there, and those that outcomes there are about."""
    here: set[UUID] = set()
    about: set[UUID] = set()
    for line in lines:
        with contextlib.suppress(ValueError):
            match codec.decode(line):
                case Suggestion(id=id):
                    here.add(id)
                case Outcome(suggestion_id=id):
                    about.add(id)
    return here, about


def _without(page: Iterable[bytes], redactor: Redactor) -> tuple[list[bytes], int]:
    """Lines without secrets, and how many had one."""
    lines, changed = [], 0
    for line in page:
        try:
            record = codec.decode(line)
        except ValueError:
            lines.append(line)
            continue
        without = redactor.record(record)
        changed += texts(without) != texts(record)
        lines.append(line if texts(without) == texts(record) else codec.encode(without))
    return lines, changed


def _replace(path: Path, lines: Collection[bytes]) -> None:
    """From its beginning: carrying a record twice is carrying it once, passing one over is losing it."""
    path.with_suffix(".position").unlink(missing_ok=True)
    new = path.with_suffix(path.suffix + ".new")
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.writelines(lines)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)


def _journals(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.jsonl"), *folder.glob("*.corrupt")])


def _read(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:  # carried meanwhile
        return []


def _about(line: bytes) -> frozenset[UUID]:
    """The suggestion that a line is about; of a damaged line every id that it names."""
    try:
        record = codec.decode(line)
    except ValueError:
        return _ids(line)
    return frozenset([record.id if isinstance(record, Suggestion | Experience) else record.suggestion_id])


def _ids(line: bytes) -> frozenset[UUID]:
    return frozenset(UUID(hex=match.decode()) for match in _HEX_ID.findall(line))


def _needles(selector: Selector) -> list[bytes]:
    given = [selector.text, selector.path, selector.project]
    return [json.dumps(text)[1:-1].encode("ascii") for text in given if text]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""`reports/` in the data folder: one page (HTML), one text and one JSON a sleep, for the user alone, the last 30.

The JSON is what the others are made of; a report is whole, or it is not there. Knows nothing of how one came about.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from uuid import UUID

from npllm.sleep.files import sync_folder
from npllm.sleep.page import page
from npllm.sleep.record import Details, File, Record

log = logging.getLogger(__name__)

KEPT = 30
FOLDER = "reports"
_KINDS: dict[str, Callable[[Record], str]] = {
    ".html": page,
    ".txt": lambda record: record.text,
    ".json": lambda record: json.dumps(record.to_json()),  # the last: what it names is there
}


def save(home: Path, record: Record) -> Path:
    """Write a sleep's report, in place of an earlier one of the same sleep, and let the oldest go; the page's path.

    Raises:
        OSError: the disk refuses.
    """
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stem = folder / f"{record.started_at:%Y-%m-%d}-{record.id}"
    for kind, made in _KINDS.items():
        _write(_with(stem, kind), made(record))
    sync_folder(folder)
    for old in _stems(home)[KEPT:]:
        _remove(old)
    return _with(stem, ".html")


def newest(home: Path) -> Record | None:
    """The last sleep's report that can be read; None: there is none."""
    return next((record for stem in _stems(home) if (record := _read(stem)) is not None), None)


def of_run(home: Path, run: UUID) -> Record | None:
    """The report that this run of the sleeping process wrote; None: it wrote none."""
    return next((found for stem in _stems(home) if (found := _read(stem)) is not None and found.run == run), None)


def find(home: Path, id: str) -> Record | None:
    """The report of the sleep whose id begins or ends so; None: there is none, or it cannot be told which."""
    found = [stem for stem in _stems(home) if _id_of(stem).startswith(id) or _id_of(stem).endswith(id)]
    return _read(found[0]) if len(found) == 1 else None


def page_of(home: Path, record: Record) -> Path:
    """Where a record's page lies."""
    return _with(home / FOLDER / f"{record.started_at:%Y-%m-%d}-{record.id}", ".html")


def ids(home: Path) -> list[str]:
    """The sleeps that there are reports of, newest first."""
    return [_id_of(stem) for stem in _stems(home)]


def purge(home: Path, files: Collection[File] = (), ids: Collection[str] = ()) -> int:
    """Take out of all reports, kept ones and those of a sleep that still goes on, what is to be forgotten.

    Args:
        files: (project, path) pairs: nothing of them is quoted or named any more.
        ids: experiences of which nothing is quoted any more.

    Returns:
        How many reports were written anew. One that cannot be read is removed: what it quotes cannot be told.

    Raises:
        OSError: the disk refuses.
    """
    changed = 0
    for stem in _stems(home):
        record = _read(stem)
        if record is None:
            _remove(stem)
            continue
        kept = tuple(one.without(files, ids) for one in record.details)
        if kept != record.details:
            save(home, replace(record, details=kept))
            changed += 1
    for file in (home / "checkpoints").glob("*/*/details.json"):
        try:
            details = Details.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError):
            file.unlink()
            continue
        if (left := details.without(files, ids)) != details:
            _write(file, json.dumps(asdict(left)))
            changed += 1
    return changed


def _stems(home: Path) -> list[Path]:
    """The reports there are, newest first: ids are UUIDv7, which sort by time."""
    return sorted((file.with_suffix("") for file in (home / FOLDER).glob("*.json")), key=_id_of, reverse=True)


def _id_of(stem: Path) -> str:
    return stem.name[len("2026-01-01-") :]


def _with(stem: Path, kind: str) -> Path:
    return stem.with_name(stem.name + kind)


def _read(stem: Path) -> Record | None:
    try:
        return Record.from_json(json.loads(_with(stem, ".json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("the report %s cannot be read: %s", stem.name, error)
        return None


def _remove(stem: Path) -> None:
    for kind in reversed(_KINDS):
        _with(stem, kind).unlink(missing_ok=True)


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    with open(temporary, "w", encoding="utf-8", opener=_private) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

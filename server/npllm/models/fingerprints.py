"""Fingerprints: SHA-256 of a base's weights, and a book of those of large files.

Hashes of files above 256 MB are remembered by path, size and time of change in `fingerprints.json`; what is smaller
is hashed each time, unless the caller wants it remembered. Knows files, and nothing of models.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from npllm.config import default_home
from npllm.models.locate import weight_files
from npllm.types import ModelError

_CACHED_ABOVE = 1 << 28  # bytes; hashing less than this takes a moment only


def fingerprint(folder: Path, cache: Path | None = None) -> str:
    """Hex sha256 over the contents of a folder's weight files (in the order of their names).

    Args:
        cache: folder of the book; by default one in the data folder.

    Raises:
        ModelError: no weights.
        OSError: a file cannot be read.
    """
    return _joined([file_hash(file, cache) for file in weight_files(folder)])


def known_fingerprint(folder: Path, cache: Path | None = None) -> str | None:
    """The fingerprint where it costs a moment only: the files are small, or remembered. None otherwise.

    Raises:
        ModelError: no weights.
        OSError: a file cannot be read.
    """
    hashes = []
    for file in weight_files(folder):
        stat = file.stat()
        known = file_hash(file, cache) if stat.st_size < _CACHED_ABOVE else _book(cache).get(_key(file, stat))
        if known is None:
            return None
        hashes.append(known)
    return _joined(hashes)


def file_hash(file: Path, cache: Path | None = None, *, remembered: bool = False) -> str:
    """Hex sha256 of a file's content, from the book where the file is large (or `remembered`) and was seen before."""
    stat = file.stat()
    if not remembered and stat.st_size < _CACHED_ABOVE:
        return _hash_content(file)
    found = _book(cache).get(_key(file, stat))
    if found is None:
        found = _hash_content(file)
        remember(file, stat, found, cache)
    return found


def remember(file: Path, stat: os.stat_result, found: str, cache: Path | None = None) -> None:
    """Put a file's hash into the book; a book that cannot be written is no error.

    Args:
        stat: of the file before it was hashed: what is written over it meanwhile is another file.
    """
    book = _file(cache)
    temporary = book.with_suffix(f".{found[:12]}-{os.getpid()}.tmp")
    try:
        kept = {key: value for key, value in _book(cache).items() if not _gone(Path(key.rsplit("|", 2)[0]))}
        book.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(temporary, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            json.dump({**kept, _key(file, stat): found}, stream)
        temporary.replace(book)
    except OSError:  # read-only, full: then it is hashed again
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def stamp(folder: Path) -> tuple[str, ...] | None:
    """Names, sizes and times of change of what a base is made of; None where it is not whole.

    The same before and after something was read: it was read from the same files.
    """
    try:
        files = (*weight_files(folder), folder / "config.json")
        return tuple(_key(file, file.stat()) for file in files)
    except (ModelError, OSError):
        return None


def _gone(file: Path) -> bool:
    try:
        return not file.exists()
    except (OSError, ValueError):  # not to be seen now, perhaps later
        return False


def _joined(hashes: list[str]) -> str:
    total = hashlib.sha256()
    for found in hashes:
        total.update(bytes.fromhex(found))
    return total.hexdigest()


def _file(cache: Path | None) -> Path:
    return (cache or default_home() / "cache") / "fingerprints.json"


def _key(file: Path, stat: os.stat_result) -> str:
    return f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _book(cache: Path | None) -> dict[str, str]:
    try:
        known = json.loads(_file(cache).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # not there yet, or torn: it is only a saving of time
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}


def _hash_content(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Packed rows of token ids on disk, one file for each row length.

Rows travel as `rows-LENGTH.npy.xz`: 16-bit ids, compressed with a model of two-byte items. The first reader unpacks
them beside it into `rows-LENGTH.npy`, which every training process then maps read-only and so shares.
"""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint16]

#: LZMA with positions and literals told apart by parity, since low and high bytes of an id have little in common.
_FILTERS: list[dict[str, int]] = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": 1, "pb": 1}]


def rows_path(folder: Path, length: int) -> Path:
    """Where the rows of one length lie, compressed."""
    return folder / f"rows-{length}.npy.xz"


def save_rows(folder: Path, rows: Rows) -> None:
    """Write rows of shape (rows, length), compressed, atomically; an unpacked older copy goes."""
    folder.mkdir(parents=True, exist_ok=True)
    target = rows_path(folder, rows.shape[1])
    temporary = target.with_suffix(".tmp")
    with lzma.open(temporary, "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as out:
        np.save(out, rows)
    _unpacked(target).unlink(missing_ok=True)
    temporary.replace(target)


def load_rows(folder: Path, length: int) -> Rows:
    """The rows of one length, mapped read-only, of shape (rows, length). Raises FileNotFoundError before `pack` ran."""
    source = rows_path(folder, length)
    target = _unpacked(source)
    if not target.exists() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
        temporary = target.with_suffix(f".{os.getpid()}.tmp")  # readers that race write the same bytes
        with lzma.open(source) as packed, temporary.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        temporary.replace(target)
    rows: Rows = np.load(target, mmap_mode="r")
    return rows


def _unpacked(source: Path) -> Path:
    return source.with_suffix("")

"""Log files of child processes: appended to, readable by the person alone, bounded."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

MOST_BYTES = 2_000_000


class LogFile:
    """`logs/NAME.log` of a data folder, opened to append; its predecessor is kept as NAME.log.1. None where it
    cannot be written."""

    def __init__(self, home: Path, name: str) -> None:
        self._file = home / "logs" / f"{name}.log"
        self._stream: BinaryIO | None = None

    def __enter__(self) -> BinaryIO | None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._file.exists() and self._file.stat().st_size > MOST_BYTES:
                self._file.replace(self._file.with_suffix(".log.1"))
            self._stream = open(self._file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file, error)
        return self._stream

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

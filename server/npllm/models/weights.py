"""One fp32 copy of a base's weights, which every process on this machine maps and so shares.

A base is shipped in 16 bit and served on a CPU in fp32, so each process would hold a converted copy of its own. The
first one writes it down; all map that file. The mapping is private: a write to it would be the writer's alone, and
nothing here writes. A file is written under a temporary name, flushed, and renamed; its name carries the SHA-256 of its
content (looked at when it was written, and again whenever its size or time of change is another), so what is damaged
is known, thrown away and made again. It is only a saving of memory and time: whatever goes
wrong (no room, read-only), the base is served as it was loaded.

Knows tensors by name and the file they are in; not what a model is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from npllm.models.causes import refusal
from npllm.models.fingerprints import file_hash, remember
from npllm.models.manifest import sha256_file, sync

log = logging.getLogger(__name__)

ROOM = 1 << 30  # bytes that are left free on the disk
KEPT = 2  # copies: the one in use, and the one that was in use before it
KEPT_S = 30 * 86400.0  # an unused one is kept no longer
_ABANDONED_S = 3600.0  # temporary files older than this are nobody's


@dataclass(frozen=True, slots=True)
class Key:
    """Which copy: two of the same key hold the same tensors.

    Attributes:
        fingerprint: of the base's weights.
        rest: hex, of everything else that the tensors and their names depend on.
    """

    fingerprint: str
    rest: str

    @property
    def stem(self) -> str:
        return f"{self.fingerprint[:32]}-{self.rest[:8]}"


class SharedWeights:
    """The copies in one folder.

    Args:
        cache: the data folder's cache; the copies are in `weights` below it.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.folder = cache / "weights"

    def find(self, key: Key) -> Path | None:
        """The whole and undamaged copy of a base; a damaged one is removed."""
        try:
            for file in sorted(self.folder.glob(f"{key.stem}-*.safetensors")):
                if file_hash(file, self._cache, remembered=True) == file.stem.rpartition("-")[2]:
                    return file
                log.warning("%s is damaged; it is made again", file)
                file.unlink()
        except OSError as error:
            log.warning("the shared copies of weights in %s cannot be used: %s", self.folder, error)
        return None

    def map(self, file: Path) -> dict[str, torch.Tensor] | None:
        """The tensors of a copy, mapped (copy on write) and not read; None if that fails, and the file gone if it is
        damaged."""
        try:
            tensors = safetensors.torch.load_file(file)
            stat = file.stat()
            with contextlib.suppress(OSError):  # when it was last used; the time of change stays
                os.utime(file, ns=(time.time_ns(), stat.st_mtime_ns))
        except (OSError, MemoryError, RuntimeError, safetensors.SafetensorError) as error:
            log.warning("%s cannot be mapped: %s", file, error)
            if isinstance(error, safetensors.SafetensorError) and refusal(error) is None:
                self.discard(file)  # not for want of memory or open files, which passes
            return None
        return tensors

    def write(self, key: Key, tensors: Mapping[str, torch.Tensor]) -> Path | None:
        """Write a copy and return its file; None where there is no room or the folder cannot be written."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        temporary = self.folder / f".{key.stem}-{os.getpid()}-{time.time_ns()}.tmp"
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True, mode=0o700)
            if shutil.disk_usage(self.folder).free < size + ROOM:
                log.warning("no shared copy of the weights: less than %s bytes would be left free", ROOM)
                return None
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
            sync(temporary)
            stat = temporary.stat()
            digest = sha256_file(temporary)
            file = self.folder / f"{key.stem}-{digest}.safetensors"
            if not file.exists():  # another process may have been quicker: then its file is the one to share
                temporary.replace(file)
                sync(self.folder)
                remember(file, stat, digest, self._cache)
            return file
        except (OSError, ValueError, MemoryError, RuntimeError, safetensors.SafetensorError) as error:
            log.warning("no shared copy of the weights in %s: %s", self.folder, error)
            return None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def prune(self, used: Path) -> None:
        """Remove what is not `used` but the one used last before it, and that too after a month.

        A process that has mapped what is removed keeps it until it ends (on Windows it cannot be removed until then).
        """
        now = time.time()
        try:
            others = sorted(
                (file for file in self.folder.glob("*.safetensors") if file != used),
                key=_used,
                reverse=True,
            )
            old = [file for place, file in enumerate(others) if place >= KEPT - 1 or now - _used(file) > KEPT_S]
            old += [file for file in self.folder.glob(".*.tmp") if now - file.stat().st_mtime > _ABANDONED_S]
        except OSError:  # another process prunes at the same time
            return
        for file in old:
            self.discard(file)

    def discard(self, file: Path) -> None:
        """Remove a copy, if it can be removed."""
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", file, error)


def _used(file: Path) -> float:
    stat = file.stat()
    return max(stat.st_atime, stat.st_mtime)

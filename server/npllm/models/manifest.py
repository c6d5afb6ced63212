"""What is written beside an adapter: where it comes from and what it fits; and putting a folder in place at
once.

An adapter's folder is a plain PEFT one (`adapter_config.json`, `adapter_model.safetensors`) with a
`manifest.json`. It is written under a temporary name and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from safetensors import SafetensorError

from npllm.types import ModelError

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
TEMPORARY = ".tmp-"  # how unfinished folders begin; the next sleep removes what it finds
NOT_LEARNED = (
    "held_out",
    "judged_again",
    "untrained",
)  # of a manifest's data: what it was judged by, or had no time for
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """Lineage of one adapter version."""

    version_id: UUID
    context: str
    base_fingerprint: str
    parent: UUID | None
    consolidation_id: UUID
    sha256: str  # of adapter_model.safetensors
    created_at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)  # what it was trained on, e.g. counts, first and last id
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the gate


def learned_ids(data: Mapping[str, Any]) -> frozenset[UUID]:
    """Every id in a manifest's `data`, under whatever keys but `NOT_LEARNED`: what had a part in its training."""
    return frozenset(_ids({key: value for key, value in data.items() if key not in NOT_LEARNED}))


def _ids(value: Any) -> Iterator[UUID]:
    """Every id in plain JSON values."""
    if isinstance(value, str):
        if len(value) in (32, 36):
            try:
                yield UUID(value)
            except ValueError:
                return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _ids(item)
    elif isinstance(value, Collection):
        for item in value:
            yield from _ids(item)


def sha256_file(file: Path) -> str:
    """Hex sha256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into an adapter's folder."""
    document = {
        "format": _FORMAT,
        "version_id": str(manifest.version_id),
        "context": manifest.context,
        "base_fingerprint": manifest.base_fingerprint,
        "parent": str(manifest.parent) if manifest.parent else None,
        "consolidation_id": str(manifest.consolidation_id),
        "sha256": manifest.sha256,
        "created_at": manifest.created_at.isoformat(),
        "data": dict(manifest.data),
        "metrics": dict(manifest.metrics),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an adapter's folder.

    Raises:
        ModelError: it is not there, or is not one that this version understands.
    """
    file = folder / MANIFEST
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise ModelError(
                f"{file} has format {document['format']!r}, this npllm reads {_FORMAT}: update npllm, or "
                "let it "
                "sleep once more to train the adapter again."
            )
        return Manifest(
            version_id=UUID(document["version_id"]),
            context=str(document["context"]),
            base_fingerprint=str(document["base_fingerprint"]),
            parent=UUID(document["parent"]) if document["parent"] else None,
            consolidation_id=UUID(document["consolidation_id"]),
            sha256=str(document["sha256"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            data=dict(document["data"]),
            metrics={str(key): float(value) for key, value in document["metrics"].items()},
        )
    except OSError as error:
        raise ModelError(
            f"The adapter in {folder} has no readable manifest ({error.strerror}), so it is not loaded. The "
            "next sleep "
            "trains a new one."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file} is damaged ({type(error).__name__}: {error}), so the adapter is not loaded. The next "
            "sleep trains "
            "a new one."
        ) from error


def publish_folder(temporary: Path, final: Path) -> None:
    """Make a finished folder appear under its name: files and folder are on disk first, then it is renamed.

    Both must be in one file system.

    Raises:
        ModelError: `final` is there already, or the disk refuses.
    """
    if final.exists():
        raise ModelError(f"{final} is there already; a published version is never written over.")
    try:
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        temporary.rename(final)
        sync(final.parent)
    except OSError as error:
        raise ModelError(f"{final} cannot be written: {error}. Is there room on the disk?") from error


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, which stands under its name when the block ends, or, if that fails, not at all.

    What stands there already was made by a process that was killed before it announced it: nobody uses it.

    Raises:
        ModelError: the disk refuses, here or in the block.
    """
    temporary = final.with_name(TEMPORARY + final.name)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, mode=0o700)
        yield temporary
        if final.exists():
            shutil.rmtree(final)
        publish_folder(temporary, final)
    except (OSError, SafetensorError) as error:  # safetensors says by its own that the disk is full
        raise ModelError(f"{final} cannot be written: {error}. Is there room on the disk?") from error


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder, and renames durably by itself
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The version in use, from which a training goes on: whether it is whole and fits, and what mattered for it (of
adapters and of the cerebellum)."""

from __future__ import annotations

import logging
from pathlib import Path

from npllm.models.adapters import WEIGHTS, read_manifest, sha256_file
from npllm.sleep import mas
from npllm.sleep.mas import Importance
from npllm.types import ModelError

log = logging.getLogger(__name__)


def usable(folder: Path, base_fingerprint: str) -> bool:
    """Whether a published version is whole and was made for this base; if not, the log says why."""
    try:
        manifest = read_manifest(folder)
        if manifest.base_fingerprint != base_fingerprint:
            raise ModelError(f"The adapter in {folder} was trained for another base.")
        if sha256_file(folder / WEIGHTS) != manifest.sha256:
            raise ModelError(f"{folder / WEIGHTS} is not what its manifest says (sha256 differs).")
    except (ModelError, OSError) as error:
        log.warning("the version in use cannot be learned on from: %s", error)
        return False
    return True


def importance(folder: Path) -> Importance | None:
    """What mattered for a version, see `mas`; None: it was not measured, or is not what it was (the log says so)."""
    if not (folder / mas.IMPORTANCE).exists():
        return None
    try:
        if sha256_file(folder / mas.IMPORTANCE) != read_manifest(folder).data.get("importance_sha256"):
            raise ModelError(f"{folder / mas.IMPORTANCE} is not what its manifest says (sha256 differs).")
        return mas.load(folder / mas.IMPORTANCE)
    except (ModelError, OSError) as error:
        log.warning("what mattered so far is not held: %s", error)
        return None

"""Cerebellum versions made without a sleep: whole folders with manifests, and their rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from npllm.config import Config
from npllm.memory.store import Store
from npllm.models.base import fingerprint
from npllm.models.cerebellum import WEIGHTS, Calibration
from npllm.models.manifest import Manifest, sha256_file, write_manifest
from npllm.types import CerebellumVersion, Pattern, VersionState, new_id


async def make_cerebellum(
    store: Store,
    config: Config,
    weights: Path,
    *,
    until: datetime,
    learned: Sequence[UUID] = (),
    held_out: Sequence[UUID] = (),
    project_files: Sequence[tuple[str, str]] = (),
    calibration: Calibration | None = None,
    parent: CerebellumVersion | None = None,
    state: VersionState = VersionState.PUBLISHED,
    patterns: Sequence[Pattern] = (),
) -> CerebellumVersion:
    """A version with a model's weights, of the origin in the settings, by default in use."""
    id, sleep, now = new_id(), new_id(), datetime.now(UTC)
    folder = config.cerebellum_dir / str(id)
    shutil.copytree(weights, folder)
    digest, metrics = sha256_file(folder / WEIGHTS), {"until": until.timestamp()}
    origin = fingerprint(Path(config.cerebellum.model))
    data = {
        "learned": [str(one) for one in learned],
        "held_out": [str(one) for one in held_out],
        "project_files": [list(pair) for pair in project_files],
        "calibration": (calibration or Calibration(None, 0, 0, 0)).to_json(),
    }
    before = parent.id if parent else None
    write_manifest(folder, Manifest(id, "cerebellum", origin, before, sleep, digest, now, data, metrics))
    relative = folder.relative_to(config.home).as_posix()
    made = CerebellumVersion(id, origin, before, sleep, relative, digest, state, "", metrics, now)
    if state is VersionState.PUBLISHED:
        await store.cerebellum.publish(made, patterns)
    else:
        await store.cerebellum.insert(made)
    return made

"""What the tests of neuromodulated attention share: a version's folder as a sleep writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from npllm.models.attention import CONTEXT, WEIGHTS, Gains, write
from npllm.models.manifest import Manifest, sha256_file, write_manifest
from npllm.types import new_id


def write_version(folder: Path, fingerprint: str, gains: Gains) -> UUID:
    """A folder with gains and their manifest; the version's id."""
    folder.mkdir(parents=True)
    write(folder / WEIGHTS, gains)
    version = new_id()
    digest = sha256_file(folder / WEIGHTS)
    write_manifest(
        folder, Manifest(version, CONTEXT, fingerprint, None, new_id(), digest, datetime.now(UTC), metrics={})
    )
    return version

"""A version's folder on disk: whether it is what its row says, and what its manifest tells a reader."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from npllm.models.manifest import WEIGHTS, Manifest, read_manifest, sha256_file
from npllm.types import AdapterVersion, ModelError

CONFIG = "adapter_config.json"


def check(home: Path, version: AdapterVersion) -> Manifest:
    """The manifest of a version whose folder is whole; nothing is loaded.

    Raises:
        ModelError: the folder is not there, or not what the database says.
    """
    folder = home / version.folder
    if not folder.is_dir():
        raise ModelError(
            f"The files of {version.id} are gone ({folder}): nothing was changed. Import them from an export, or "
            "choose another version (`npllm adapters list`)."
        )
    manifest = read_manifest(folder)
    try:
        digest = sha256_file(folder / WEIGHTS)
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} cannot be read ({error}): nothing was changed. Choose another version.") from error
    said = (manifest.version_id, manifest.base_fingerprint, manifest.sha256, digest)
    if said != (version.id, version.base_fingerprint, version.sha256, version.sha256):
        raise ModelError(
            f"{folder} is not what the database says of {version.id} (its id, base or sha256 differs): nothing was "
            "changed. Choose another version."
        )
    return manifest


def shape(folder: Path) -> str:
    """What kind of adapter it is, in a few words; "" where that cannot be read."""
    try:
        raw: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        targets = raw.get("target_modules") or []
        names = targets if isinstance(targets, str) else ", ".join(sorted(targets))
        return f"LoRA, rank {raw['r']}, alpha {raw['lora_alpha']}, on {names}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def learned(manifest: Manifest) -> frozenset[str]:
    """Ids of the experiences that it was trained on."""
    return frozenset(str(id) for id in manifest.data.get("learned", ()))


def project_files(manifest: Manifest) -> frozenset[tuple[str, str]]:
    """The files whose passages it was trained on, as (project, path)."""
    return frozenset((str(project), str(path)) for project, path in manifest.data.get("project_files", ()))


def projects(manifest: Manifest) -> dict[str, int]:
    """How many files of each project it was trained on."""
    return dict(Counter(project for project, _ in project_files(manifest)).most_common())

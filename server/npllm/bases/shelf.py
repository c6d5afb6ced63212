"""The bases that are at hand: the starter, the one in use, what Hugging Face's cache holds, and those with adapters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from npllm.bases.learned import Learned, Lineage
from npllm.bases.profile import Profile, profile
from npllm.models.locate import fetched, names_id, resolve
from npllm.types import ModelError

STARTER = "starter"


@dataclass(frozen=True, slots=True)
class Entry:
    """One base.

    Attributes:
        profile: None where it is not on this machine or cannot be served; `problem` says which.
        lineage: its adapters, if there are any.
    """

    name: str
    in_use: bool
    profile: Profile | None
    problem: str
    lineage: Lineage | None


def entries(in_use: str, learned: Learned, *, device: str, cache: Path) -> list[Entry]:
    """All of them; the starter first. Asks no network.

    Args:
        in_use: the setting `base.model`.
        device: the setting `base.device`.
        cache: folder of the book of fingerprints.
    """
    found: list[Entry] = []
    for name in dict.fromkeys((STARTER, in_use, *_cached())):
        made, problem = None, ""
        try:
            made = profile(folder_of(name), device=device, cache=cache, hashed=name == in_use)
        except (ModelError, OSError) as error:
            problem = str(error)
        if made is None and name not in (in_use, STARTER):
            continue  # of no use to anybody
        lineage = learned.of(made.fingerprint) if made is not None and made.fingerprint else None
        if lineage is None and (made is None or made.fingerprint is None):
            lineage = next((one for one in learned.lineages if one.name == name), None)
        found.append(Entry(name, name == in_use, made, problem, lineage))
    shown = {entry.lineage for entry in found}
    found += [
        Entry(lineage.name or f"fingerprint {lineage.fingerprint[:12]}", False, None, "not found here", lineage)
        for lineage in learned.lineages
        if lineage not in shown
    ]
    return found


def _cached() -> list[str]:
    """The ids of the models in Hugging Face's cache on this machine."""
    try:
        repos = huggingface_hub.scan_cache_dir().repos
    except (errors.CacheNotFound, ValueError, OSError):
        return []
    return sorted(repo.repo_id for repo in repos if repo.repo_type == "model")


def folder_of(name: str) -> Path:
    """The folder of a base that is on this machine. Asks no network.

    Raises:
        ModelError: it is not, or as `resolve`.
    """
    if name != STARTER and names_id(name) and not Path(name).exists() and fetched(name) is None:
        raise ModelError(f"{name} is not on this machine: `npllm base use {name}` fetches it.")
    return resolve(name)

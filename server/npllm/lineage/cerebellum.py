"""The cerebellum's versions by hand: what `npllm adapters` does where the context is "cerebellum", or an id is of one.

Its versions belong to the model that they grew from, not to a base; at most one of each such model is in use.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from npllm.config import Config
from npllm.lineage.choosing import NoSuchVersion, find, short
from npllm.lineage.exchange import ExchangeError, public
from npllm.memory.cerebellum import CONTEXT
from npllm.memory.lineage import quiet
from npllm.memory.store import Store
from npllm.models.cerebellum import WEIGHTS, origin
from npllm.models.fingerprints import fingerprint
from npllm.models.hub import TOKENIZERS
from npllm.models.manifest import Manifest, read_manifest, sha256_file, write_manifest
from npllm.types import CerebellumVersion, ModelError, NpllmError, VersionState

NONE = "none"
ORIGIN = "as it came"
KNOWN = ("config.json", "generation_config.json", WEIGHTS, *TOKENIZERS, "tokenizer_config.json")


def rows(versions: Sequence[CerebellumVersion], home: Path) -> list[tuple[str, str, str, str, str, str, str, str]]:
    """For `list`: id, context, state, date, gain, parent, origin, notes."""
    found = []
    for version in versions:
        gain = version.metrics.get("gain", math.nan)
        forgotten = version.state is VersionState.FORGOTTEN
        gone = not forgotten and not (home / version.folder / WEIGHTS).is_file()
        notes = [name for name, holds in (("pinned", version.pinned), ("files gone", gone)) if holds]
        found.append(
            (
                short(version, versions),
                CONTEXT,
                "forgotten (tainted)" if forgotten else version.state.value,
                f"{version.created_at:%Y-%m-%d %H:%M}",
                f"{gain:+.1%}" if math.isfinite(gain) else "",
                version.parent.hex[-8:] if version.parent else "",
                version.origin[:12],
                ", ".join(notes),
            )
        )
    return found


def show(version: CerebellumVersion, home: Path) -> None:
    """What a version is, gained and learned from."""
    folder = home / version.folder
    lines = {
        "id": str(version.id),
        "context": CONTEXT,
        "state": version.state.value + (", pinned" if version.pinned else ""),
        "reason": version.reason,
        "made": f"{version.created_at:%Y-%m-%d %H:%M} UTC, by sleep {version.consolidation_id}",
        "grew from": version.origin,
        "parent": str(version.parent) if version.parent else f"the model {ORIGIN}",
        "folder": str(folder) if folder.is_dir() else f"{folder} (gone)",
    }
    for label, text in lines.items():
        if text:
            print(f"{label:<10} {text}")
    for name, value in sorted(version.metrics.items()):
        print(f"  {name:<24} {value:.6g}")


async def rollback(args: argparse.Namespace, settings: Config, store: Store) -> int:
    """Put an older version in use: the one named, or the parent of the one in use; `none`: the model as it came.

    Raises:
        NpllmError: nothing was changed.
    """
    async with quiet(store):
        versions = await store.cerebellum.versions()
        named = find(versions, args.id) if args.id not in (None, NONE) else None
        present = await asyncio.to_thread(_present, versions, named, settings)
        if present is not None and present.pinned:
            raise NpllmError(f"{present.id} is pinned: `npllm adapters unpin {present.id.hex[-8:]}` first.")
        wanted = named or next((one for one in versions if present and one.id == present.parent), None)
        if args.id == NONE or wanted is None:
            if present is None or (args.id is None and present.parent is not None):
                raise NoSuchVersion("There is nothing to go back to: name a version (`npllm adapters list`).")
            await store.cerebellum.take_out_of_use(present)
            print(f"{present.id} is out of use: the cerebellum is the model {ORIGIN}.")
        elif wanted.state is VersionState.PUBLISHED:
            print(f"{wanted.id} is in use already.")
            return 0
        else:
            await asyncio.to_thread(check, settings.home, wanted)
            await store.cerebellum.put_in_use(wanted)
            print(f"{wanted.id} is in use for {CONTEXT}" + (f", no longer {present.id}." if present else "."))
    print("Open editors have it at once. The next sleep goes on from there, and learns again what came later.")
    return 0


def check(home: Path, version: CerebellumVersion) -> Manifest:
    """The manifest of a version whose folder is whole.

    Raises:
        NoSuchVersion: it was forgotten.
        ModelError: the folder is not there, or not what the database says.
    """
    if version.state is VersionState.FORGOTTEN:
        raise NoSuchVersion(f"{version.id} was forgotten on purpose, with its weights. Choose another version.")
    folder = home / version.folder
    try:
        manifest = read_manifest(folder)
        digest = sha256_file(folder / WEIGHTS)
    except (ModelError, OSError) as error:
        raise ModelError(f"{folder} cannot be read ({error}): nothing was changed. Choose another version.") from error
    if (manifest.version_id, manifest.sha256, digest) != (version.id, version.sha256, version.sha256):
        raise ModelError(
            f"{folder} is not what the database says of {version.id} (its id or sha256 differs): nothing was changed. "
            "Choose another version."
        )
    return manifest


def write_out(source: Path, manifest: Manifest, target: Path) -> None:
    """Write a version to a new folder, a plain causal LM with its tokenizer, whole or not at all.

    Raises:
        ExchangeError: the target is there already, or cannot be written.
    """
    if target.exists():
        raise ExchangeError(f"{target} is there already. Give another name, or remove it first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".npllm-export-", dir=target.parent) as place:
            folder = Path(place) / CONTEXT
            folder.mkdir()
            for name in KNOWN:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
            write_manifest(folder, public(manifest))
            folder.rename(target)
    except OSError as error:
        raise ExchangeError(f"{target} cannot be written: {error}. Is there room, and the permission?") from error


def _present(
    versions: Sequence[CerebellumVersion], named: CerebellumVersion | None, settings: Config
) -> CerebellumVersion | None:
    """What is in use: of the model that the named version grew from, else of that in the settings."""
    published = [version for version in versions if version.state is VersionState.PUBLISHED]
    if named is not None:
        published = [version for version in published if version.origin == named.origin]
    elif len(published) > 1:  # each of a model of its own
        present = fingerprint(origin(settings.cerebellum.model), settings.home / "cache")
        published = [version for version in published if version.origin == present]
    if not published and named is None:
        raise NoSuchVersion(f"No version of the {CONTEXT} is in use: name the one that should be, by its id.")
    return published[0] if published else None

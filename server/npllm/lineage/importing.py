"""A version from outside becomes one of ours: it must be plain LoRA, of a base that is known by its fingerprint, and
free of what was forgotten. It is never put in use by coming in.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from npllm.config import Config
from npllm.lineage.exchange import PROJECT, ExchangeError, Parcel, read_in
from npllm.memory.lineage import quiet
from npllm.memory.store import Store
from npllm.models.manifest import MANIFEST, Manifest, learned_ids, whole_folder, write_manifest
from npllm.types import AdapterVersion, NpllmError, VersionState, new_id


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in; `fits` says whether it was tried on the present base, else it waits for its own."""

    version: AdapterVersion
    fits: bool


async def bring_in(source: Path, context: str | None, config: Config, store: Store) -> Imported:
    """Check a folder or archive and keep it as a retired version.

    Args:
        context: of the adapter family; None = as its manifest says.

    Raises:
        NpllmError: what is wrong with it; nothing was stored.
    """
    with await asyncio.to_thread(read_in, source) as parcel:
        base = await asyncio.to_thread(_present_base, config)
        manifest = _manifest(source, parcel, context, base)
        versions = await store.adapter_versions()
        former = next((one for one in versions if one.id == manifest.version_id), None)
        if former is not None and former.sha256 != manifest.sha256:
            raise ExchangeError(f"{source} says it is {former.id}, which is here with other weights: it is refused.")
        if former is not None and former.state is VersionState.FORGOTTEN:
            raise ExchangeError(f"{former.id} was forgotten on purpose ({former.reason}): it does not come back.")
        if former is not None and (config.home / former.folder).is_dir():
            raise ExchangeError(f"{former.id} is here already ({former.state}). Nothing was done.")
        ids = learned_ids(manifest.data)
        if await store.forgetting.forgotten_among(ids):
            raise ExchangeError(f"{source} has learned from what you have forgotten: it is refused.")
        known = any([await store.experience(id) is not None for id in list(ids)[:50]])
        metrics = {key: value for key, value in manifest.metrics.items() if known or key != "until"}
        manifest = replace(manifest, metrics=metrics)
        await asyncio.to_thread(_check, parcel.folder, manifest, config if manifest.base_fingerprint == base else None)
        async with quiet(store):
            final = config.adapters_dir / str(manifest.version_id)
            await asyncio.to_thread(_place, parcel.folder, final)
            version = former or AdapterVersion(
                id=manifest.version_id,
                context=manifest.context,
                base_fingerprint=manifest.base_fingerprint,
                parent=manifest.parent,
                consolidation_id=manifest.consolidation_id,
                folder=final.relative_to(config.home).as_posix(),
                sha256=manifest.sha256,
                state=VersionState.RETIRED,
                reason=f"Imported from {source.name} on {datetime.now(UTC):%Y-%m-%d}.",
                metrics=metrics,
                created_at=manifest.created_at,
            )
            if former is None:
                await store.insert_adapter_version(version)
    return Imported(version, manifest.base_fingerprint == base)


def _manifest(source: Path, parcel: Parcel, context: str | None, base: str | None) -> Manifest:
    """Its own manifest, or a first one for an adapter that was made elsewhere."""
    own = parcel.manifest
    family = context or (own.context if own is not None else "")
    if not family:
        raise ExchangeError(
            f"{source} has no manifest, so it does not say what it is for: give --context, e.g. language:python."
        )
    if family.startswith(PROJECT) and not Path(family.removeprefix(PROJECT)).is_absolute():
        raise ExchangeError(f"{source} is for {family}: say where that lies here, --context project:/its/folder.")
    if own is not None:
        return replace(own, context=family)
    if base is None:
        raise ExchangeError(f"{source} has no manifest, and the present base cannot be loaded to try it on.")
    return Manifest(new_id(), family, base, None, new_id(), parcel.sha256, datetime.now(UTC))


def _present_base(config: Config) -> str | None:
    """The fingerprint of the base in the settings; None while it is not at hand."""
    from npllm.models.fingerprints import fingerprint
    from npllm.models.locate import resolve

    try:
        return fingerprint(resolve(config.base.model), config.home / "cache")
    except (NpllmError, OSError):
        return None


def _check(folder: Path, manifest: Manifest, config: Config | None) -> None:
    """Plain LoRA with finite numbers; with `config`, also put on the base that is set there, once."""
    from npllm.models.adapters import AdapterSet, check_plain
    from npllm.models.base import Base

    write_manifest(folder, manifest)
    check_plain(folder, manifest)
    if config is not None:
        base = Base.load(config.base.model, device=config.base.device, cache=config.home / "cache")
        AdapterSet(base).load(manifest.version_id, folder, manifest.context)


def _place(folder: Path, final: Path) -> None:
    with whole_folder(final) as temporary:  # what is there is without a row, or its files were gone: nobody's
        for path in folder.iterdir():
            if path.name == MANIFEST or path.suffix in (".json", ".safetensors"):
                shutil.copyfile(path, temporary / path.name)

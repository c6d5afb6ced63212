"""`npllm adapters list | show | diff | pin | unpin | rollback | export | import`.

An id may be given by any part that fits one version alone, best its last digits. Nothing is changed before everything
that could be wrong has been looked at; what is changed takes effect in open editors at once.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from npllm import config
from npllm.config import Config
from npllm.lineage import cerebellum, files
from npllm.lineage.choosing import AnyVersion, NoSuchVersion, find, short
from npllm.memory.cerebellum import CONTEXT as CEREBELLUM
from npllm.memory.lineage import quiet
from npllm.memory.store import Store
from npllm.models.manifest import Manifest, read_manifest
from npllm.types import AdapterVersion, CerebellumVersion, ModelError, NpllmError, VersionState

NONE = "none"


def main(arguments: Sequence[str]) -> int:
    """Run `npllm adapters ...`; its exit status.

    Raises:
        NpllmError: with cause and mend; nothing was changed.
    """
    args = _parser().parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace, Config, Store], Awaitable[int]]] = {
        "list": _list,
        "show": _show,
        "diff": _diff,
        "pin": _pin,
        "unpin": _unpin,
        "rollback": _rollback,
        "export": _export,
        "import": _import,
    }
    return asyncio.run(_with_store(commands[args.command], args))


async def _with_store(
    command: Callable[[argparse.Namespace, Config, Store], Awaitable[int]], args: argparse.Namespace
) -> int:
    settings = config.load()
    store = await Store.connect(settings)
    try:
        return await command(args, settings, store)
    finally:
        await store.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm adapters", description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="all versions, by context; the cerebellum's, too")
    show = commands.add_parser("show", help="what a version is, gained, learned from, and where it comes from")
    diff = commands.add_parser("diff", help="how far two versions are apart, layer by layer, and what each learned")
    diff.add_argument("id")
    diff.add_argument("other")
    pin = commands.add_parser("pin", help="keep a version in use: no sleep replaces it")
    unpin = commands.add_parser("unpin", help="let sleeps replace it again")
    rollback = commands.add_parser("rollback", help="put an older version in use")
    rollback.add_argument("context", help='e.g. "language:python", or "cerebellum"')
    rollback.add_argument("id", nargs="?", help='by default the parent of the one in use; "none" = the bare base')
    export = commands.add_parser("export", help="write a version out, as a plain PEFT folder")
    for one in (show, pin, unpin, export):
        one.add_argument("id")
    export.add_argument("target", type=Path, metavar="FOLDER_OR_TAR_GZ")
    bring = commands.add_parser("import", help="take a PEFT folder or .tar.gz in; `rollback CONTEXT ID` puts it in use")
    bring.add_argument("source", type=Path, metavar="FOLDER_OR_TAR_GZ")
    bring.add_argument("--context", help="what it is for; by default what its manifest says")
    return parser


# -- looking ---------------------------------------------------------------------------------------------------------


async def _list(_: argparse.Namespace, settings: Config, store: Store) -> int:
    versions, small = await store.adapter_versions(), await store.cerebellum.versions()
    if not versions and not small:
        print("No adapter yet. `npllm sleep` makes them, once there is enough to learn from.")
        return 0
    rows = [("id", "context", "state", "date", "gain", "parent", "base", "")]
    for version in sorted(versions, key=lambda one: (one.context, one.base_fingerprint)):
        gain = version.metrics.get("gain", math.nan)
        parent = next((one for one in versions if one.id == version.parent), None)
        forgotten = version.state is VersionState.FORGOTTEN
        gone = not forgotten and not (settings.home / version.folder).is_dir()
        notes = [name for name, holds in (("pinned", version.pinned), ("files gone", gone)) if holds]
        rows.append(
            (
                short(version, versions),
                version.context,
                "forgotten (tainted)" if forgotten else version.state.value,
                f"{version.created_at:%Y-%m-%d %H:%M}",
                f"{gain:+.1%}" if math.isfinite(gain) else "",
                short(parent, versions) if parent else (version.parent.hex[-8:] if version.parent else ""),
                version.base_fingerprint[:12],
                ", ".join(notes),
            )
        )
    rows += cerebellum.rows(small, settings.home)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


async def _show(args: argparse.Namespace, settings: Config, store: Store) -> int:
    versions = await store.adapter_versions()
    version = await _named(store, args.id)
    if isinstance(version, CerebellumVersion):
        cerebellum.show(version, settings.home)
        return 0
    folder = settings.home / version.folder
    lines = {
        "id": str(version.id),
        "context": version.context,
        "state": version.state.value + (", pinned" if version.pinned else ""),
        "reason": version.reason,
        "made": f"{version.created_at:%Y-%m-%d %H:%M} UTC, by sleep {version.consolidation_id}",
        "base": version.base_fingerprint,
        "folder": str(folder) if folder.is_dir() else f"{folder} (gone)",
        "adapter": files.shape(folder),
    }
    for label, text in lines.items():
        if text:
            print(f"{label:<10} {text}")
    _show_learned(_manifest(folder))
    print("lineage    " + " <- ".join(_lineage(version, versions)))
    for name, value in sorted(version.metrics.items()):
        print(f"  {name:<24} {value:.6g}")
    consolidation = await store.consolidation(version.consolidation_id)
    for line in _slices(_part(consolidation.report if consolidation else {}, version.id)):
        print(f"  {line}")
    return 0


def _show_learned(manifest: Manifest | None) -> None:
    if manifest is None:
        print("learned    not known: its manifest is gone")
        return
    data = manifest.data
    held = len(data.get("held_out", ()))
    print(f"learned    {len(files.learned(manifest))} experiences until {data.get('until', '?')}; {held} held out")
    for project, count in files.projects(manifest).items():
        print(f"           passages of {count} files of {project}")


def _lineage(version: AdapterVersion, versions: Sequence[AdapterVersion]) -> list[str]:
    """From a version back to the first of its line; one whose row is not here ends it."""
    known = {one.id: one for one in versions}
    found = [f"{short(version, versions)} ({version.state})"]
    parent = version.parent
    while parent is not None and len(found) <= len(known):
        older = known.get(parent)
        found.append(f"{short(older, versions)} ({older.state})" if older else f"{parent.hex[-8:]} (not here)")
        parent = older.parent if older else None
    return found


def _part(report: Mapping[str, Any], version: UUID) -> Mapping[str, Any]:
    """What a sleep's report says of one version."""
    parts = report.get("contexts", ())
    return next((part for part in parts if isinstance(part, dict) and part.get("version") == str(version)), {})


def _slices(part: Mapping[str, Any]) -> list[str]:
    """How the gate saw each slice of texts."""
    found = []
    for one in part.get("slices", ()):
        values = " ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in one.items()
            if key not in ("kind", "name") and value != ""
        )
        found.append(f"slice {one.get('kind', '')} {one.get('name', '')}: {values}")
    return found


async def _diff(args: argparse.Namespace, settings: Config, store: Store) -> int:
    from npllm.lineage.difference import differences

    versions = await store.adapter_versions()
    pair = [find(versions, part) for part in (args.id, args.other)]
    names = [short(version, versions) for version in pair]
    first, second = (settings.home / version.folder for version in pair)
    layers = differences(first, second)
    width = max(len(layer.layer) for layer in layers)
    print(f"{'norm of what is added to the weights':<{width}}  {names[0]:>10}  {names[1]:>10}  difference")
    for layer in layers:
        print(f"{layer.layer:<{width}}  {layer.first:10.4f}  {layer.second:10.4f}  {layer.difference:10.4f}")
    metrics = sorted(pair[0].metrics.keys() | pair[1].metrics.keys())
    for name in metrics:
        values = [version.metrics.get(name, math.nan) for version in pair]
        if values[0] != values[1] and not all(map(math.isnan, values)):
            print(f"{name:<{width}}  {values[0]:10.4g}  {values[1]:10.4g}")
    manifests = [_manifest(folder) for folder in (first, second)]
    if manifests[0] is not None and manifests[1] is not None:
        _compare(manifests[0], manifests[1], names)
    return 0


def _compare(first: Manifest, second: Manifest, names: Sequence[str]) -> None:
    for name, own, other in ((names[0], first, second), (names[1], second, first)):
        ids = len(files.learned(own) - files.learned(other))
        paths = sorted(files.project_files(own) - files.project_files(other))
        shown = ", ".join(f"{project}/{path}" for project, path in paths[:5]) + (", ..." if len(paths) > 5 else "")
        print(f"only {name} learned {ids} experiences and {len(paths)} files" + (f": {shown}" if paths else ""))


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except ModelError:
        return None


async def _named(store: Store, part: str) -> AnyVersion:
    versions: list[AnyVersion] = [*await store.adapter_versions(), *await store.cerebellum.versions()]
    return find(versions, part)


def _context(version: AnyVersion) -> str:
    return CEREBELLUM if isinstance(version, CerebellumVersion) else version.context


def _pins(store: Store, version: AnyVersion) -> Callable[[UUID, bool], Awaitable[None]]:
    return store.cerebellum.pin if isinstance(version, CerebellumVersion) else store.lineage.pin


# -- changing --------------------------------------------------------------------------------------------------------


async def _pin(args: argparse.Namespace, _: Config, store: Store) -> int:
    async with quiet(store):
        version = await _named(store, args.id)
        if version.state is not VersionState.PUBLISHED:
            raise NpllmError(
                f"{version.id} is {version.state}, not in use: `npllm adapters rollback {_context(version)} "
                f"{version.id.hex[-8:]}` first."
            )
        await _pins(store, version)(version.id, True)
    print(f"{version.id} stays in use for {_context(version)}: sleeps leave that alone until it is unpinned.")
    return 0


async def _unpin(args: argparse.Namespace, _: Config, store: Store) -> int:
    version = await _named(store, args.id)
    if not version.pinned:
        print(f"{version.id} was not pinned.")
        return 0
    await _pins(store, version)(version.id, False)
    print(f"{version.id} is no longer pinned: the next sleep goes on from it.")
    return 0


async def _rollback(args: argparse.Namespace, settings: Config, store: Store) -> int:
    if args.context == CEREBELLUM:
        return await cerebellum.rollback(args, settings, store)
    async with quiet(store):
        versions = await store.adapter_versions()
        present = await _present(args.context, args.id, versions, settings)
        if present is not None and present.pinned:
            raise NpllmError(f"{present.id} is pinned: `npllm adapters unpin {present.id.hex[-8:]}` first.")
        if args.id == NONE:
            assert present is not None
            await store.lineage.take_out_of_use(present)
            print(f"{present.id} is out of use: the bare base answers in {args.context}.")
        else:
            wanted = _wanted(args, present, versions)
            files.check(settings.home, wanted)
            if wanted.state is VersionState.PUBLISHED:
                print(f"{wanted.id} is in use already.")
                return 0
            await store.lineage.put_in_use(wanted)
            instead = f", no longer {present.id}" if present else ""
            print(f"{wanted.id} is in use for {wanted.context}{instead}.")
    print("Open editors have it at once. The next sleep goes on from there, and learns again what came later.")
    return 0


async def _present(
    context: str, part: str | None, versions: Sequence[AdapterVersion], settings: Config
) -> AdapterVersion | None:
    """What is in use in a context: of the base of the version that is wanted, else of the present base."""
    own = [version for version in versions if version.context == context]
    if not own:
        known = ", ".join(sorted({version.context for version in versions})) or "none"
        raise NoSuchVersion(f"There is no adapter for {context!r}. Contexts with adapters: {known}.")
    published = [version for version in own if version.state is VersionState.PUBLISHED]
    if part is not None and part != NONE:
        base = find(own, part).base_fingerprint
        return next((version for version in published if version.base_fingerprint == base), None)
    if len(published) > 1:
        from npllm.models.fingerprints import fingerprint
        from npllm.models.locate import resolve

        folder = await asyncio.to_thread(resolve, settings.base.model)
        base = await asyncio.to_thread(fingerprint, folder, settings.home / "cache")
        published = [version for version in published if version.base_fingerprint == base]
    if not published:
        raise NoSuchVersion(f"Nothing is in use for {context}: name the version that should be, by its id.")
    return published[0]


def _wanted(
    args: argparse.Namespace, present: AdapterVersion | None, versions: Sequence[AdapterVersion]
) -> AdapterVersion:
    """The version that is named, or the parent of the one in use."""
    if args.id is not None:
        wanted = find([version for version in versions if version.context == args.context], args.id)
    else:
        assert present is not None
        parent = next((version for version in versions if version.id == present.parent), None)
        if parent is None or parent.context != args.context or parent.base_fingerprint != present.base_fingerprint:
            raise NoSuchVersion(
                f"{present.id} has no parent here to go back to. Name a version, or `none` for the bare base."
            )
        wanted = parent
    if wanted.state is VersionState.FORGOTTEN:
        raise NoSuchVersion(f"{wanted.id} was forgotten on purpose, with its weights. Choose another version.")
    return wanted


async def _export(args: argparse.Namespace, settings: Config, store: Store) -> int:
    from npllm.lineage.exchange import write_out

    version = await _named(store, args.id)
    if isinstance(version, CerebellumVersion):
        manifest = await asyncio.to_thread(cerebellum.check, settings.home, version)
        await asyncio.to_thread(cerebellum.write_out, settings.home / version.folder, manifest, args.target)
        print(
            f"{version.id} is in {args.target}, a plain model folder. With cerebellum.model set to it, another machine "
            "begins with it. Names of files within a project remain in its manifest.json."
        )
        return 0
    manifest = files.check(settings.home, version)
    await asyncio.to_thread(write_out, settings.home / version.folder, manifest, args.target)
    print(
        f"{version.id} is in {args.target}, a plain PEFT adapter. Projects and base are named there by the last name "
        "of their folder alone; names of files within a project remain in its manifest.json."
    )
    return 0


async def _import(args: argparse.Namespace, settings: Config, store: Store) -> int:
    from npllm.lineage.importing import bring_in

    made = await bring_in(args.source, args.context, settings, store)
    version = made.version
    print(f"{version.id} is here, for {version.context}, and not in use.")
    if made.fits:
        print(f"To use it: npllm adapters rollback {version.context} {version.id.hex[-8:]}")
    else:
        print(f"It is for another base (fingerprint {version.base_fingerprint[:12]}) and waits for that.")
    return 0

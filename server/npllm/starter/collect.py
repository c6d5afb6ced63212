"""Collect the training text: the standard library and packages fetched by name, judged file by file.

Packages come as wheels through pip, without their dependencies, into a cache that later runs reuse. What is kept:
permissively licensed, hand-written, not vendored, not (nearly) a duplicate, not (nearly) a file of a reserved
project, and at most so many bytes per package that no project is louder than the rest.
"""

from __future__ import annotations

import email
import platform
import random
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from npllm.starter.corpus import Corpus, Manifest, PackageEntry, Refusal, SourceFile, Split
from npllm.starter.dedup import DuplicateFilter
from npllm.starter.filters import clean, is_own_source, is_worth_learning
from npllm.starter.licences import is_permissive, licence_of
from npllm.starter.progress import tqdm
from npllm.starter.sources import HELD_OUT, RESERVED, STDLIB, TRAINING, is_reserved, normalise

#: Folders of the standard library that are not library code, or that bundle other projects.
_STDLIB_SKIP = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo"}
)


@dataclass(frozen=True)
class Package:
    """A package as it was fetched, before any judgement of its files."""

    name: str
    version: str
    licence: str | None
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Selection:
    """What to collect. Caps are UTF-8 bytes of kept text."""

    training: tuple[str, ...] = (STDLIB, *TRAINING)
    held_out: tuple[str, ...] = HELD_OUT
    reserved: tuple[str, ...] = tuple(sorted(RESERVED))
    package_cap: int = 450_000
    stdlib_cap: int = 6_000_000


def fetch_wheels(names: Sequence[str], cache: Path, batch: int = 8) -> None:
    """Have a wheel of each named package in the cache; names that cannot be had are simply absent afterwards."""
    cache.mkdir(parents=True, exist_ok=True)
    have = {normalise(wheel.name.split("-")[0]) for wheel in cache.glob("*.whl")}
    missing = [name for name in names if name != STDLIB and normalise(name) not in have]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "-d", str(cache)]
    for start in tqdm(range(0, len(missing), batch), desc="fetching wheels", unit="batch", disable=not missing):
        group = missing[start : start + batch]
        if subprocess.run([*command, *group], capture_output=True).returncode:
            for name in group:
                subprocess.run([*command, name], capture_output=True)


def read_wheel(path: Path) -> Package:
    """The Python files of a wheel, with the name, version and licence from its METADATA."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        inner = next(name for name in names if name.count("/") == 1 and name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(inner))
        files = tuple(
            SourceFile(name, text)
            for name in sorted(names)
            if is_own_source(name) and (text := clean(wheel.read(name))) is not None
        )
    return Package(normalise(str(metadata["Name"])), str(metadata["Version"]), licence_of(metadata), files)


def read_stdlib() -> Package:
    """The standard library of the running interpreter."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return Package(STDLIB, platform.python_version(), "PSF-2.0", tuple(_read_tree(root)))


def _read_tree(root: Path) -> Iterator[SourceFile]:
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if _STDLIB_SKIP.intersection(path.parts[:-1]) or not is_own_source(path.as_posix()):
            continue
        text = clean(file.read_bytes())
        if text is not None:
            yield SourceFile(path.as_posix(), text)


def keep_files(package: Package, duplicates: DuplicateFilter, cap: int) -> list[SourceFile]:
    """The files of a package worth learning from, in a shuffled but repeatable order, until `cap` bytes are full."""
    order = list(package.files)
    random.Random(package.name).shuffle(order)
    kept: list[SourceFile] = []
    room = cap
    for file in order:
        size = len(file.text.encode())
        if size > room or not is_worth_learning(file.text) or duplicates.seen(file.text):
            continue
        duplicates.add(file.text)
        kept.append(file)
        room -= size
    return kept


def collect(corpus: Corpus, cache: Path, selection: Selection = Selection()) -> Manifest:
    """Fill the corpus folder and write its manifest. Held-out packages come first, so that no copy of their files
    can enter the training split from another package. Raises OSError when the folder cannot be written."""
    fetch_wheels([*selection.held_out, *selection.training, *selection.reserved], cache)
    wheels = {normalise(path.name.split("-")[0]): path for path in sorted(cache.glob("*.whl"))}
    duplicates = DuplicateFilter()
    for name in selection.reserved:
        if normalise(name) in wheels:
            with zipfile.ZipFile(wheels[normalise(name)]) as wheel:
                for inner in wheel.namelist():
                    text = clean(wheel.read(inner)) if inner.endswith(".py") else None
                    if text:
                        duplicates.add(text)
    entries: list[PackageEntry] = []
    refused: list[Refusal] = []
    jobs: list[tuple[str, Split]] = [(name, "held-out") for name in selection.held_out]
    jobs += [(name, "train") for name in selection.training if name not in selection.held_out]
    for name, split in tqdm(jobs, desc="reading packages", unit="package"):
        outcome = _take(name, split, wheels, corpus, duplicates, selection)
        if isinstance(outcome, PackageEntry):
            entries.append(outcome)
        else:
            refused.append(outcome)
    manifest = Manifest(tuple(entries), tuple(refused), tuple(sorted(selection.reserved)))
    corpus.write_manifest(manifest)
    return manifest


def _take(
    name: str, split: Split, wheels: dict[str, Path], corpus: Corpus, duplicates: DuplicateFilter, selection: Selection
) -> PackageEntry | Refusal:
    if is_reserved(name):
        return Refusal(name, "reserved for evaluation")
    if name == STDLIB:
        package, cap = read_stdlib(), selection.stdlib_cap
    elif normalise(name) in wheels:
        package, cap = read_wheel(wheels[normalise(name)]), selection.package_cap
    else:
        return Refusal(name, "no wheel to be had")
    if not is_permissive(package.licence):
        return Refusal(name, f"licence: {package.licence or 'not stated'}")
    files = keep_files(package, duplicates, cap)
    if not files:
        return Refusal(name, "no file worth learning from")
    corpus.write_package(package.name, files)
    size = sum(len(file.text.encode()) for file in files)
    return PackageEntry(package.name, package.version, str(package.licence), split, len(files), size)


def collect_folder(corpus: Corpus, folder: Path, selection: Selection = Selection()) -> Manifest:
    """Fill the corpus from a folder of one's own, one package per subfolder; no licence is asked for.

    Reserved names and duplicates are left out all the same. Raises FileNotFoundError when there is no such folder."""
    duplicates = DuplicateFilter()
    entries: list[PackageEntry] = []
    refused: list[Refusal] = []
    for root in sorted(path for path in folder.iterdir() if path.is_dir()):
        if is_reserved(root.name):
            refused.append(Refusal(root.name, "reserved for evaluation"))
            continue
        package = Package(normalise(root.name), "0", "LicenseRef-own", tuple(_read_tree(root)))
        files = keep_files(package, duplicates, selection.package_cap)
        if not files:
            refused.append(Refusal(root.name, "no file worth learning from"))
            continue
        corpus.write_package(package.name, files)
        size = sum(len(file.text.encode()) for file in files)
        entries.append(PackageEntry(package.name, "0", "LicenseRef-own", "train", len(files), size))
    manifest = Manifest(tuple(entries), tuple(refused), tuple(sorted(selection.reserved)))
    corpus.write_manifest(manifest)
    return manifest

"""Collect the training text: the standard library and packages fetched by name, judged file by file.

Python packages come as wheels through pip, without their dependencies, JavaScript and TypeScript from npm (`npm`),
into caches that later runs reuse. What is kept:
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

from npllm.starter.corpus import Corpus, Manifest, Package, PackageEntry, Refusal, SourceFile, Split
from npllm.starter.dedup import DuplicateFilter
from npllm.starter.filters import clean, is_own_source, is_worth_learning
from npllm.starter.javascript import is_declaration, is_script_worth_learning
from npllm.starter.licences import is_permissive, licence_of
from npllm.starter.npm import PREFIX, fetch_tarballs, npm_client, read_tarball, tarball
from npllm.starter.progress import tqdm
from npllm.starter.sources import (
    HELD_OUT,
    NPM_HELD_OUT,
    NPM_TRAINING,
    RESERVED,
    STDLIB,
    TRAINING,
    is_reserved,
    normalise,
)

#: Folders of the standard library that are not library code, or that bundle other projects.
_STDLIB_SKIP = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip", "turtledemo"}
)


@dataclass(frozen=True)
class Selection:
    """What to collect. Caps are UTF-8 bytes of kept text; `npm_share` is the most that npm packages may make up of all
    training text, and `declarations` the most that `.d.ts` files may fill of an npm package's cap."""

    training: tuple[str, ...] = (STDLIB, *TRAINING)
    held_out: tuple[str, ...] = HELD_OUT
    reserved: tuple[str, ...] = tuple(sorted(RESERVED))
    package_cap: int = 450_000
    stdlib_cap: int = 6_000_000
    npm_training: tuple[str, ...] = NPM_TRAINING
    npm_held_out: tuple[str, ...] = NPM_HELD_OUT
    npm_cap: int = 200_000
    npm_share: float = 0.2
    declarations: float = 0.05


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


def read_wheel(path: Path, reserved_too: bool = False) -> Package:
    """The Python files of a wheel, with the name, version and licence from its METADATA. Files of reserved projects
    are left out unless `reserved_too`, which is for judging and never for training."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        inner = next(name for name in names if name.count("/") == 1 and name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(inner))
        files = tuple(
            SourceFile(name, text)
            for name in sorted(names)
            if is_own_source(name, reserved_too) and (text := clean(wheel.read(name))) is not None
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


def keep_files(package: Package, duplicates: DuplicateFilter, cap: int, declarations: float = 0.05) -> list[SourceFile]:
    """The files of a package worth learning from, in a shuffled but repeatable order, until `cap` bytes are full."""
    worth_learning = is_worth_learning if package.language == "python" else is_script_worth_learning
    order = list(package.files)
    random.Random(package.name).shuffle(order)
    kept: list[SourceFile] = []
    room, room_for_declarations = cap, int(declarations * cap)
    for file in order:
        size = len(file.text.encode())
        declares = is_declaration(file.path)
        if size > (min(room, room_for_declarations) if declares else room):
            continue
        if not worth_learning(file.text) or duplicates.seen(file.text):
            continue
        duplicates.add(file.text)
        kept.append(file)
        room -= size
        room_for_declarations -= size * declares
    return kept


def collect(corpus: Corpus, cache: Path, selection: Selection = Selection(), npm_cache: Path | None = None) -> Manifest:
    """Fill the corpus folder and write its manifest. Held-out packages come first, so that no copy of their files
    can enter the training split from another package. Without `npm_cache` there is no JavaScript. Raises OSError when
    the folder cannot be written."""
    fetch_wheels([*selection.held_out, *selection.training, *selection.reserved], cache)
    duplicates = DuplicateFilter()
    wheels = {normalise(path.name.split("-")[0]): path for path in sorted(cache.glob("*.whl"))}
    _remember_reserved(selection, wheels, duplicates)
    gathered = _Gathered(corpus, duplicates, selection)
    jobs: list[tuple[str, Split]] = [(name, "held-out") for name in selection.held_out]
    jobs += [(name, "train") for name in selection.training if name not in selection.held_out]
    for name, split in tqdm(jobs, desc="reading packages", unit="package"):
        gathered.take(name, split, wheels)
    notes = () if npm_cache is None else _collect_npm(gathered, npm_cache)
    manifest = Manifest(
        tuple(gathered.entries), tuple(gathered.refused), tuple(sorted(selection.reserved)), tuple(notes)
    )
    corpus.write_manifest(manifest)
    return manifest


def _remember_reserved(selection: Selection, wheels: dict[str, Path], duplicates: DuplicateFilter) -> None:
    for name in selection.reserved:
        if normalise(name) in wheels:
            with zipfile.ZipFile(wheels[normalise(name)]) as wheel:
                for inner in wheel.namelist():
                    text = clean(wheel.read(inner)) if inner.endswith(".py") else None
                    if text:
                        duplicates.add(text)


def _collect_npm(gathered: _Gathered, cache: Path) -> tuple[str, ...]:
    """Take the npm packages, in a repeatable order that favours no letter, until their share of the text is full.
    Returns what the manifest should note."""
    selection = gathered.selection
    if npm_client() is None and not cache.exists():
        return ("There is no JavaScript or TypeScript: no npm client was found to fetch it with.",)
    fetch_tarballs([*selection.npm_held_out, *selection.npm_training], cache)
    python = sum(entry.bytes for entry in gathered.entries if entry.split == "train")
    room = int(python * selection.npm_share / (1.0 - selection.npm_share))
    for name in selection.npm_held_out:
        gathered.take_npm(name, "held-out", cache, selection.package_cap)
    names = [name for name in selection.npm_training if name not in selection.npm_held_out]
    random.Random("npm").shuffle(names)
    for name in tqdm(names, desc="reading npm packages", unit="package"):
        room -= gathered.take_npm(name, "train", cache, min(room, selection.npm_cap))
    return ()


class _Gathered:
    """What a collection has so far, and how one more package is judged."""

    def __init__(self, corpus: Corpus, duplicates: DuplicateFilter, selection: Selection) -> None:
        self.corpus, self.duplicates, self.selection = corpus, duplicates, selection
        self.entries: list[PackageEntry] = []
        self.refused: list[Refusal] = []

    def take(self, name: str, split: Split, wheels: dict[str, Path]) -> None:
        """Judge a Python package by name."""
        if is_reserved(name):
            self.refused.append(Refusal(name, "reserved for evaluation"))
        elif name == STDLIB:
            self._judge(read_stdlib(), split, self.selection.stdlib_cap)
        elif normalise(name) in wheels:
            self._judge(read_wheel(wheels[normalise(name)]), split, self.selection.package_cap)
        else:
            self.refused.append(Refusal(name, "no wheel to be had"))

    def take_npm(self, name: str, split: Split, cache: Path, cap: int) -> int:
        """Judge an npm package by name; returns the bytes that were kept."""
        path = tarball(name, cache)
        if path is None:
            self.refused.append(Refusal(PREFIX + name, "no tarball to be had"))
            return 0
        try:
            return self._judge(read_tarball(path), split, cap)
        except OSError as problem:
            self.refused.append(Refusal(PREFIX + name, str(problem)))
            return 0

    def _judge(self, package: Package, split: Split, cap: int) -> int:
        if not is_permissive(package.licence):
            self.refused.append(Refusal(package.name, f"licence: {package.licence or 'not stated'}"))
            return 0
        files = keep_files(package, self.duplicates, cap, self.selection.declarations)
        if not files:
            self.refused.append(
                Refusal(package.name, "no file worth learning from" if cap > 0 else "the share is full")
            )
            return 0
        self.corpus.write_package(package.name, files)
        size = sum(len(file.text.encode()) for file in files)
        licence = str(package.licence)
        entry = PackageEntry(package.name, package.version, licence, split, len(files), size, package.language)
        self.entries.append(entry)
        return size


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

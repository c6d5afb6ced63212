"""The collected source text and its manifest: value types, and how they lie on disk.

One gzipped file of JSON lines per package (`{"path", "text"}`), and one `manifest.json` that names every package
with version, licence and size. Knows nothing of where the text came from.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

#: The number of the present recipe; raised when what it reads or reserves changes, so that older manifests are told.
RECIPE = 2

Split = Literal["train", "held-out"]
Language = Literal["python", "javascript", "typescript"]


@dataclass(frozen=True)
class SourceFile:
    """One file of a package: its path as a person would see it in the project, and its text with ``\\n`` line ends."""

    path: str
    text: str


@dataclass(frozen=True)
class Package:
    """A package as it was fetched, before any judgement of its files."""

    name: str
    version: str
    licence: str | None
    files: tuple[SourceFile, ...]
    language: Language = "python"


@dataclass(frozen=True)
class PackageEntry:
    """One line of the manifest. `bytes` counts the UTF-8 text that was kept; `language` is that of most of it."""

    name: str
    version: str
    licence: str
    split: Split
    files: int
    bytes: int
    language: Language = "python"


@dataclass(frozen=True)
class Refusal:
    """A package that was asked for and is not in the corpus, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What the corpus consists of, what was left out of it, and what must never be in it."""

    packages: tuple[PackageEntry, ...]
    refused: tuple[Refusal, ...]
    reserved: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what could not be done as planned, in sentences
    recipe: int = RECIPE

    def names(self, split: Split) -> tuple[str, ...]:
        """The packages of one split, in the manifest's order."""
        return tuple(entry.name for entry in self.packages if entry.split == split)

    def bytes(self, split: Split, *languages: Language) -> int:
        """UTF-8 bytes of one split, of all languages or of those named."""
        chosen = [entry for entry in self.packages if not languages or entry.language in languages]
        return sum(entry.bytes for entry in chosen if entry.split == split)


class Corpus:
    """A folder of collected packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_package(self, name: str, files: Iterable[SourceFile]) -> None:
        """Write one package's files, replacing what was there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self._file(name)
        temporary = target.with_suffix(".tmp")
        with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=3) as out:
            for file in files:
                out.write(json.dumps(asdict(file), ensure_ascii=False) + "\n")
        temporary.replace(target)

    def read_package(self, name: str) -> Iterator[SourceFile]:
        """The files of one package. Raises FileNotFoundError when it was not collected."""
        with gzip.open(self._file(name), "rt", encoding="utf-8") as lines:
            for line in lines:
                yield SourceFile(**json.loads(line))

    def _file(self, name: str) -> Path:
        return self.folder / f"{quote(name, safe='')}.jsonl.gz"  # `npm:@a/b` holds what file systems refuse

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest; its presence says that the collection is complete."""
        write_manifest(manifest, self.manifest_path)

    def manifest(self) -> Manifest:
        """The manifest of a finished collection."""
        return read_manifest(self.manifest_path)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as indented JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_manifest(path: Path) -> Manifest:
    """Read what `write_manifest` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Manifest(
        packages=tuple(PackageEntry(**entry) for entry in raw["packages"]),
        refused=tuple(Refusal(**entry) for entry in raw["refused"]),
        reserved=tuple(raw["reserved"]),
        notes=tuple(raw.get("notes", ())),
        recipe=raw.get("recipe", 2 if "notes" in raw else 1),  # the first manifests had neither
    )

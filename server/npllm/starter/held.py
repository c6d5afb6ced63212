"""Packages that a model is judged on: fetched by name, cut down to the files that a person wrote.

A name is a Python package's, or `npm:NAME` for JavaScript and TypeScript. Knows which of them a manifest says were
read in training; licences do not matter here, since nothing is kept or passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from npllm.starter.collect import fetch_wheels, keep_files, read_wheel
from npllm.starter.corpus import Language, Manifest, Package, SourceFile
from npllm.starter.dedup import DuplicateFilter
from npllm.starter.npm import PREFIX, fetch_tarballs, npm_client, read_tarball, tarball
from npllm.starter.snippets import SnippetIndex
from npllm.starter.sources import HELD_OUT, NPM_HELD_OUT, normalise

_CAP = 450_000  # bytes of one package


@dataclass(frozen=True)
class Held:
    """A package's files and the snippets they offer one another."""

    name: str
    files: tuple[SourceFile, ...]
    index: SnippetIndex
    language: Language = "python"


def held_names(npm: Path) -> tuple[str, ...]:
    """The recipe's held-out packages; those of npm only where there is a client, or `npm` holds them already."""
    scripts = [name for name in NPM_HELD_OUT if npm_client() or tarball(name, npm)]
    return (*HELD_OUT, *(PREFIX + name for name in scripts))


def held_out(wheels: Path, npm: Path, names: Sequence[str] = ()) -> list[Held]:
    """The named packages (the recipe's own by default), fetched into the two caches when they are not there.

    Raises FileNotFoundError for one that cannot be had, or that holds no file which a person wrote."""
    wanted = list(names) or list(held_names(npm))
    fetch_wheels([name for name in wanted if not name.startswith(PREFIX)], wheels)
    fetch_tarballs([name.removeprefix(PREFIX) for name in wanted if name.startswith(PREFIX)], npm)
    return [_held(_read(name, wheels, npm)) for name in wanted]


def _read(name: str, wheels: Path, npm: Path) -> Package:
    if name.startswith(PREFIX):
        path = tarball(name.removeprefix(PREFIX), npm)
        if path is None:
            raise FileNotFoundError(f"no tarball of the npm package {name.removeprefix(PREFIX)} could be fetched")
        return read_tarball(path)
    found = sorted(path for path in wheels.glob("*.whl") if normalise(path.name.split("-")[0]) == normalise(name))
    if not found:
        raise FileNotFoundError(f"no wheel of the package {name} could be fetched")
    return read_wheel(found[-1], reserved_too=True)


def _held(package: Package) -> Held:
    files = tuple(keep_files(package, DuplicateFilter(), _CAP))
    if not files:
        raise FileNotFoundError(f"{package.name} holds no file that a person wrote, is readable, and parses")
    return Held(package.name, files, SnippetIndex(files, seed=0), package.language)


def read_in_training(manifest: Manifest, packages: Sequence[Held]) -> list[str]:
    """The packages that the manifest lists as training text: figures on these say nothing."""
    trained = set(manifest.names("train"))
    return [package.name for package in packages if package.name in trained]

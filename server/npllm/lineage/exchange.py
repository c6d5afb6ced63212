"""Out to a folder or a .tar.gz, and in again: plain PEFT, safetensors only, without private paths.

An export is read by `peft.PeftModel.from_pretrained` without npllm. What comes in is nobody's word: from an archive
only the three known files are read, by their names and never by where an entry wants to lie; everything is checked
before anything is stored. Does not touch the database.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any

from npllm.lineage.files import CONFIG
from npllm.models.manifest import MANIFEST, WEIGHTS, Manifest, read_manifest, sha256_file, write_manifest
from npllm.types import ModelError, NpllmError

ARCHIVES = (".tar.gz", ".tgz")
KNOWN = (CONFIG, WEIGHTS, MANIFEST)
HARMLESS = ("README.md", ".gitattributes", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
MOST_BYTES = 8 << 30  # of the weights
MOST_TEXT = 64 << 20  # of each of the other two
PROJECT = "project:"


class ExchangeError(NpllmError):
    """An adapter cannot be written out, or what should come in is not acceptable."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What came in, checked as far as that goes without the base: a folder, and its manifest where there is one."""

    folder: Path
    manifest: Manifest | None
    sha256: str


# -- out -------------------------------------------------------------------------------------------------------------


def write_out(source: Path, manifest: Manifest, target: Path) -> None:
    """Write a version to a new folder, or to a .tar.gz, whole or not at all.

    Raises:
        ExchangeError: the target is there already, or cannot be written.
    """
    archive = target.name.endswith(ARCHIVES)
    if target.exists() and (archive or not target.is_dir() or any(target.iterdir())):
        raise ExchangeError(f"{target} is there already. Give another name, or remove it first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".npllm-export-", dir=target.parent) as place:
            folder = Path(place) / "adapter"
            folder.mkdir()
            shutil.copyfile(source / WEIGHTS, folder / WEIGHTS)
            config = without_paths(json.loads((source / CONFIG).read_text(encoding="utf-8")))
            (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            write_manifest(folder, public(manifest))
            if archive:
                packed = Path(place) / "packed"
                with tarfile.open(packed, "w:gz") as stream:
                    for name in KNOWN:
                        stream.add(folder / name, name, filter=_anonymous)
                packed.replace(target)
            else:
                if target.exists():
                    target.rmdir()
                folder.rename(target)
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{target} cannot be written: {error}. Is there room, and the permission?") from error


def public(manifest: Manifest) -> Manifest:
    """A manifest without absolute paths: a project is named by its folder's last name alone."""
    data = dict(manifest.data)
    files = data.get("project_files", ())
    data["project_files"] = [[_last(str(project)), str(path)] for project, path in files]
    calibration = data.get("calibration")
    if isinstance(calibration, dict) and calibration.get("projects"):
        data["calibration"] = {**calibration, "projects": [_last(str(one)) for one in calibration["projects"]]}
    return replace(manifest, context=_public_context(manifest.context), data=data)


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A peft configuration in which a base that is a folder is named by its last name alone."""
    name = config.get("base_model_name_or_path")
    private = isinstance(name, str) and PurePath(name).is_absolute()
    return {**config, "base_model_name_or_path": _last(str(name)) if private else name}


def _public_context(context: str) -> str:
    return PROJECT + _last(context.removeprefix(PROJECT)) if context.startswith(PROJECT) else context


def _last(path: str) -> str:
    return PurePath(path).name or path


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


# -- in --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_in(source: Path) -> Iterator[Parcel]:
    """A folder's or archive's three files, copied to a place of their own and checked; gone when the block ends.

    Raises:
        ExchangeError, ModelError: what is wrong with it.
    """
    with tempfile.TemporaryDirectory(prefix="npllm-import-") as place:
        folder = Path(place)
        try:
            if source.is_dir():
                _from_folder(source, folder)
            elif source.is_file():
                _from_archive(source, folder)
            else:
                raise ExchangeError(f"{source} is not there. Give a PEFT folder or a .tar.gz of one.")
        except (OSError, tarfile.TarError, EOFError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise ExchangeError(f"{source} cannot be read ({said}). Give a PEFT folder or a .tar.gz of one.") from error
        yield _checked(source, folder)


def _from_folder(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        _acceptable(source, path.name)
        if path.name in KNOWN:
            if path.is_symlink() or not path.is_file():
                raise ExchangeError(f"{path} is no plain file, so it is not read.")
            with path.open("rb") as stream:
                _copy(stream, folder / path.name)


def _from_archive(source: Path, folder: Path) -> None:
    with tarfile.open(source, "r:gz") as archive:
        for entry in archive:
            path = PurePosixPath(entry.name)
            if path.is_absolute() or ".." in path.parts or "\\" in entry.name:
                raise ExchangeError(f"{source} wants to write outside of its folder ({entry.name}): it is refused.")
            if entry.isdir():
                continue
            if not entry.isreg():
                raise ExchangeError(f"{source} holds a link or a device ({entry.name}): it is refused.")
            _acceptable(source, path.name)
            if path.name in KNOWN:
                if len(path.parts) > 2 or (folder / path.name).exists():
                    raise ExchangeError(f"{source} holds more than one adapter ({entry.name}): import one at a time.")
                stream = archive.extractfile(entry)
                assert stream is not None
                _copy(stream, folder / path.name)


def _acceptable(source: Path, name: str) -> None:
    if name.lower().endswith(PICKLES):
        raise ExchangeError(
            f"{source} holds {name}, a pickle, which can run anything: it is refused. Save it as safetensors "
            "(`save_pretrained` does)."
        )
    if name not in KNOWN and name not in HARMLESS:
        raise ExchangeError(f"{source} holds {name}, which is no part of a plain adapter: it is refused. Take it out.")


def _copy(stream: IO[bytes], target: Path) -> None:
    most = MOST_BYTES if target.name == WEIGHTS else MOST_TEXT
    size = 0
    with target.open("wb") as out:
        while piece := stream.read(1 << 20):
            size += len(piece)
            if size > most:
                raise ExchangeError(f"{target.name} is larger than {most} bytes: it is refused.")
            out.write(piece)


def _checked(source: Path, folder: Path) -> Parcel:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ExchangeError(f"{source} has no {name}: it is no PEFT adapter.")
    digest = sha256_file(folder / WEIGHTS)
    if not (folder / MANIFEST).is_file():
        return Parcel(folder, None, digest)
    try:
        manifest = read_manifest(folder)
    except ModelError as error:
        raise ExchangeError(f"The manifest in {source} cannot be read: {str(error).splitlines()[0]}") from error
    if manifest.sha256 != digest:
        raise ExchangeError(f"The weights in {source} are not what its manifest says (sha256 differs): it is refused.")
    return Parcel(folder, manifest, digest)

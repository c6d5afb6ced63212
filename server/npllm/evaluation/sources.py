"""Where real history comes from: releases of a Python package, or revisions of a git repository.

Each becomes a `Tree` in memory, two of them a `Pair`. A wheel is a zip file (PyPA binary distribution format); it is
read, never installed, and no code in it runs. Knows nothing of lines or of the server.
"""

from __future__ import annotations

import io
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from npllm.types import NpllmError

LANGUAGES: Mapping[str, str] = {  # file name ending -> LSP language id
    ".py": "python",
    ".pyi": "python",
    ".js": "javascript",
    ".ts": "typescript",
    ".go": "go",
    ".rs": "rust",
    ".java": "java",
    ".c": "c",
    ".h": "c",
    ".cpp": "cpp",
}
MAX_FILE_BYTES = 400_000
MAX_TOTAL_BYTES = 400_000_000
_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+_-]*")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_NO_NETWORK = (
    "NewConnectionError",
    "ConnectTimeout",
    "name resolution",
    "ProxyError",
    "Network is unreachable",
)


class EvaluationError(NpllmError):
    """An evaluation cannot go on."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The source files of one release: path (with "/") -> text."""

    revision: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pair:
    """An older and a newer state of one project."""

    project: str
    old: Tree
    new: Tree


def package(name: str, old: str, new: str, cache: Path, *, endings: tuple[str, ...] = (".py",)) -> Pair:
    """Two releases of a package, downloaded as wheels by pip into `cache` (and found there the next time).

    Raises:
        EvaluationError: no such release, no wheel of it, or no network.
    """
    return Pair(name, *(release(name, version, cache, endings=endings) for version in (old, new)))


def release(name: str, version: str, cache: Path, *, endings: tuple[str, ...] = (".py",)) -> Tree:
    """One release of a package, as `package` gets it.

    Raises:
        EvaluationError: no such release, no wheel of it, or no network.
    """
    if not _NAME.fullmatch(name):
        raise EvaluationError(f"{name!r} is not the name of a package.")
    if not _VERSION.fullmatch(version):
        raise EvaluationError(f"{version!r} is not a version number, such as 1.2.0.")
    wheel = _cached(name, version, cache) or _download(name, version, cache)
    return Tree(version, read_zip(wheel.read_bytes(), endings, where=wheel.name))


def repository(folder: Path, old: str, new: str, *, endings: tuple[str, ...] = (".py",)) -> Pair:
    """Two revisions of a git repository (its work tree is not touched).

    Raises:
        EvaluationError: not a repository, or no such revision.
    """
    return Pair(folder.resolve().name, *(revision(folder, name, endings=endings) for name in (old, new)))


def revision(folder: Path, name: str, *, endings: tuple[str, ...] = (".py",)) -> Tree:
    """One revision of a git repository.

    Raises:
        EvaluationError: not a repository, or no such revision.
    """
    commit = commit_of(folder, name)
    content = git(folder, "archive", "--format=zip", commit, revision=name)
    return Tree(commit[:12], read_zip(content, endings, where=f"{folder} at {name}"))


def commit_of(folder: Path, name: str) -> str:
    """The full id of the commit that a revision names.

    Raises:
        EvaluationError: not a repository, or no such revision.
    """
    wanted = f"{name}^{{commit}}"
    found = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", wanted, revision=name)
    return found.decode().strip()


def read_zip(content: bytes, endings: tuple[str, ...], *, where: str) -> dict[str, str]:
    """The text files in a zip with one of the `endings`, by path.

    Links, files that are not UTF-8 and files over `MAX_FILE_BYTES` are left out.

    Raises:
        EvaluationError: not a zip file, too big, or a name that would lie outside the folder it is unpacked in.
    """
    files: dict[str, str] = {}
    total = 0
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                safe_path(member.filename, where)
                total += member.file_size
                if total > MAX_TOTAL_BYTES:
                    raise EvaluationError(f"{where} unpacks to more than {MAX_TOTAL_BYTES // 10**6} MB.")
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                if member.is_dir() or is_link or not member.filename.endswith(endings):
                    continue
                if member.file_size <= MAX_FILE_BYTES:
                    try:
                        files[member.filename] = archive.read(member).decode("utf-8")
                    except UnicodeDecodeError:
                        continue
    except zipfile.BadZipFile as error:
        raise EvaluationError(f"{where} is not a zip file ({error}). Remove it and try again.") from error
    return files


def safe_path(name: str, where: str) -> PurePosixPath:
    """`name` as a relative path that stays inside its folder.

    Raises:
        EvaluationError: it would not.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise EvaluationError(f"{where} has a file named {name!r}, which would lie outside its folder.")
    return path


def unpack(tree: Tree, folder: Path) -> None:
    """Write a tree's files below `folder`."""
    for name, text in tree.files.items():
        file = folder / safe_path(name, tree.revision)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8"))


def language_of(path: str) -> str:
    """The LSP language id of a path, "plaintext" if it is not known."""
    return LANGUAGES.get(PurePosixPath(path).suffix, "plaintext")


def _cached(name: str, version: str, cache: Path) -> Path | None:
    wanted = re.sub(r"[-_.]+", "-", name).lower()
    for wheel in sorted(cache.glob("*.whl")):
        parts = wheel.name.split("-")
        if re.sub(r"[-_.]+", "-", parts[0]).lower() == wanted and parts[1] == version:
            return wheel
    return None


def _download(name: str, version: str, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--ignore-requires-python", "--retries=2", "--timeout=20"]
        command += ["--dest", temporary, f"{name}=={version}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EvaluationError(f"{name} {version} could not be downloaded within 5 minutes.") from error
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise EvaluationError(_why(name, version, done.stderr))
        final = cache / wheels[0].name
        wheels[0].replace(final)
    return _cached(name, version, cache) or final


def _why(name: str, version: str, output: str) -> str:
    if "No module named pip" in output:
        return "This Python has no pip to download with: run `python -m ensurepip`."
    if any(sign in output for sign in _NO_NETWORK):
        return f"{name} {version} could not be downloaded: no network. Use --git with a repository you have."
    found = re.search(r"\(from versions: ([^)]*)\)", output)
    if found and found.group(1) not in ("", "none"):
        known = ", ".join(found.group(1).split(", ")[-12:])
        return f"{name} has no release {version} as a wheel for this Python. The latest: {known}."
    if found:
        return f"No package named {name} was found, or the network has no package index."
    last = output.strip().splitlines()[-1:] or ["no message"]
    return f"pip could not download {name} {version}: {last[0]}"


def git(folder: Path, *arguments: str, revision: str) -> bytes:
    """What a git command says.

    Args:
        revision: what it is about, for the message.

    Raises:
        EvaluationError: git is missing, or refuses.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise EvaluationError("git is not installed, and --git needs it.") from error
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip() or f"no revision named {revision}"
        raise EvaluationError(f"{folder}: {why}")
    return done.stdout

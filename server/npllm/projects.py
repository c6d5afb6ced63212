"""The files of a person's project, and their text, as the sleep and the memory read them.

Read are the files that git tracks (where no repository knows the folder: all but hidden folders and those of tools),
never a link, nothing large, nothing generated, nothing that is to be left alone (`ignoring`). Knows nothing of what
they are read for.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from npllm.ignoring import Matcher

log = logging.getLogger(__name__)

MOST_BYTES = 400_000  # larger files are data
LONGEST_LINE = 1000  # characters; longer ones are generated or packed
GIT_S = 20.0  # then git has no answer, and nothing of that repository is read
TOOLS = frozenset({"node_modules", "site-packages", "venv", "env", "__pycache__", "build", "dist", "target", "vendor"})
ENDINGS: dict[str, tuple[str, ...]] = {  # LSP language id -> names' endings
    "c": (".c", ".h"),
    "cpp": (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".h"),
    "csharp": (".cs",),
    "go": (".go",),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs"),
    "javascriptreact": (".jsx",),
    "kotlin": (".kt", ".kts"),
    "lua": (".lua",),
    "php": (".php",),
    "python": (".py", ".pyi"),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala",),
    "shellscript": (".sh",),
    "sql": (".sql",),
    "swift": (".swift",),
    "typescript": (".ts", ".mts", ".cts"),
    "typescriptreact": (".tsx",),
}
_BY_ENDING = {ending: language for language, endings in reversed(ENDINGS.items()) for ending in endings}  # .h is C


@dataclass(frozen=True, slots=True)
class Listing:
    """Files that were found, as paths relative to their project's folder, each once, in a fixed order.

    Attributes:
        whole: it is all of them; else git had no answer, a folder could not be read, or the time was up.
    """

    paths: list[str]
    whole: bool


def language(path: str) -> str | None:
    """The LSP language id that a file's name tells; None for what is none of `ENDINGS`."""
    return _BY_ENDING.get(PurePath(path).suffix)


def files(
    root: Path,
    endings: tuple[str, ...],
    look: Callable[[], None],
    until: float,
    ignore: Sequence[str] = (),
    *,
    untracked: bool = False,
) -> Listing:
    """A project's files; none if the folder is gone.

    Args:
        endings: of the names wanted, e.g. ".py".
        look: called now and then; what it raises ends the search.
        until: `time.monotonic()`; then the search for files ends, and what was found by then is listed.
        ignore: patterns of files that are left alone (`memory.ignore`), beside those that always are: see `ignoring`.
        untracked: also those that git does not track yet and does not ignore.
    """
    try:
        names, whole = _tracked(root, untracked), True
    except _NoAnswerError:
        return Listing([], whole=False)
    if names is None:
        names, whole = _walked(root, endings, look, until)
    leave, folder = Matcher(ignore, str(root)), str(root).rstrip(os.sep)
    found = []
    for name in sorted({name for name in names if name.endswith(endings) and _is_text(name)}):
        look()
        if not leave.ignores(f"{folder}{os.sep}{name}", link=False):
            found.append(name)
    return Listing(found, whole)


def _is_text(name: str) -> bool:
    """Whether a file's name can be written down; on Linux it may be any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _NoAnswerError(Exception):
    """Git cannot say what it tracks."""


def _tracked(root: Path, untracked: bool = False) -> list[str] | None:
    """What git tracks below a folder; None where no repository knows the folder: there is none, or it ignores it.

    Raises:
        _NoAnswerError: git failed, or took longer than `GIT_S`.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return None
    try:
        if _git(root, "check-ignore", "--quiet", ".").returncode == 0:
            return None
        also = ("--cached", "--others", "--exclude-standard") if untracked else ()
        done = _git(root, "ls-files", "-z", *also)
        done.check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("git cannot say which files of %s are tracked, so none is read: %s", root, error)
        raise _NoAnswerError from error
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        # Without the file system monitor: a repository's own settings could make it run a program.
        ["git", "-c", "core.fsmonitor=false", "-C", str(root), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIT_S,
        check=False,
        env=environment | {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"},
    )


def _walked(root: Path, endings: tuple[str, ...], look: Callable[[], None], until: float) -> tuple[list[str], bool]:
    """All files but those of hidden folders and of tools; of a repository below, what git tracks. And: is that all?"""
    found: list[str] = []
    unread: list[OSError] = []
    whole = True
    for folder, names, files in os.walk(root, onerror=unread.append):
        look()
        if time.monotonic() > until:
            return found, False
        here = Path(folder).relative_to(root)
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in TOOLS)
        for name in [name for name in names if (Path(folder) / name / ".git").exists()]:
            names.remove(name)
            try:
                found += ((here / name / path).as_posix() for path in _tracked(Path(folder) / name) or ())
            except _NoAnswerError:
                whole = False
        found += ((here / name).as_posix() for name in files if name.endswith(endings) and not name.startswith("."))
    return found, whole and all(isinstance(error, FileNotFoundError) for error in unread)


def text(root: Path, path: str, taken: Collection[str] = ()) -> str | None:
    """A source file's text with plain line ends; None for what is none, lies elsewhere by a link, or whose real path is
    among `taken`."""
    file = root / path
    real = os.path.realpath(file)
    try:
        if real in taken or file.is_symlink() or not Path(real).is_relative_to(os.path.realpath(root)):
            return None
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            return None
        found = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if "\0" in found or any(len(line) > LONGEST_LINE for line in found.split("\n")):
        return None
    return found

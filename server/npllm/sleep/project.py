"""The person's project as it lies on disk: passages of its files, which are learned beside the experiences.

What a person writes tomorrow leans on their whole project, of which a day's experiences show a few files. Read are the
files that git tracks (where there is no git: all but hidden folders and those of tools), in the context's language,
and of these none in which an experience of this sleep lies: the held-out ones must not be seen, the others are learned
already. A passage has the shape of an experience: text, a line to be written in it, text. Nothing is written to the
database; the passages of a sleep are kept beside its checkpoint, so that it can go on, and removed with it.
Knows no model.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from npllm.sleep.files import sync_folder
from npllm.sleep.interruption import look
from npllm.types import Experience

log = logging.getLogger(__name__)

PASSAGES = "passages.json"
MOST = 2000  # passages in a sleep
MOST_FILES = 20_000  # of a project that are looked at
MOST_BYTES = 400_000  # larger files are data
LONGEST_LINE = 1000  # characters; longer ones are generated or packed
PER_FILE = 12  # passages of one file in a sleep, so that no file rules
SHORTEST = 200  # characters of a passage
GIT_S = 20.0  # then the folder is walked
WALK_S = 20.0  # then what was found so far is all: somebody opened their whole home
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


@dataclass(frozen=True, slots=True)
class Passage:
    """`line` stood between `prefix` and `suffix` in a file; `path` is relative to the folder `project`."""

    project: str
    path: str
    prefix: str
    line: str
    suffix: str


def passages(
    language: str,
    experiences: Sequence[Experience],
    *,
    count: int,
    characters: int,
    seed: str,
    stop: threading.Event,
) -> tuple[Passage, ...]:
    """At most `count` passages (never more than `MOST`) of about `characters` each, from the experiences' projects.

    Args:
        language: LSP language id.
        seed: another one draws others.

    Raises:
        Interrupted: `stop` is set.
    """
    endings = ENDINGS.get(language, ())
    taken = {(item.place.project, item.place.path) for item in experiences}
    projects = sorted({item.place.project for item in experiences if item.place.project})
    if not endings or count <= 0:
        return ()
    chance = random.Random(seed)
    count = min(count, MOST)
    found = [
        (project, path)
        for project in projects
        for path in _files(Path(project), endings, stop)
        if (project, path) not in taken
    ]
    chance.shuffle(found)
    made: list[Passage] = []
    for project, path in found:
        look(stop)
        pieces = list(_pieces(_text(Path(project) / path), characters))
        chance.shuffle(pieces)
        made += [cut for piece in pieces[:PER_FILE] if (cut := _cut(project, path, piece, chance)) is not None]
        if len(made) >= count:
            break
    return tuple(made[:count])


def keep(folder: Path, chosen: Sequence[Passage]) -> None:
    """Write the passages of a sleep to its checkpoint's folder, whole or not at all, for this user alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / (PASSAGES + ".tmp")
    with open(temporary, "w", encoding="utf-8", opener=_private) as stream:
        json.dump([asdict(passage) for passage in chosen], stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / PASSAGES)
    sync_folder(folder)


def kept(folder: Path) -> tuple[Passage, ...] | None:
    """What `keep` wrote; None where it cannot be read."""
    try:
        return tuple(Passage(**item) for item in json.loads((folder / PASSAGES).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("the passages in %s are of no use: %s", folder, error)
        return None


def _files(root: Path, endings: tuple[str, ...], stop: threading.Event) -> list[str]:
    """Paths relative to a project's folder, in a fixed order; none if the folder is gone."""
    tracked = [path for path in _tracked(root) if path.endswith(endings)]
    return sorted(tracked or _walked(root, endings, stop))[:MOST_FILES]


def _tracked(root: Path) -> list[str]:
    """What git tracks below a folder; nothing where there is no git, or none of it is tracked."""
    try:
        done = subprocess.run(
            # Without the file system monitor: a repository's own settings could make it run a program.
            ["git", "-c", "core.fsmonitor=false", "-C", str(root), "ls-files", "-z"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_S,
            check=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _walked(root: Path, endings: tuple[str, ...], stop: threading.Event) -> Iterable[str]:
    found = 0
    until = time.monotonic() + WALK_S
    for folder, names, files in os.walk(root):
        look(stop)
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in TOOLS)
        for name in sorted(files):
            if name.endswith(endings) and not name.startswith("."):
                found += 1
                yield (Path(folder) / name).relative_to(root).as_posix()
        if found >= MOST_FILES or time.monotonic() > until:
            return


def _text(file: Path) -> str:
    """A source file's text with plain line ends; empty for what is none, or is a link to elsewhere."""
    try:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > MOST_BYTES:
            return ""
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    if "\0" in text or any(len(line) > LONGEST_LINE for line in text.split("\n")):
        return ""
    return text


def _pieces(text: str, characters: int) -> Iterator[str]:
    """A text in pieces of whole lines."""
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        size += len(line)
        if size >= characters:
            yield "".join(piece)
            piece, size = [], 0
    if size >= SHORTEST:
        yield "".join(piece)


def _cut(project: str, path: str, piece: str, chance: random.Random) -> Passage | None:
    """A passage around one line of the last third of a piece; None where nothing stands in it."""
    lines = piece.split("\n")
    worth = [number for number in range(2 * len(lines) // 3, len(lines)) if len(lines[number].strip()) > 2]
    if not worth:
        return None
    number = chance.choice(worth)
    line = lines[number]
    indent = line[: len(line) - len(line.lstrip())]
    prefix = "\n".join([*lines[:number], indent])
    suffix = "\n".join(["", *lines[number + 1 :]])
    return Passage(project, PurePosixPath(path).as_posix(), prefix, line[len(indent) :].rstrip(), suffix)


def files_of(chosen: Collection[Passage]) -> list[list[str]]:
    """The files that passages come from, as [project, path], for the manifest."""
    return [list(pair) for pair in sorted({(passage.project, passage.path) for passage in chosen})]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

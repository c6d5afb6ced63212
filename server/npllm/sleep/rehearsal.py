"""General code that is rehearsed while one person's is learned, so that the one does not displace the other.

Passages of the running Python's standard library, in the shape of a project's (`project.Passage`), others in each
sleep. They are of its packages alone (`asyncio`, `email`): the modules at the top, by which the gate judges
(`general`), are never read, and no passage holds one of the lines judged below the line that stands above it there, as
copies of a module do. Nor does one hold what this or an earlier sleep held out. There is such code for Python alone.
How it is rehearsed, as examples or by `distillation`, is the trainer's matter. Knows no model.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import sysconfig
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from npllm import projects
from npllm.ignoring import Matcher
from npllm.memory.places import covered, paths_of
from npllm.sleep.general import general
from npllm.sleep.interruption import look
from npllm.sleep.project import MOST, Passage, cut, needle, pieces, real_paths
from npllm.types import Experience

log = logging.getLogger(__name__)

LANGUAGE = "python"  # the only one of which this machine has general code for sure
KEPT = "general.json"  # in a sleep's checkpoint
PER_FILE = 6  # passages of one file in a sleep
TABLES = frozenset({"test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"})  # no code that one writes


def passages(
    language: str,
    experiences: Sequence[Experience] = (),
    *,
    held_out: Sequence[Experience] = (),
    off_limits: Collection[str] = (),
    ignore: Sequence[str] = (),
    count: int,
    characters: int,
    seed: str,
    stop: threading.Event,
    root: Path | None = None,
) -> tuple[Passage, ...]:
    """At most `count` passages (never more than `project.MOST`) of about `characters` each; none but for Python.

    Args:
        language: LSP language id.
        experiences: of this sleep; files in which they lie are never read.
        held_out: texts, of this and of earlier sleeps, that the gate judges by.
        off_limits: files and folders that are never read.
        ignore: patterns of files that are never read, beside those that never are; see `npllm.ignoring`.
        seed: another one draws others.
        root: the folder to read instead of the standard library's.

    Raises:
        Interrupted: `stop` is set.
    """
    if language != LANGUAGE or count <= 0:
        return ()
    root = root or Path(sysconfig.get_path("stdlib"))
    needles = {_judged(passage) for passage in general(LANGUAGE, root)[0]}
    needles |= {one for item in held_out if (one := needle(item))}
    taken = {path for item in experiences for path in real_paths(item)}
    chance = random.Random(seed)
    files = sorted(_files(root, stop), key=lambda path: hashlib.sha256(f"{seed}|{path}".encode()).digest())
    leave = Matcher(ignore, str(root))
    made: list[Passage] = []
    for path in files:
        look(stop)
        if len(made) >= min(count, MOST):
            break
        barred = off_limits and covered(paths_of(str(root), path, ""), off_limits)
        if barred or leave.ignores(str(root / path)):
            continue
        text = projects.text(root, path, taken) or ""
        found = [piece for piece in pieces(text, characters) if not any(one in piece for one in needles)]
        chance.shuffle(found)
        made += [it for piece in found[:PER_FILE] if (it := cut(str(root), path, piece, chance)) is not None]
    made = made[: min(count, MOST)]
    chance.shuffle(made)  # so that the first ones are of many files, where the time is short
    log.info("%d passages of general code from %d files in %s", len(made), len({one.path for one in made}), root)
    return tuple(made)


def beside(count: int, share: float) -> int:
    """How many passages make up `share` of what is learned, beside `count` others."""
    return round(count * share / (1 - share))


def between(others: Sequence[Passage], general_code: Sequence[Passage]) -> tuple[Passage, ...]:
    """Both in one row, evenly, each in its order: what is left out at its end is of both in their proportion."""
    total = len(others) + len(general_code)
    places = {(2 * number + 1) * total // (2 * len(general_code)) for number in range(len(general_code))}
    first, second = iter(others), iter(general_code)
    return tuple(next(second) if place in places else next(first) for place in range(total))


def _judged(passage: Passage) -> str:
    """A line that the gate judges by, and the one above it, as they stand in their file."""
    above, _, indent = passage.prefix.rpartition("\n")
    return above.rpartition("\n")[2] + "\n" + indent + passage.line


def _files(root: Path, stop: threading.Event) -> Iterator[str]:
    """The packages' files, relative to the standard library's folder; what is installed beside it is no package."""
    for package in sorted(root.iterdir()) if root.is_dir() else ():
        if package.name in TABLES or not (package / "__init__.py").is_file():
            continue
        for folder, names, files in os.walk(package):
            look(stop)
            names[:] = sorted(name for name in names if name not in TABLES)
            here = Path(folder).relative_to(root)
            yield from ((here / name).as_posix() for name in files if name.endswith(".py"))

"""The person's project as it lies on disk: passages of its files, which are learned beside the experiences.

What a person writes tomorrow leans on their whole project, of which a day's experiences show a few files. Read are the
files that git tracks (where no repository knows the folder: all but hidden folders and those of tools), in the
context's language, by their real paths: first those in which no experience of this sleep lies, then, where these do not
suffice (of a small project all are soon opened), those in which nothing of this sleep is held out. Never those in which
something is, or a disliked suggestion was left, nor one that holds a held-out line together with the line above it: the
gate's texts must not be seen. Of files that hold what an earlier sleep held out, the pieces around it are left out. A
passage has the shape of an experience: text, a line to be written in it, text. Nothing is written to the database; the
passages of a sleep are kept beside its checkpoint, so that it can go on, and removed with it. Knows no model.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from npllm import projects
from npllm.memory.places import covered, paths_of
from npllm.memory.redaction import redact
from npllm.sleep.dataset import teaches
from npllm.sleep.files import sync_folder
from npllm.sleep.interruption import look
from npllm.types import Experience

log = logging.getLogger(__name__)

PASSAGES = "passages.json"
MOST = 2000  # passages in a sleep
MOST_FILES = 20_000  # of a project that are looked at
PER_FILE = 12  # passages of one file in a sleep, so that no file rules
SHORTEST = 200  # characters of a passage
ALL_S = 60.0  # for finding and reading, then what was found is all: somebody opened their whole home
SHORTEST_LINE = 10  # characters of what was held out of the very file; less stands everywhere
TELLING = 30  # characters of a held-out line and the one above it; fewer stand everywhere


@dataclass(frozen=True, slots=True)
class Passage:
    """`line` stood between `prefix` and `suffix` in a file; `path` is relative to the folder `project`."""

    project: str
    path: str
    prefix: str
    line: str
    suffix: str
    language: str = ""  # that it was looked for in


def passages(
    language: str,
    experiences: Sequence[Experience],
    *,
    held_out: Sequence[Experience] = (),
    off_limits: Collection[str] = (),
    apart: Sequence[Experience] = (),
    ignore: Sequence[str] = (),
    count: int,
    characters: int,
    seed: str,
    stop: threading.Event,
) -> tuple[Passage, ...]:
    """At most `count` passages (never more than `MOST`) of about `characters` each, from the experiences' projects.

    Args:
        language: LSP language id.
        held_out: those of the experiences that decide something; their files are not read.
        off_limits: files and folders that are never read.
        apart: what earlier sleeps held out.
        ignore: patterns of files that are never read, beside those that never are.
        seed: another one draws others.

    Raises:
        Interrupted: `stop` is set.
    """
    endings = projects.ENDINGS.get(language, ())
    folders = sorted({item.place.project for item in experiences if item.place.project})
    if not endings or count <= 0:
        return ()
    chance = random.Random(seed)
    until = time.monotonic() + ALL_S
    needles = [one for item in held_out if (one := needle(item))]
    kept_apart = [one for item in apart if (one := needle(item))]
    every: list[tuple[str, str]] = []
    for project in folders:
        files = projects.files(Path(project), endings, lambda: look(stop), until, ignore).paths
        every += [(project, path) for path in chance.sample(files, min(len(files), MOST_FILES))]
    chance.shuffle(every)
    count = min(count, MOST)
    barred = {
        path for item in (*held_out, *(one for one in experiences if not teaches(one))) for path in real_paths(item)
    }
    opened = {path for item in experiences for path in real_paths(item)}
    stood: dict[str, set[str]] = {}  # what earlier sleeps held out, by its file
    for item in apart:
        if len(line := _line(item).strip()) >= SHORTEST_LINE:
            for path in real_paths(item):
                stood.setdefault(path, set()).add(line)
    made: list[Passage] = []
    read: set[str] = set()
    for (project, path), avoided in (*((it, opened | barred) for it in every), *((it, barred) for it in every)):
        look(stop)
        if len(made) >= count or time.monotonic() > until:
            break
        if off_limits and covered(paths_of(project, path, ""), off_limits):
            continue
        real = os.path.realpath(Path(project) / path)
        text = "" if real in read else redact(projects.text(Path(project), path, avoided) or "", language)
        if not text or any(one in text for one in needles):
            continue
        read.add(real)
        lines = {one.rpartition("\n")[2].strip() for one in kept_apart if one in text}
        lines |= stood.get(real, set())
        found = [piece for piece in pieces(text, characters) if not any(line in piece for line in lines)]
        chance.shuffle(found)
        cuts = (cut(project, path, piece, chance) for piece in found[:PER_FILE])
        made += [replace(it, language=language) for it in cuts if it is not None]
    log.info("%d passages from %d files in %s", min(len(made), count), len(every), ", ".join(folders) or "no project")
    return tuple(made[:count])


def keep(folder: Path, chosen: Sequence[Passage], name: str = PASSAGES) -> None:
    """Write the passages of a sleep to its checkpoint's folder, whole or not at all, for this user alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = folder / (name + ".tmp")
    with open(temporary, "w", encoding="utf-8", opener=_private) as stream:
        json.dump([asdict(passage) for passage in chosen], stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / name)
    sync_folder(folder)


def kept(folder: Path, name: str = PASSAGES) -> tuple[Passage, ...] | None:
    """What `keep` wrote; None where it cannot be read."""
    try:
        return tuple(Passage(**item) for item in json.loads((folder / name).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("the passages in %s are of no use: %s", folder, error)
        return None


def real_paths(experience: Experience) -> set[str]:
    """Where an experience's file lies, links followed: by its URI, and by its project's folder."""
    place = experience.place
    paths = {os.path.realpath(url2pathname(urlsplit(place.uri).path))}
    if place.project:
        paths.add(os.path.realpath(Path(place.project) / place.path))
    return paths


def needle(experience: Experience) -> str:
    """What would give a held-out text away: its line and the one above; "" if that stands everywhere."""
    above = experience.prefix.replace("\r\n", "\n").rpartition("\n")[0].rpartition("\n")[2]
    line = _line(experience)
    return f"{above}\n{line}" if len(above.strip()) + len(line.strip()) >= TELLING else ""


def set_aside(
    passages: Sequence[Passage], learned: Sequence[Experience], one_in: int
) -> tuple[tuple[Passage, ...], tuple[Passage, ...]]:
    """One passage in so many, in each sleep the same while its file stays as it is, but none whose line stands in or
    around an experience of its file that is learned; and all others.

    A line of less than `TELLING` characters, which stands everywhere, counts together with the one above it.
    """
    texts: dict[str, list[str]] = {}
    for item in learned:
        text = (item.prefix + item.final_text + item.suffix).replace("\r\n", "\n")
        for path in real_paths(item):
            texts.setdefault(path, []).append(text)
    aside: list[Passage] = []
    others: list[Passage] = []
    for one in passages:
        line = one.line if len(one.line) >= TELLING else "\n".join(one.prefix.split("\n")[-2:]) + one.line
        drawn = zlib.crc32("\n".join((one.path, one.prefix + one.line + one.suffix)).encode()) % one_in == 0
        seen = any(line in text for text in texts.get(os.path.realpath(Path(one.project) / one.path), ()))
        (aside if drawn and not seen else others).append(one)
    return tuple(aside), tuple(others)


def _line(experience: Experience) -> str:
    """The line that was written, whole, without white space at its end."""
    begun = experience.prefix.replace("\r\n", "\n").rpartition("\n")[2]
    return begun + experience.final_text.replace("\r\n", "\n").split("\n")[0].rstrip()


def pieces(text: str, characters: int) -> Iterator[str]:
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


def cut(project: str, path: str, piece: str, chance: random.Random) -> Passage | None:
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

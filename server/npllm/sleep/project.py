"""The person's project as it lies on disk: passages of its files, which are learned beside the experiences.

What a person writes tomorrow leans on their whole project, of which a day's experiences show a few files. Read are the
files that git tracks (where no repository knows the folder: all but hidden folders and those of tools), in the
context's language. First those in which no experience of this sleep lies, by their real paths, unless they hold a
held-out line together with the line above it: the gate's texts must not be seen. Where these do not suffice (of a small
project all are soon opened), those from which something is learned, without the pieces in which a held-out line stands;
never a file from which nothing is learned, since all is held out. Of files that hold what an earlier sleep held out,
the pieces around it are left out. A passage has the shape of an experience: text, a line to be written in it, text.
Nothing is written to the database; the passages of a sleep are kept beside its checkpoint, so that it can go on, and
removed with it. Knows no model.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from npllm import projects
from npllm.memory.places import covered, paths_of
from npllm.memory.redaction import redact
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
TELLING = 30  # characters of a held-out line and the one above it; fewer stand everywhere


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
        held_out: those of the experiences that the gate judges by.
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
    judged = {item.id for item in held_out}
    opened = {path for item in experiences for path in real_paths(item)}
    unlearned = opened - {path for item in experiences if item.id not in judged for path in real_paths(item)}
    hidden = {line for item in held_out if (line := _line(item).strip())}
    made: list[Passage] = []
    others = [(*file, False) for file in every]
    among = [(*file, True) for file in every]  # the files in which experiences lie
    for project, path, written_in in (*others, *among):
        look(stop)
        if len(made) >= count or time.monotonic() > until:
            break
        if off_limits and covered(paths_of(project, path, ""), off_limits):
            continue
        if written_in and os.path.realpath(Path(project) / path) not in opened:
            continue
        avoided = unlearned if written_in else opened
        text = redact(projects.text(Path(project), path, avoided) or "", language)
        if not written_in and any(one in text for one in needles):
            continue
        lines = {one.rpartition("\n")[2].strip() for one in kept_apart if one in text}
        found = [piece for piece in pieces(text, characters) if not any(line in piece for line in lines)]
        if written_in:
            found = [piece for piece in found if hidden.isdisjoint(map(str.strip, piece.split("\n")))]
        chance.shuffle(found)
        made += [it for piece in found[:PER_FILE] if (it := cut(project, path, piece, chance)) is not None]
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
    """One passage in so many, but none whose line (below the same one) stands in or around an experience of its file
    that is learned; and all others."""
    texts: dict[tuple[str, str], list[str]] = {}
    for item in learned:
        text = (item.prefix + item.final_text + item.suffix).replace("\r\n", "\n")
        texts.setdefault((item.place.project, item.place.path), []).append(text)
    aside: list[Passage] = []
    others: list[Passage] = []
    for number, one in enumerate(passages):
        line = "\n".join(one.prefix.split("\n")[-2:]) + one.line
        seen = any(line in text for text in texts.get((one.project, one.path), ()))
        (others if number % one_in or seen else aside).append(one)
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

"""The person's project as it lies on disk: passages of its files, which are learned beside the experiences.

What a person writes tomorrow leans on their whole project, of which a day's experiences show a few files. Read are the
files that git tracks (where no repository knows the folder: all but hidden folders and those of tools), in the
context's language, by their real paths. First those in which no experience of this sleep lies, unless they hold a
held-out line together with the line above it: the gate's texts must not be seen. Where these do not suffice (of a small
project all are soon opened), and only if that is wanted, those from which something is learned, without the pieces in
which a held-out line or a telling neighbour of one stands (of a file the latest lines are held out, so that what is
left is older); never a file of which all is held out, nor one in which a disliked suggestion was left. Of files that
hold what an earlier sleep held out, the pieces around it are left out. A passage has the shape of an experience: text,
a line to be written in it, text. Nothing is written to the database; the passages of a sleep are kept beside its
checkpoint, so that it can go on, and removed with it. Knows no model.
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
SHORTEST_SIGN = 10  # characters of a held-out line in its own file; less stands everywhere
SHORTEST_NEIGHBOUR = 20  # characters of the line above or below
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
    learned: Sequence[Experience] = (),
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
        learned: those of the experiences whose files may be read, too; `held_out`: those that decide something.
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
    every: list[tuple[str, str]] = []
    for project in folders:
        files = projects.files(Path(project), endings, lambda: look(stop), until, ignore).paths
        every += [(project, path) for path in chance.sample(files, min(len(files), MOST_FILES))]
    chance.shuffle(every)
    count = min(count, MOST)
    opened = {path for item in experiences for path in real_paths(item)}
    taught = {path for item in learned for path in real_paths(item)}
    disliked = {path for item in experiences if not teaches(item) for path in real_paths(item)}
    barred = (opened - taught) | disliked
    kept_apart = [one for item in apart if (one := needle(item))]
    hidden: dict[str, set[str]] = {}  # what gives away the held-out texts of a file, by its real path
    for item in (*held_out, *apart):
        for path in real_paths(item):
            hidden.setdefault(path, set()).update(_signs(item))
    made: list[Passage] = []
    read: set[str] = set()
    for (project, path), avoided in (*((it, opened) for it in every), *((it, barred) for it in every)):
        look(stop)
        if len(made) >= count or time.monotonic() > until:
            break
        if off_limits and covered(paths_of(project, path, ""), off_limits):
            continue
        real = os.path.realpath(Path(project) / path)
        if real in read or (avoided is barred and real not in opened):
            continue
        text = redact(projects.text(Path(project), path, avoided) or "", language)
        if not text or (avoided is opened and any(one in text for one in needles)):
            continue
        read.add(real)
        signs = {one.rpartition("\n")[2].strip() for one in (*kept_apart, *needles) if one in text}
        signs |= hidden.get(real, set())
        found = [piece for piece in pieces(text, characters) if not any(sign in piece for sign in signs)]
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


def _signs(experience: Experience) -> set[str]:
    """What tells, in its own file, where an experience's text stands: its lines, also if it has changed since its
    neighbours."""
    above, below = (side.replace("\r\n", "\n") for side in (experience.prefix, experience.suffix))
    before, _, begun = above.rpartition("\n")
    rest, _, after = below.partition("\n")
    own = (begun + experience.final_text.replace("\r\n", "\n") + rest).split("\n")
    first = next((line.strip() for line in reversed(before.split("\n")) if line.strip()), "")
    last = next((line.strip() for line in after.split("\n") if line.strip()), "")
    signs = {line for one in own if len(line := one.strip()) >= SHORTEST_SIGN}
    if len(own[0].strip()) < SHORTEST_SIGN and first:
        signs.add((before.split("\n")[-1] + "\n" + own[0]).rstrip())
    return signs | {line for line in (first, last) if len(line) >= SHORTEST_NEIGHBOUR}


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

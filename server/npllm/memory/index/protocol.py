"""What the server and its indexing process say to one another: a line of JSON each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted from now on.

    Attributes:
        projects: folders whose index is to be kept.
        embed: also make embeddings.
        ignore: `memory.ignore`.
        keep: `memory.keep_chunks`.
        embedder: `memory.embedder`; taken when the one before is no longer in use, or cannot be loaded.
        number: of this word; everything is looked at again for each, and what is said of it comes back with it.
    """

    projects: tuple[str, ...]
    embed: bool
    ignore: tuple[str, ...] = ()
    number: int = 0
    keep: int = 0
    embedder: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """How it stands.

    Attributes:
        number: the newest word that everything known of when it came is done for.
        problem: a sentence; "" = none.
    """

    number: int
    files: int = 0
    read: int = 0
    embedded: int = 0
    problem: str = ""


def encode(message: Wanted | Said) -> bytes:
    return json.dumps(dataclasses.asdict(message)).encode() + b"\n"


def wanted(line: bytes) -> Wanted:
    given: Mapping[str, Any] = json.loads(line)
    return Wanted(**{**given, "projects": tuple(given["projects"]), "ignore": tuple(given["ignore"])})


def said(line: bytes) -> Said:
    return Said(**json.loads(line))

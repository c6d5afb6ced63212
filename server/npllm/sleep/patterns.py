"""Patterns: lines that the person writes again and again, and how much more they count in the cerebellum's learning.

A pattern is the first line that was written, with white space folded, in its language. What is frequent is written
often and so is learned often by itself; beyond that it counts 1 + ln n, n times seen. Pure: no database, no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from npllm.sleep.dataset import weight
from npllm.sleep.project import Passage
from npllm.types import Experience, Pattern

SHORTEST = 4  # characters; less is no pattern
MOST = 500  # patterns that are written down
Key = tuple[str, str]  # language, folded text


@dataclass(slots=True)
class Seen:
    """How often a pattern was seen, and where the person wrote it last."""

    count: int = 0
    last: Experience | None = None


def key(language: str, text: str) -> Key:
    """What counts as one pattern."""
    lines = text.strip("\r\n").splitlines()
    return language, " ".join(lines[0].split()) if lines else ""


def count(experiences: Iterable[Experience], passages: Sequence[Passage]) -> dict[Key, Seen]:
    """How often each was written by the person (`experiences` are in order of time), and stands in the project."""
    seen: dict[Key, Seen] = {}
    for item in experiences:
        found = seen.setdefault(key(item.place.language, item.final_text), Seen())
        found.count += 1
        found.last = item
    for passage in passages:
        seen.setdefault(key(passage.language, passage.line), Seen()).count += 1
    return {name: found for name, found in seen.items() if len(name[1]) >= SHORTEST}


def weight_of(experience: Experience, seen: dict[Key, Seen]) -> float:
    """How much an experience counts: by its relevance, and by how frequent its pattern is."""
    found = seen.get(key(experience.place.language, experience.final_text))
    return weight(experience) * (1.0 + math.log(found.count) if found is not None else 1.0)


def frequent(seen: dict[Key, Seen]) -> list[tuple[Pattern, Experience]]:
    """The patterns that were seen twice or more and that the person wrote, most frequent first, and where."""
    found = [
        (Pattern(name[0], name[1], one.count, _when(one.last)), one.last)
        for name, one in seen.items()
        if one.count >= 2 and one.last is not None
    ]
    return sorted(found, key=lambda pair: (-pair[0].count, pair[0].text))[:MOST]


def _when(experience: Experience) -> datetime:
    return experience.created_at

"""What a sleep learns from: new experiences mixed with old ones, and what is kept apart to judge by.

Held out are texts that the adapter must not have seen: half of them in files from which nothing is learned, half the
latest of each other file, so that nothing new that is learned was written later in the same file, and no file speaks
for all. (What is replayed may be later than what an earlier sleep had no time for: where it shows a held-out line, that
is no target, see `apart`.) What an earlier sleep held out stays apart, and so does whatever nearly equals it. The old
ones come as the database drew them (`replay`). Pure: no database, no model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from npllm.config import SleepConfig
from npllm.memory.replay import Drawn
from npllm.sleep import replay
from npllm.sleep.duplicates import NearlySame
from npllm.types import Decision, Experience, OutcomeKind

INNER_SHARE = 0.1  # of the new: the inner validation part
MIN_INNER = 4  # fewer say nothing: then there is no inner part
WORTH_A_WORD = 8  # characters; a shorter avoided text inside another one ("x" in "max") is not the same thing
UNWANTED = (OutcomeKind.REJECTED, OutcomeKind.DISMISSED, OutcomeKind.DELETED)


@dataclass(frozen=True, slots=True)
class Part:
    """The experiences of one sleep and context, by what they are for.

    Attributes:
        importance: the importance weight of each old one, by id; their mean is 1.
        negatives: those that have no text to learn, but a suggestion that was unwanted.
    """

    learn: tuple[Experience, ...]  # the new ones
    replay: tuple[Experience, ...]  # the old ones
    inner: tuple[Experience, ...]  # new ones that decide when to stop
    held_out: tuple[Experience, ...]  # new ones that the gate judges by
    negatives: tuple[Experience, ...] = ()
    importance: Mapping[UUID, float] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Experience, ...]:
        return (*self.learn, *self.replay, *self.inner, *self.held_out, *self.negatives)


def old_wanted(new: int, config: SleepConfig) -> int:
    """How many old experiences are learned beside so many new ones."""
    share = max(config.new_share, 0.01)
    return 0 if config.replay == "off" else round(new * (1 - share) / share)


def divide(
    new: Iterable[Experience],
    old: Sequence[Drawn],
    config: SleepConfig,
    *,
    seed: str,
    apart: Iterable[Experience] = (),
    versions: int = 0,
    left: Collection[UUID] = (),
) -> Part | int:
    """Divide a context's experiences, or say how many new ones are wanted for that.

    Args:
        old: in the order in which they were drawn.
        seed: another one holds out other files.
        apart: what earlier sleeps held out.
        versions: how many the context has had on this base; see `replay.beta`.
        left: ids of new ones that an earlier sleep had no time for: of them it held out its part.
    """
    found = list(new)
    pool = _without_near_copies(distinct(item for item in found if teaches(item)), NearlySame(apart))
    wanted = 2 * config.min_holdout
    if len(pool) < wanted:
        return wanted
    fresh = sum(item.id not in left for item in pool)
    want = max(config.min_holdout, min(round(config.holdout_share * fresh), config.max_holdout))
    held_out, rest = _keep_apart(pool, min(want, len(pool) // 2), seed)
    inner: list[Experience] = []
    want = round(INNER_SHARE * len(pool))
    if want >= MIN_INNER and config.epochs > 1:  # a single pass ends where its rate does
        inner, rest = _keep_apart(rest, want, seed + "inner")
    known = {item.id for item in pool}
    whole = {file_of(item) for item in held_out} - {file_of(item) for item in rest}
    near = NearlySame([*apart, *pool])

    def refused(item: Experience) -> bool:
        if item.id in known or file_of(item) in whole or not teaches(item) or near.seen(item):
            return True
        near.add(item)
        return False

    chosen, importance = replay.choose(
        old, old_wanted(len(rest), config), exponent=replay.beta(versions), refused=refused
    )
    if config.replay == "uniform":
        importance = {}  # nothing to undo
    held = {item.id for item in (*held_out, *inner)}
    negatives = [item for item in (*found, *(one.experience for one in old)) if item.id not in held and _unwanted(item)]
    return Part(
        tuple(rest),
        tuple(sorted(chosen, key=_time)),
        tuple(inner),
        tuple(held_out),
        tuple(negatives[: len(rest)]),
        importance,
    )


def teaches(experience: Experience) -> bool:
    """Whether what the person ended up with can be learned: there is some, and it is not what they want never again.

    An avoided suggestion's text is never a positive example, also where it was left standing.
    """
    final = _plain(experience.final_text)
    if not final:
        return False
    unwanted = _plain(experience.suggested)
    if experience.decision is not Decision.AVOID or not unwanted:
        return True
    return not (final.startswith(unwanted) or (len(unwanted) >= WORTH_A_WORD and unwanted in final))


def weight(experience: Experience) -> float:
    """How much an experience counts: 0.75 to 1.25 by its relevance. The reward weighs, it never decides."""
    return 0.75 + 0.5 * min(1.0, max(0.0, experience.relevance))


def distinct(experiences: Iterable[Experience]) -> list[Experience]:
    """In order of time, without earlier copies of the same text at the same line of the same file."""
    latest: dict[tuple[str, str, str], Experience] = {}
    for item in sorted(experiences, key=_time):
        key = _text_at(item)
        latest.pop(key, None)
        latest[key] = item
    return list(latest.values())


def _text_at(item: Experience) -> tuple[str, str, str]:
    """What was written where: file, some of the text above, and the line."""
    line = item.prefix.rpartition("\n")[2] + item.final_text
    above = item.prefix[-200 - len(line) :].rpartition("\n")[0]
    return file_of(item), above, line.rstrip()


def file_of(experience: Experience) -> str:
    """What counts as one file."""
    return f"{experience.place.project}\0{experience.place.path}"


def _keep_apart(pool: Sequence[Experience], want: int, seed: str) -> tuple[list[Experience], list[Experience]]:
    """About `want` experiences apart from the rest: half whole files by a seeded hash, then the latest of each file."""
    sizes = Counter(file_of(item) for item in pool)
    apart: set[str] = set()
    count = 0
    for file in sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).digest()):
        fits = count + sizes[file] / 2 <= want / 2 and count + sizes[file] <= want
        if fits and len(apart) < len(sizes) - 1:
            apart.add(file)
            count += sizes[file]
    kept = [item for item in pool if file_of(item) in apart]
    rest = [item for item in pool if file_of(item) not in apart]
    late = _latest_of_each(rest, want - len(kept), seed)
    return kept + [item for item in rest if item.id in late], [item for item in rest if item.id not in late]


def _latest_of_each(pool: Sequence[Experience], want: int, seed: str) -> frozenset[UUID]:
    """The ids of `want` experiences, from each file its latest ones in proportion to its size.

    Shares are rounded by the largest remainder (Hamilton), ties by a seeded hash. A file keeps one if others can give.
    """
    if want <= 0 or not pool:
        return frozenset()
    by_file: dict[str, list[Experience]] = {}
    for item in pool:
        by_file.setdefault(file_of(item), []).append(item)
    quota = {name: want * len(items) / len(pool) for name, items in by_file.items()}
    count = {name: min(int(quota[name]), len(items)) for name, items in by_file.items()}

    def order(name: str) -> tuple[float, bytes]:
        return int(quota[name]) - quota[name], hashlib.sha256(f"{seed}|{name}".encode()).digest()

    for spare in (1, 0):
        for name in sorted(by_file, key=order):
            if sum(count.values()) < want and count[name] < len(by_file[name]) - spare:
                count[name] += 1
    return frozenset(item.id for name, items in by_file.items() for item in items[len(items) - count[name] :])


def _without_near_copies(experiences: Sequence[Experience], near: NearlySame) -> list[Experience]:
    """In the same order, without what is nearly something later, or something that `near` remembers."""
    kept = []
    for item in reversed(experiences):
        if not near.seen(item):
            near.add(item)
            kept.append(item)
    return kept[::-1]


def _unwanted(experience: Experience) -> bool:
    """Whether only its suggestion says something: that it was not wanted."""
    refused = experience.outcome in UNWANTED or experience.decision is Decision.AVOID
    return refused and bool(experience.suggested.strip()) and not teaches(experience)


def _time(experience: Experience) -> tuple[datetime, UUID]:
    return experience.created_at, experience.id


def _plain(text: str) -> str:
    """Text without differences of white space alone."""
    return " ".join(text.split())

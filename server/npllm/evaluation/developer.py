"""The simulated developer of the morning: asks, accepts, mends or rejects, and sometimes says what they feel.

Accepts what equals the line they are about to write, accepts and mends what is close, types everything else
themselves. The emotional feedback is a seeded rule of what is seen in the morning; it knows no held-out line.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from npllm.evaluation import metrics
from npllm.evaluation.client import Offered
from npllm.evaluation.hands import Keyboard, Stop, put, walk
from npllm.evaluation.plan import Visit

MULTI_EDIT = 0.3  # of the close suggestions are mended in small steps rather than in one


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened at one line of the morning."""

    path: str
    number: int
    truth: str
    offered: str | None
    action: str  # "accepted" | "mended" | "rejected" | "unaided" (nothing was offered)
    similarity: float
    saved: int
    emoji: str
    comment: str


@dataclass(frozen=True, slots=True)
class Mood:
    """One rule: with this probability the developer says this about such a suggestion."""

    action: str
    low: float  # edit similarity, from
    high: float  # up to, exclusive
    probability: float
    says: tuple[tuple[str, str], ...]  # emoji, comment


MOODS: tuple[Mood, ...] = (
    Mood("accepted", 0.0, 2.0, 0.30, (("👍", ""), ("❤️", ""), ("👍", "perfect, thanks"), ("🎉", "exactly"))),
    Mood("mended", 0.0, 2.0, 0.12, (("🙂", "almost"), ("👍", "close enough"))),
    Mood("rejected", 0.0, 0.2, 0.10, (("👎", ""), ("😕", "not what I want"), ("👎", "wrong"))),
    Mood("rejected", 0.0, 0.1, 0.03, (("😡", "wrong again, stop that"), ("😤", "useless"))),
)


class Assisted(Keyboard, Protocol):
    """An editor that suggests: the real client's, or one in this process."""

    async def complete(self, uri: str, offset: int) -> Offered | None: ...

    def shown(self, offered: Offered) -> None: ...

    async def accept(self, uri: str, offered: Offered) -> None: ...

    async def feedback(self, offered: Offered, emoji: str, comment: str) -> None: ...


async def morning(
    editor: Assisted,
    visits: Sequence[Visit],
    *,
    seed: int,
    on_moment: Callable[[Moment], None] = lambda _: None,
) -> list[Moment]:
    """Work through the visits from the first to the last.

    Raises:
        EvaluationError: the server failed.
    """
    moments = []
    for visit in visits:
        chance = random.Random(f"{seed}:developer:{visit.path}")
        async with aclosing(walk(editor, visit)) as stops:
            async for stop in stops:
                moment = await _write_line(editor, visit.path, stop, chance)
                moments.append(moment)
                on_moment(moment)
    return moments


async def _write_line(editor: Assisted, path: str, stop: Stop, chance: random.Random) -> Moment:
    offered = await editor.complete(stop.uri, stop.offset)
    text = offered.text if offered else None
    likeness = metrics.similarity(text, stop.truth)
    if offered is None:
        action = "unaided"
        await _type(editor, stop)
    elif metrics.is_exact(text, stop.truth):
        action = "accepted"
        editor.shown(offered)
        await editor.accept(stop.uri, offered)
    elif likeness >= metrics.CLOSE:
        action = "mended"
        editor.shown(offered)
        await editor.accept(stop.uri, offered)
        await _mend(editor, stop, offered.text, chance)
    else:
        action = "rejected"
        editor.shown(offered)
        await _type(editor, stop)
    emoji, comment = await _say(editor, offered, action, likeness, chance)
    return Moment(
        path=path,
        number=stop.ask.number,
        truth=stop.truth,
        offered=text,
        action=action,
        similarity=likeness,
        saved=metrics.saved(text, stop.truth),
        emoji=emoji,
        comment=comment,
    )


async def _type(editor: Assisted, stop: Stop) -> None:
    offset = stop.offset
    for character in stop.truth:
        editor.change(stop.uri, offset, offset, character)
        offset += 1
        await asyncio.sleep(0)


async def _mend(editor: Assisted, stop: Stop, inserted: str, chance: random.Random) -> None:
    """Turn the accepted text into the true one: in one edit, or its first half before its second."""
    end = stop.offset + len(inserted)
    if chance.random() < MULTI_EDIT and "\n" not in inserted:
        half = min(len(inserted), len(stop.truth)) // 2
        put(editor, stop.uri, stop.offset, stop.offset + half, stop.truth[:half])
        await asyncio.sleep(0)
        put(editor, stop.uri, stop.offset + half, end, stop.truth[half:])
    else:
        put(editor, stop.uri, stop.offset, end, stop.truth)


async def _say(
    editor: Assisted, offered: Offered | None, action: str, likeness: float, chance: random.Random
) -> tuple[str, str]:
    """Emotional feedback by the rule; ("", "") for silence."""
    if offered is None:
        return "", ""
    for mood in MOODS:
        if mood.action == action and mood.low <= likeness < mood.high and chance.random() < mood.probability:
            emoji, comment = chance.choice(mood.says)
            await editor.feedback(offered, emoji, comment)
            return emoji, comment
    return "", ""

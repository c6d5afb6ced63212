"""What is asked of an arm after a sleep, through the path that serves; nothing is written down meanwhile.

The day's slice is asked for suggestions and scored; the apart lines of older slices and lines of general code are
scored. And the places of the morning at which a suggestion was rejected are met again in another file, with little
around them: is it made again?
"""

from __future__ import annotations

import random
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from npllm.evaluation import metrics
from npllm.evaluation.ablation.days import Day, asked
from npllm.evaluation.ablation.desk import Desk, SmallDesk
from npllm.evaluation.developer import Moment
from npllm.evaluation.hands import walk
from npllm.evaluation.lines import FileChange, Hunk, content, indentation, split_lines
from npllm.evaluation.plan import Ask, Visit
from npllm.evaluation.sources import language_of

GENERAL_FILES = 20
AGAIN = 20  # rejected suggestions of a morning that are looked at
ABOVE, BELOW = 15, 5  # lines around them
SAME = 0.9  # edit similarity from which a suggestion is made again


@dataclass(frozen=True, slots=True)
class Row:
    """One line asked, as it is kept on disk.

    Attributes:
        part: "going on", "apart" or "general".
        slice: the day that the line belongs to; 0 for general code.
        column: "" = as the arm serves; else a second way of serving in the same cell ("frozen", "cerebellum").
        cluster: what the bootstrap resamples.
        exact: whether what was offered is the line; None where nothing was asked for.
        seen: the line stood somewhere before.
    """

    part: str
    slice: int
    column: str
    cluster: str
    path: str
    number: int
    nats: float
    utf8_bytes: int
    exact: bool | None = None
    similarity: float | None = None
    latency_ms: float | None = None
    memories: int = 0
    seen: bool = False

    @property
    def key(self) -> tuple[str, int, str, int]:
        """The same line under any arm, within a seed."""
        return self.part, self.slice, self.path, self.number

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


async def slices(desk: Desk, days: Sequence[Day], general: Sequence[Visit], *, column: str = "") -> list[Row]:
    """The last day's whole slice, the apart lines of the days before it, and general code."""
    rows: list[Row] = []
    last = days[-1]
    small = await SmallDesk.of(desk)
    for part, visit in asked(last):
        rows += await _visit(desk, visit, part, last, ask=True, column=column)
        if small is not None:
            rows += await _visit(small, visit, part, last, ask=False, column="cerebellum")
    for day in days[:-1]:
        for visit in day.apart:
            rows += await _visit(desk, visit, "apart", day, ask=False, column=column)
    stdlib = Desk(desk.assistant, Path(sysconfig.get_path("stdlib")))
    for visit in general:
        rows += await _visit(stdlib, visit, "general", None, ask=False, column=column)
    return rows


async def _visit(desk: Desk, visit: Visit, part: str, day: Day | None, *, ask: bool, column: str) -> list[Row]:
    rows = []
    async with aclosing(walk(desk, visit)) as stops:
        async for stop in stops:
            began = time.perf_counter()
            offered = await desk.complete(stop.uri, stop.offset) if ask else None
            latency_ms = (time.perf_counter() - began) * 1000
            text = offered.text.split("\n", 1)[0] if offered else None
            score = await desk.score(stop.uri, stop.offset, stop.truth)
            number = stop.ask.number
            rows.append(
                Row(
                    part=part,
                    slice=day.number if day else 0,
                    column=column,
                    cluster=day.clusters[visit.path, number] if day else visit.path,
                    path=visit.path,
                    number=number,
                    nats=score.nats,
                    utf8_bytes=score.utf8_bytes,
                    exact=metrics.is_exact(text, stop.truth) if ask else None,
                    similarity=metrics.similarity(text, stop.truth) if ask else None,
                    latency_ms=latency_ms if ask else None,
                    memories=score.memories,
                    seen=day is not None and visit.change.new[number].strip() in day.known,
                )
            )
    return rows


async def made_again(desk: Desk, day: Day, moments: Iterable[Moment]) -> tuple[int, int]:
    """Of the morning's rejected suggestions: how many were met again, and how many of these were made again."""
    places = {(visit.path, ask.number): (visit, ask) for visit in day.morning for ask in visit.asks}
    rejected = [moment for moment in moments if moment.action == "rejected"]
    chosen = rejected[:: max(1, len(rejected) // AGAIN)][:AGAIN]
    again = 0
    for moment in chosen:
        visit, ask = places[moment.path, moment.number]
        above, below = visit.change.around(ask.number)
        head = "".join(split_lines(above)[-ABOVE:]) + visit.change.new[ask.number][: ask.column]
        name = PurePosixPath(visit.path)
        text = head + "\n" + "".join(split_lines(below)[:BELOW])
        uri = desk.open(str(name.with_name(f"again_{name.name}")), text, language_of(visit.path))
        offered = await desk.complete(uri, len(head))
        again += metrics.similarity(offered.text if offered else None, moment.offered or "") >= SAME
        desk.close(uri)
    return len(chosen), again


def general(count: int, *, each: int | None = None) -> list[Visit]:
    """About `count` lines of Python's standard library, each to be written where it stands.

    Args:
        each: lines of a file; None = so many that about `GENERAL_FILES` files are enough.
    """
    chance = random.Random("general")
    root = Path(sysconfig.get_path("stdlib"))
    names = sorted(path.name for path in root.glob("*.py") if not path.name.startswith("_"))
    chance.shuffle(names)
    visits: list[Visit] = []
    each = each or max(1, -(-count // GENERAL_FILES))
    for name in names:
        if sum(len(visit.asks) for visit in visits) >= count:
            break
        visits += _stretch(name, (root / name).read_text(encoding="utf-8", errors="replace"), each, chance)
    return visits


def _stretch(name: str, text: str, count: int, chance: random.Random) -> Iterator[Visit]:
    """One stretch of `count` lines of code in the second half of a file."""
    new = split_lines(text)
    inside = [n for n in range(len(new) // 2, len(new) - count) if all(map(_code, new[n : n + count]))]
    if not inside:
        return
    start = chance.choice(inside)
    end = start + count
    change = FileChange(name, new[:start] + new[end:], new, (Hunk(start, start, start, end),), tuple(range(start, end)))
    yield Visit(change, tuple(Ask(number, indentation(new[number])) for number in change.candidates))


def _code(line: str) -> bool:
    bare = content(line).strip()
    return 8 <= len(bare) <= 120 and not bare.startswith(("#", '"', "'")) and any(mark in bare for mark in "=(:")

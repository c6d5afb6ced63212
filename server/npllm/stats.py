"""`npllm stats`: what became of the suggestions, as tables for the terminal or as JSON."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from npllm import config
from npllm.types import NpllmError

if TYPE_CHECKING:
    from npllm.memory.statistics import Figures, Moods, PacingFigures, Stages, Standing, Statistics
    from npllm.memory.store import Store

DAYS = 30
MOST_DAYS = 36500
ROWS = 12  # of a table in the terminal; JSON has all
TITLES = {"language": "language", "project": "project", "version": "adapter version", "day": "day"}
STATES = {  # in the order in which they are told
    "accepted": "accepted",
    "partially_accepted": "partly accepted",
    "edited": "accepted and edited",
    "deleted": "accepted and deleted",
    "rejected": "rejected by typing on",
    "dismissed": "dismissed",
    "ignored": "left alone",
    "unseen": "never seen",
    "superseded": "superseded",
    "": "nothing known yet",
}
HEAD = ("offered", "seen", "taken", "acceptance", "typed out", "deleted", "kept chars", "of taken")


def main(arguments: Sequence[str]) -> int:
    """Run `npllm stats ...`; its exit status.

    Raises:
        NpllmError: with cause and mend.
    """
    args = _parser().parse_args(arguments)
    made = asyncio.run(_ask(args.days))
    print(json.dumps(as_json(made)) if args.json else as_text(made, args.by or TITLES))
    return 0


async def ask(store: Store, days: int = DAYS) -> Statistics:
    """The figures of the last so many days (0 = ever), of one database user.

    Raises:
        NpllmError: the number of days cannot be meant.
        StoreError: the database is away.
    """
    if not 0 <= days <= MOST_DAYS:
        raise NpllmError(f"The last {days} days cannot be counted: say a number from 0 (ever) to {MOST_DAYS}.")
    now = datetime.now(UTC)
    offset = now.astimezone().utcoffset() or timedelta(0)
    return await store.statistics.ask(now - timedelta(days=days) if days else None, offset)


def as_json(made: Statistics) -> dict[str, Any]:
    """In JSON's types; a share is null where there is nothing to take it of."""
    return {
        "since": made.since.isoformat() if made.since else None,
        "total": _plain(made.total),
        "standing": [dataclasses.asdict(one) for one in made.standing],
        "stages": _stages_as_json(made.stages),
        "moods": dataclasses.asdict(made.moods),
        "pacing": dataclasses.asdict(made.pacing),
        **{name: [_plain(one) for one in groups] for name, groups in made.groups.items()},
    }


def as_text(made: Statistics, by: Sequence[str] | dict[str, str] = TITLES) -> str:
    """Tables for a terminal: the total, then one for each way of grouping."""
    if not made.total.offered:
        return "No suggestion was made" + (f" since {made.since.astimezone():%Y-%m-%d}." if made.since else " yet.")
    head = f"since {made.since.astimezone():%Y-%m-%d}" if made.since else "ever"
    tables = [_table(head, [("all", made.total)])]
    for name in by:
        groups = made.groups[name]
        tables.append(_table(TITLES[name], [(_label(name, one), one) for one in groups[:ROWS]]))
        if len(groups) > ROWS:
            tables[-1] += f"\n  ... and {len(groups) - ROWS} more (--json has all)"
    return "\n\n".join(
        [*tables, _stages(made.stages), *_standing(made.standing), *_moods(made.moods), *_pacing(made.pacing)]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm stats", description=__doc__)
    parser.add_argument("--days", type=int, default=DAYS, help=f"so many, back from now; 0 = ever (default {DAYS})")
    parser.add_argument("--by", action="append", choices=list(TITLES), help="only this grouping (may be repeated)")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    return parser


async def _ask(days: int) -> Statistics:
    from npllm.memory.store import Store

    store = await Store.connect(config.load())
    try:
        return await ask(store, days)
    finally:
        await store.close()


def _plain(one: Figures) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "acceptance": one.acceptance, "retention": one.retention}


def _stages_as_json(found: Stages) -> dict[str, Any]:
    ends = [
        {"state": STATES[kind], "kind": kind, "detail": detail, "count": count} for kind, detail, count in found.ends
    ]
    return {**dataclasses.asdict(found), "ends": ends}


def _stages(found: Stages) -> str:
    """Two lines: what they came through, and where they are."""
    by_key = f" ({found.asked} by a key of your own)" if found.asked else ""
    came = f"requested {found.requested}{by_key}, offered {found.offered}, seen {found.seen}"
    ends = []
    for kind, name in STATES.items():
        of_it = [(detail, count) for its, detail, count in found.ends if its == kind]
        if of_it:
            said = ", ".join(f"{detail} {count}" for detail, count in of_it if detail)
            ends.append(f"{name} {sum(count for _, count in of_it)}" + (f" ({said})" if said else ""))
    return f"{came}, typed along {found.typed_along}.\nwhat became of them: {', '.join(ends)}."


def _standing(found: Sequence[Standing]) -> list[str]:
    """In a sentence, where something was taken."""
    looks = [
        f"{one.occasion} {one.characters_kept / one.characters:.0%} (of {one.texts})" for one in found if one.characters
    ]
    return [f"of the characters taken still there after / at: {', '.join(looks)}."] if looks else []


def _moods(found: Moods) -> list[str]:
    """In sentences, where there is something to say: what was said, and what was done."""
    told = []
    if said := found.glad + found.frustrated + found.neither:
        told.append(f"said how it was {said}: {found.glad} glad, {found.frustrated} not, {found.neither} neither.")
    if found.refusals or found.undo_storms:
        told.append(f"signs of frustration: five refusals in a row {found.refusals}, undo storms {found.undo_storms}.")
    return told


def _pacing(found: PacingFigures) -> list[str]:
    """In a sentence, where there is something to say."""
    if not (found.held_back or found.estimated):
        return []
    said = f"held back {found.held_back}, because they were unlikely to be taken"
    if found.estimated:
        said += f"; of {found.estimated} with an estimate, {found.expected_taken:.1f} were expected to be taken and "
        said += f"{found.estimated_taken} were; of {found.audited} shown to check it, {found.audited_taken}"
    return [said + "."]


def _label(dimension: str, one: Figures) -> str:
    if dimension == "project":
        return PurePath(one.name).name or "(none)"
    if dimension == "version":
        return f"{one.context or 'unknown'} {one.name[-8:]}" if one.name else "(bare base)"
    return one.name or "(none)"


def _table(title: str, rows: Sequence[tuple[str, Figures]]) -> str:
    cells = [(title, *HEAD), *((label, *_cells(one)) for label, one in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for first, *rest in cells:
        lines.append("  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]))
    return "\n".join(lines)


def _cells(one: Figures) -> tuple[str, ...]:
    counts = (str(one.offered), str(one.seen), str(one.taken))
    rest = (str(one.typed), str(one.deleted), str(one.characters_kept))
    return (*counts, _share(one.acceptance), *rest, _share(one.retention))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"

"""A context's share of the report while its sleep goes on, kept beside its checkpoint, over all parts of the sleep.

`curve.jsonl` grows by a line a step, `details.json` is written once when the context was judged. A step that was done
again after an interruption replaces the earlier one; a torn last line is left out.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from npllm.sleep.project import Passage
from npllm.sleep.record import Details, Point, Quote, Source
from npllm.types import Experience

log = logging.getLogger(__name__)

CURVE = "curve.jsonl"
DETAILS = "details.json"
MOST_POINTS = 300  # of a curve in a report
MOST_SOURCES = 500  # files named in a report


class Curve:
    """Writes a training's points as they come; failing costs the plot alone."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CURVE
        self._earlier = 0.0
        self._began = 0.0

    def add(self, step: int, loss: float, tokens_per_s: float) -> None:
        """A step was done."""
        lead = "" if self._began else "\n"  # an earlier part may have been killed in the middle of a line
        if not self._began:
            known = _points(self._file)
            self._earlier = known[-1].seconds if known else 0.0
            self._began = time.monotonic()
        point = Point(
            step, round(loss, 5), round(tokens_per_s, 1), round(self._earlier + time.monotonic() - self._began, 2)
        )
        try:
            with open(self._file, "a", encoding="utf-8", opener=_private) as stream:
                stream.write(lead + json.dumps(asdict(point)) + "\n")
        except OSError as error:
            log.warning("a point of the loss curve is lost: %s", error)


def keep(folder: Path, context: str, quotes: Iterable[Quote], sources: Iterable[Source]) -> None:
    """Write down what a context's report quotes and names, whole or not at all."""
    found = sorted(sources, key=lambda one: (-one.texts, -one.passages, one.project, one.path))
    document = asdict(Details(context, (), tuple(quotes), tuple(found[:MOST_SOURCES])))
    temporary = folder / (DETAILS + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8", opener=_private) as stream:
            json.dump(document, stream)
        temporary.replace(folder / DETAILS)
    except OSError as error:
        log.warning("the report will quote nothing of %s: %s", context, error)


def collect(checkpoints: Path) -> tuple[Details, ...]:
    """Of all contexts of a sleep that were judged, in the order of their folders' names."""
    found = []
    for file in sorted(checkpoints.glob(f"*/{DETAILS}")):
        try:
            kept = Details.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s cannot be read: %s", file, error)
            continue
        found.append(replace(kept, curve=thinned(_points(file.with_name(CURVE)))))
    return tuple(found)


def sources(learned: Iterable[Experience], passages: Iterable[Passage]) -> list[Source]:
    """The files that experiences and passages are from, with how many of each."""
    texts = Counter((item.place.project, item.place.path) for item in learned)
    pieces = Counter((passage.project, passage.path) for passage in passages)
    return [Source(*file, texts=texts[file], passages=pieces[file]) for file in {**texts, **pieces}]


def thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """At most `MOST_POINTS`, evenly spaced, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    return tuple(points[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS))


def _points(file: Path) -> tuple[Point, ...]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found: dict[int, Point] = {}
    for line in lines:
        try:
            point = Point(**_object(line))
        except (ValueError, TypeError):
            continue
        found = {step: known for step, known in found.items() if step < point.step} if point.step in found else found
        found[point.step] = point
    return tuple(found[step] for step in sorted(found))


def _object(line: str) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

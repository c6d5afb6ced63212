"""A training run's loss curve, as `train` leaves it in curve.jsonl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CurvePoint:
    """A validation during training: bits per byte on the start of the held-out packages."""

    tokens: int
    minutes: float
    bits: float


@dataclass(frozen=True)
class Curve:
    """What the loss curve says about a whole training; `trained_on` says in words what did the work."""

    points: tuple[CurvePoint, ...]
    tokens: int
    steps: int
    minutes: float
    trained_on: str = ""


def read_curve(path: Path) -> Curve:
    """Read a run's curve.jsonl."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = tuple(CurvePoint(e["tokens"], e["seconds"] / 60, e["validation"]) for e in entries if "validation" in e)
    last = entries[-1]
    hardware = ", then ".join(dict.fromkeys(entry["on"] for entry in entries if "on" in entry))
    return Curve(points, last["tokens"], last["step"], last["seconds"] / 60, hardware)

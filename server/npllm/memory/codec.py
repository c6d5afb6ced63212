"""Journal records as lines of JSON, and back.

One line is `{"format": 1, "kind": "outcome", "data": {...}}`. A field that a newer version added is refused with its
format number, a field that an older one lacked takes its default. Raises ValueError; what to do then is the journal's
business.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from npllm.types import Experience, Feedback, HeldBack, JournalRecord, Outcome, Sign, Suggestion

FORMAT = 1
KINDS: Mapping[str, type[Any]] = {
    "suggestion": Suggestion,
    "outcome": Outcome,
    "feedback": Feedback,
    "experience": Experience,
    "held_back": HeldBack,
    "sign": Sign,
}
_NAMES = {cls: name for name, cls in KINDS.items()}


def encode(record: JournalRecord) -> bytes:
    """One line, ASCII, ending in a newline (and holding no other)."""
    line = {"format": FORMAT, "kind": _NAMES[type(record)], "data": plain(record)}
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> JournalRecord:
    """The record of one line; ValueError says what is wrong with it."""
    try:
        found = json.loads(line)
        if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("kind") not in KINDS:
            raise ValueError("not a record of a format that this version knows")
        record: JournalRecord = _build(KINDS[found["kind"]], found["data"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a journal record: {error!r}") from error
    return record


def plain(record: JournalRecord) -> dict[str, Any]:
    """A record in JSON's types, its fields by their names."""
    made: dict[str, Any] = _plain(record)
    return made


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    return value


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(expected: Any, value: Any) -> Any:
    """`value` from JSON as the annotated type `expected`."""
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        hints = _hints(expected)
        return expected(**{name: _build(hints[name], item) for name, item in value.items()})
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (types.UnionType, typing.Union):  # only `X | None` occurs
        inner = next(a for a in arguments if a is not type(None))
        return None if value is None else _build(inner, value)
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    if expected is UUID:
        return UUID(hex=value)
    if expected is datetime:
        return datetime.fromisoformat(value)
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        return expected(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected):
        raise TypeError(f"{value!r} is not {expected.__name__}")
    return value

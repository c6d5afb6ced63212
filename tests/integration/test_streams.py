"""Recordings of a real VS Code (`make streams`): what is told of each suggestion is what a person would say.

Each is replayed twice: as it was recorded, and without all that VS Code's extension adds to what any editor says.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from npllm.types import JournalRecord, Outcome, Suggestion
from tests.replaying import Replay, read, standard

STREAMS = Path(__file__).parents[1] / "streams"
NAMED: dict[str, dict[str, Any]] = tomllib.loads((STREAMS / "outcomes.toml").read_text(encoding="utf-8"))


def test_each_recording_has_its_outcomes_and_each_limit_its_reason():
    assert {file.stem for file in STREAMS.glob("*.jsonl")} == set(NAMED)
    assert all(("alone" in named) == ("limit" in named) for named in NAMED.values())


@pytest.mark.parametrize("name", NAMED)
async def test_with_the_extension(name: str, home: Path, tmp_path: Path):
    records = await Replay(home, tmp_path)(read(STREAMS / f"{name}.jsonl", tmp_path))
    assert told(records) == expected(NAMED[name]["outcomes"], records)


@pytest.mark.parametrize("name", NAMED)
async def test_from_changes_alone(name: str, home: Path, tmp_path: Path):
    records = await Replay(home, tmp_path)(standard(read(STREAMS / f"{name}.jsonl", tmp_path)))
    assert told(records) == expected(NAMED[name].get("alone", NAMED[name]["outcomes"]), records)


def told(records: Sequence[JournalRecord]) -> list[dict[str, Any]]:
    """What is written down about each suggestion; nothing about it is counted twice."""
    found = []
    for suggestion in (record for record in records if isinstance(record, Suggestion)):
        outcomes = about(records, suggestion.id)
        assert [one.revision for one in outcomes] == list(range(len(outcomes)))
        assert [one.final for one in outcomes] == [False] * (len(outcomes) - 1) + [True]
        kinds = [kind.value for kind, _ in itertools.groupby(one.kind for one in outcomes)]
        last = outcomes[-1]
        found.append(
            {
                "text": suggestion.text,
                "told": kinds[:-1],
                "kind": kinds[-1],
                "detail": last.detail,
                "written": last.final_text,
            }
        )
    return found


def expected(named: Sequence[dict[str, Any]], records: Sequence[JournalRecord]) -> list[dict[str, Any]]:
    """The named outcomes in the form of `told`; what is not named is as it is."""
    full = []
    for one, suggestion in itertools.zip_longest(named, [one for one in records if isinstance(one, Suggestion)]):
        one, text = one or {}, suggestion.text if suggestion else ""
        assert text.startswith(one.get("text", "nothing more was offered")), (one, text)
        written = about(records, suggestion.id)[-1].final_text
        full.append({"told": [], "detail": "", "written": written, **one, "text": text})
    return full


def about(records: Sequence[JournalRecord], id: UUID) -> list[Outcome]:
    return [record for record in records if isinstance(record, Outcome) and record.suggestion_id == id]

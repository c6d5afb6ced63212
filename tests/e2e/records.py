"""What the server has written down, asked for as a person or another program would; and a past to begin with."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from npllm.config import load
from npllm.memory.store import Store
from npllm.types import Decision, Experience, JournalRecord, OutcomeKind, Place, new_id

NPLLM = Path(sys.executable).parent / "npllm"  # the console script of this environment


def environment(home: Path) -> dict[str, str]:
    """An environment for npllm with a data folder and a database of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NPLLM_")} | {
        "NPLLM_HOME": str(home)
    }


def status(home: Path) -> dict[str, Any]:
    """`npllm status --json` for a data folder."""
    done = subprocess.run(
        [str(NPLLM), "status", "--json"],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def experiences(home: Path) -> list[Experience]:
    """All experiences in PostgreSQL."""

    async def read() -> list[Experience]:
        store = await Store.connect(load(home))
        try:
            return await store.experiences_since(None)
        finally:
            await store.close()

    return asyncio.run(read())


def recorded(home: Path) -> list[JournalRecord]:
    """All that PostgreSQL holds of what happened, kind by kind in the order of time."""

    async def read() -> list[JournalRecord]:
        store = await Store.connect(load(home))
        try:
            return [record async for record in store.looking.records()]
        finally:
            await store.close()

    return asyncio.run(read())


def outcomes(home: Path) -> Counter[OutcomeKind]:
    """What became of the suggestions, as far as it is known."""
    return Counter(item.outcome for item in experiences(home))


def write_past(home: Path, sources: list[Path], lines: int) -> None:
    """Let the person have written the first `lines` lines of each of `sources` yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    past = []
    for source in sources:
        text = source.read_text(encoding="utf-8")
        offset = 0
        for line in text.splitlines(keepends=True)[:lines]:
            if written := line.strip():
                at = offset + line.index(written)
                past.append(
                    Experience(
                        id=new_id(),
                        place=Place(f"file:///past/{source.name}", source.name, "python", "/past", at),
                        prefix=text[max(0, at - 2000) : at],
                        suffix=text[at + len(written) :][:500],
                        context="language:python",
                        suggested="pass",
                        final_text=written,
                        outcome=OutcomeKind.REJECTED,
                        implicit=-0.25,
                        emotional=None,
                        reward=-0.25,
                        relevance=0.8,
                        decision=Decision.KEEP,
                        created_at=yesterday + timedelta(seconds=len(past)),
                    )
                )
            offset += len(line)

    async def write() -> None:
        store = await Store.connect(load(home))
        try:
            await store.write(past)
        finally:
            await store.close()

    asyncio.run(write())

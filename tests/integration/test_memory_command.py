# ruff: noqa: F811
"""`npllm memory show | search | export | stats`: what is remembered can be seen, found, taken along and weighed."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from npllm import cli
from npllm.config import Config
from npllm.memory import codec
from npllm.memory.embedder import Embedder
from npllm.memory.looking import PAGE
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import Feedback, HeldBack, JournalRecord, OutcomeKind, Suggestion, new_id
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    store,
    store_config,
)

NOW = datetime.now(UTC)
Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def run(store_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("NPLLM_DATABASE_URL", store_config.database.url)
    monkeypatch.setenv("NPLLM_HOME", str(store_config.home))

    async def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(cli.main, ["memory", *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def case(
    path: str = "app.py", final: str = "return sum(values)", project: str = "/project", at: datetime = NOW
) -> list[JournalRecord]:
    """A suggestion, two looks at it, what was said, and what was learned."""
    place = make_place(path=path, project=project, uri=f"file://{project}/{path}")
    made = make_suggestion(place=place, created_at=at)
    first = make_outcome(made, created_at=at)
    later = make_outcome(
        made, kind=OutcomeKind.EDITED, final_text=final, survival=0.4, implicit=0.5, revision=1, created_at=at
    )
    said = Feedback(new_id(), made.id, "👍", "nearly", 0.75, 0.5, 0.0, 0.7, at)
    learned = make_experience(id=made.id, place=place, final_text=final, emotional=0.7, created_at=at)
    return [made, first, later, said, learned]


async def test_show_tells_all_that_is_known_of_a_suggestion(store: Store, run: Run) -> None:
    records = case()
    await store.write(records)
    made = records[0]
    assert isinstance(made, Suggestion)
    status, text, _ = await run("show", made.id)
    assert status == 0
    for expected in (
        str(made.id),
        "app.py",
        "return total",
        "return sum(values)",
        "edited",
        "40% of it stands",
        "nearly",
    ):
        assert expected in text
    assert "emotional: +0.70 (satisfaction 0.75, confidence 0.50, frustration 0.00)" in text
    assert "relevance = (r + 1) / 2 = 0.80" in text and "decision: keep" in text
    assert (await run("show", "last"))[1] == (await run("show", str(made.id)[:23]))[1] == text

    _, line, _ = await run("show", "last", "--json")
    found = json.loads(line)
    assert found["suggestion"]["text"] == "return total"
    assert [one["kind"] for one in found["outcomes"]] == ["accepted", "edited"]
    assert found["feedback"][0]["comment"] == "nearly" and found["experience"]["final_text"] == "return sum(values)"


async def test_show_says_what_it_cannot_show(store: Store, run: Run) -> None:
    assert await run("show", "last") == (1, "", "npllm: Nothing is remembered yet.\n")
    await store.write([*case(), *case()])
    status, _, said = await run("show", "0")
    assert status == 1 and "More than one id begins with 0" in said
    status, _, said = await run("show", "ffffffff")
    assert status == 1 and "Nothing that is remembered" in said
    status, _, said = await run("show", "50%'")
    assert status == 1 and "is no id" in said


async def test_search_finds_words_and_narrows(store: Store, run: Run) -> None:
    await store.write([*case(), *case("b.py", "draw_circle(canvas)"), *case("c.py", "draw_circle(page)", "/other")])
    status, text, _ = await run("search", "DRAW_circle", "canvas")
    assert status == 0 and "b.py" in text and "c.py" not in text and "app.py" not in text
    _, text, _ = await run("search", "draw_circle", "--project", "/other", "--json")
    [found] = [json.loads(line) for line in text.splitlines()]
    assert found["place"]["path"] == "c.py" and found["similarity"] is None
    assert (await run("search", "draw_circle", "--language", "rust"))[0] == 1
    assert len((await run("search", "draw", "--limit", 1, "--json"))[1].splitlines()) == 1
    status, text, said = await run("search", "nothing_like_it")
    assert (status, text) == (1, "") and "Nothing of that is remembered" in said


async def test_search_finds_what_is_alike(store: Store, run: Run) -> None:
    records = [*case(), *case("b.py", "socket.connect((host, port))"), *case("c.py", "image.resize(width, height)")]
    embedder = Embedder()
    experiences = [one for one in records if hasattr(one, "embedding")]
    texts = [embedding_text("", one.final_text) for one in experiences]  # type: ignore[union-attr]
    vectors = await embedder.embed(texts)
    embedder.close()
    filled = [replace(one, embedding=vector) for one, vector in zip(experiences, vectors, strict=True)]  # type: ignore[call-arg]
    await store.write([*(one for one in records if one not in experiences), *filled])  # type: ignore[list-item]
    status, text, _ = await run("search", "open a network connection to a host", "--like", "--json")
    found = [json.loads(line) for line in text.splitlines()]
    assert status == 0 and len(found) == 3
    assert found[0]["place"]["path"] == "b.py"
    assert found[0]["similarity"] >= found[1]["similarity"] >= found[2]["similarity"]


async def test_export_gives_everything_as_the_journal_writes_it(store: Store, run: Run, tmp_path: Path) -> None:
    held = HeldBack(new_id(), make_place(), 0.1, 0.25, 12, -0.5, "model", NOW)
    records = [*case(), *case("b.py"), held]
    await store.write(records)
    file = tmp_path / "mine.jsonl"
    status, said, _ = await run("export", "--output", file)
    assert status == 0 and "11 records" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = [codec.decode(line) for line in file.read_bytes().splitlines(keepends=True)]
    assert sorted(map(codec.encode, found)) == sorted(map(codec.encode, records))
    status, _, said = await run("export", "--output", file)
    assert status == 1 and "already" in said and len(file.read_bytes().splitlines()) == 11
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("mine")] == ["mine.jsonl"]


async def test_export_can_be_narrowed_and_goes_beyond_a_page(store: Store, run: Run) -> None:
    await store.write([make_suggestion() for _ in range(PAGE + 3)])
    assert len((await run("export"))[1].splitlines()) == PAGE + 3
    old = case("old.py", project="/other", at=NOW - timedelta(days=9))
    await store.write([*old, *case("new.py", project="/other")])
    _, text, _ = await run("export", "--project", "/other")
    assert len(text.splitlines()) == 10
    _, text, _ = await run("export", "--project", "/other", "--since", "3d")
    kinds = [json.loads(line)["kind"] for line in text.splitlines()]
    assert sorted(kinds) == ["experience", "feedback", "outcome", "outcome", "suggestion"]


async def test_stats_tells_rows_and_disk(store: Store, store_config: Config, run: Run) -> None:
    await store.write([*case(), *case("b.py", project="/other")])
    store_config.journal_dir.mkdir(parents=True)
    (store_config.journal_dir / "0.jsonl").write_bytes(codec.encode(make_suggestion()))
    status, line, _ = await run("stats", "--json")
    found = json.loads(line)
    assert status == 0
    assert (found["rows"]["suggestions"], found["rows"]["outcomes"], found["rows"]["experiences"]) == (2, 4, 2)
    assert found["experiences"] == [{"language": "python", "decision": "keep", "count": 2}]
    assert found["projects"] == {"/project": 1, "/other": 1}
    assert found["unembedded"] == 2 and found["journal"]["backlog"] == 1
    assert found["table_bytes"]["experiences"] > 0 and found["folder_bytes"]["journal"] > 0
    assert found["database_bytes"] >= sum(found["table_bytes"].values())
    _, text, _ = await run("stats")
    assert "experiences" in text and "/other" in text and "1 records wait" in text

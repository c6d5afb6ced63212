"""Planted secrets of many kinds on their whole way: recorder, journal, embedder, PostgreSQL, a sleep's passages."""

# ruff: noqa: F811
from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from npllm.assist.recorder import Recorder
from npllm.config import CerebellumConfig, Config, FeedbackConfig, JournalConfig
from npllm.memory.embedder import Embedder
from npllm.memory.journal import Journal
from npllm.memory.pump import Pump
from npllm.memory.store import Store
from npllm.sleep import project
from npllm.sleep.protocol import Ending
from npllm.sleep.supervisor import Sleeper
from npllm.types import OutcomeKind, Suggestion, new_id
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    store,
    store_config,
)
from tests.fixtures_secrets import Planted, plant
from tests.fixtures_sleep import config_for, experience
from tests.lsp_session import session, settings

AREA = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "


class Reads:
    """The real embedder, and what it was given to read."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.embedder = Embedder()

    async def __call__(self, texts: list[str]) -> list[tuple[float, ...]]:
        self.texts += texts
        return await self.embedder.embed(texts)


def found_in(text: str, secrets: Iterable[Planted]) -> list[str]:
    return [secret.name for secret in secrets if any(piece in text for piece in secret.pieces)]


def offered(secret: Planted, *, prefix: str, text: str, suffix: str = "\n") -> Suggestion:
    return make_suggestion(place=make_place(language=secret.language), prefix=prefix, text=text, suffix=suffix)


def record_all(recorder: Recorder, secrets: Iterable[Planted]) -> int:
    """Each secret where it may stand: before and behind the cursor, suggested, typed by hand, typed by halves, said."""
    made = 0
    for secret in secrets:
        half = len(secret.before) + len(secret.value) // 2
        cases = [
            (offered(secret, prefix=f"{secret.text}\nx = ", text="1"), "1"),
            (offered(secret, prefix="x = ", text="1", suffix=f"\n{secret.text}\n"), "1"),
            (offered(secret, prefix="\n" + secret.before, text=secret.value + secret.after), ""),
            (offered(secret, prefix="\n" + secret.before, text="none"), secret.value + secret.after),
            (offered(secret, prefix="\n" + secret.text[:half], text="none"), secret.text[half:]),
        ]
        for suggestion, final_text in cases:
            recorder.suggestion(suggestion)
            kind = OutcomeKind.REJECTED if final_text != "1" else OutcomeKind.ACCEPTED
            recorder.outcomes([make_outcome(suggestion, kind=kind, final_text=final_text)])
            made += 1
        recorder.feedback(suggestion.id, "👎", f"that is wrong:\n{secret.text}")
    return made


async def every_text(config: Config) -> str:
    """All rows of all tables, as text."""
    connection = await asyncpg.connect(config.database.url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'npllm'")
        rows = [
            row["row"]
            for table in tables
            for row in await connection.fetch(f'SELECT to_jsonb(t)::text AS row FROM npllm."{table["tablename"]}" t')
        ]
    finally:
        await connection.close()
    return "\n".join(rows)


async def test_no_secret_gets_anywhere(store: Store, store_config: Config, tmp_path: Path) -> None:
    secrets = plant(11)
    assert len(secrets) >= 40
    journal = Journal(tmp_path / "journal")
    recorder = Recorder(journal, FeedbackConfig(), lambda _: None, lambda _: None)
    recorder.start()
    made = record_all(recorder, secrets)
    await recorder.close()

    assert journal.path is not None
    written = journal.path.read_text(encoding="ascii")
    assert found_in(written, secrets) == []
    assert written.count('"kind":"suggestion"') == made, "nothing is lost by it"

    reads = Reads()
    pump = Pump(journal, _gives(store), reads, JournalConfig())
    assert await pump.drain(120)
    reads.embedder.close()
    assert (await store.counts()).suggestions == made
    assert reads.texts and found_in("\n".join(reads.texts), secrets) == []
    rows = await every_text(store_config)
    assert "<secret:" in rows
    assert found_in(rows, secrets) == []
    journal.close()


def _gives(store: Store):  # type: ignore[no-untyped-def]
    async def provider() -> Store:
        return store

    return provider


def test_nor_into_what_a_sleep_reads_of_the_project(tmp_path: Path) -> None:
    secrets = plant(12)
    root = tmp_path / "work"
    root.mkdir()
    filler = "".join(f"def number_{n}(value):\n    return value + {n}\n\n\n" for n in range(4))
    for number, secret in enumerate(secrets):
        (root / f"m{number}.py").write_text(f"import os\n{filler}\n{secret.text}\n{filler}", encoding="utf-8")
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    place = make_place(project=str(root), path="elsewhere.py", uri=(root / "elsewhere.py").as_uri())
    known = experience()
    chosen = project.passages(
        "python", [replace(known, place=place)], count=5000, characters=300, seed="1", stop=threading.Event()
    )
    project.keep(tmp_path / "checkpoint", chosen)
    text = (tmp_path / "checkpoint" / project.PASSAGES).read_text(encoding="utf-8")
    assert {item.path for item in chosen} == {f"m{number}.py" for number in range(len(secrets))}
    assert "<secret:" in text
    configuration = {"yaml", "dotenv", "properties", "ini", "plaintext", "dockerfile"}  # bare values: no Python
    assert found_in(text, [secret for secret in secrets if secret.language not in configuration]) == []


async def test_a_comment_alone_is_looked_through(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    recorder = Recorder(journal, FeedbackConfig(), lambda _: None, lambda _: None)
    suggestion = make_suggestion(id=new_id(), created_at=datetime.now(UTC))
    recorder.suggestion(suggestion)
    recorder.feedback(suggestion.id, "", "my password: tulip77! does not work")
    recorder.write_now()
    assert journal.path is not None
    assert "tulip77" not in journal.path.read_text(encoding="ascii")


async def test_nor_anywhere_by_a_whole_day_and_its_sleep(
    home: Path, tmp_path: Path, practised_model: Path, database_url: str
) -> None:
    """The real server, a real sleep: then every byte in the data folder, and every row."""
    secrets = [secret for secret in plant(13) if secret.language == "python"][::4]
    root = tmp_path / "work"
    filler = "".join(f"def number_{n}(value):\n    return value + {n}\n\n\n" for n in range(6))
    root.mkdir()
    for number, secret in enumerate(secrets):
        (root / f"m{number}.py").write_text(f"import os\n{filler}\n{secret.text}\n\n\n{filler}", encoding="utf-8")
    given = settings(practised_model, database={"url": database_url})
    async with session(home, root, given) as editor:
        for number, secret in enumerate(secrets):
            begun = f"import os\n\n{secret.text}\n\n\n{AREA}"
            uri = editor.open(f"new{number}.py", begun + "\n", "python")
            offered = await editor.complete(uri, len(begun))
            assert offered is not None
            editor.change(uri, len(begun), len(begun), f"width\n\n\n{secret.text}\n")  # pasted there instead
            await editor.complete(uri, len(begun) + len("width\n\n\n") + len(secret.before) + len(secret.value) // 2)
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["experiences"] >= len(secrets)

    made = config_for(home, practised_model, min_holdout=4, project_share=0.8, max_minutes=0.5)
    made = replace(made, cerebellum=CerebellumConfig())
    made = replace(made, database=replace(made.database, url=database_url))
    sleeper = Sleeper(made)
    await sleeper.start(new_id(), "test")
    ended = await sleeper.wait()
    assert ended is not None and ended.ending is Ending.DONE and ended.report is not None
    assert any(part.files for part in ended.report.contexts), "it read the project"

    rows = await every_text(made)
    assert rows.count("<secret:") >= len(secrets) and found_in(rows, secrets) == []
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "stderr.log"]
    assert {path.name for path in files} >= {"server.log", "sleep.log"}
    for path in files:
        written = path.read_bytes()
        leaked = [one.name for one in secrets if any(piece.encode() in written for piece in one.pieces)]
        assert leaked == [], path

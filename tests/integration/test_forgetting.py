# ruff: noqa: F811, ASYNC110
"""`npllm memory forget`: rows, journals, weights, reports, what a living server holds; killed, it ends next time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from npllm import cli
from npllm.config import Config
from npllm.memory import codec
from npllm.memory.index.records import File, Piece, State
from npllm.memory.journal import Journal
from npllm.memory.pump import Pump
from npllm.memory.store import Store
from npllm.models.manifest import Manifest, sha256_file, write_manifest
from npllm.sleep import project
from npllm.types import (
    CerebellumVersion,
    Consolidation,
    ConsolidationState,
    Counts,
    Feedback,
    Pattern,
    Suggestion,
    VersionState,
    new_id,
)
from tests.fixtures_lineage import make_version
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_outcome,
    make_place,
    make_suggestion,
    postgres,
    unit_vector,
)
from tests.fixtures_sleep import MORNING, config_for, write_settings
from tests.lsp_session import session, settings, until

Run = Callable[..., Awaitable[tuple[int, str, str]]]
SECRET = "the_password_is_hunter2"


@pytest.fixture
def config(home: Path, tiny_model: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("NPLLM_DATABASE_URL", database_url)
    made = config_for(home, tiny_model)
    write_settings(made)
    return replace(made, database=replace(made.database, url=database_url))


@pytest.fixture
def run(config: Config, capsys: pytest.CaptureFixture[str]) -> Run:
    async def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(cli.main, ["memory", *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def case(path: str, text: str = "return total", project: str = "/project", at: datetime = MORNING) -> list[object]:
    """A suggestion with all that comes of it."""
    place = make_place(path=path, project=project, uri=f"file://{project}/{path}")
    offered = make_suggestion(place=place, text=text, created_at=at)
    return [
        offered,
        make_outcome(offered, created_at=at),
        Feedback(new_id(), offered.id, "👍", "good", 0.9, 0.9, 0.0, 0.9, at),
        make_experience(id=offered.id, place=place, suggested=text, created_at=at, embedding=unit_vector(3)),
    ]


async def rows_with(config: Config, text: str) -> list[str]:
    """Tables of which any row holds a text."""
    connection = await asyncpg.connect(config.database.url)
    try:
        tables = [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname='npllm'")]
        return [
            table
            for table in tables
            if await connection.fetchval(f"SELECT count(*) FROM npllm.{table} t WHERE strpos(t::text, $1) > 0", text)
        ]
    finally:
        await connection.close()


async def test_a_path_is_forgotten_with_all_that_learned_from_it(store: Store, config: Config, run: Run) -> None:
    good, bad = case("app.py"), case("keys/secret.py", SECRET)
    await store.write([*good, *bad])  # type: ignore[list-item]
    kept, gone = good[0].id, bad[0].id  # type: ignore[attr-defined]
    first = await make_version(store, config, learned=[kept])
    second = await make_version(store, config, parent=first, learned=[kept, gone])
    third = await make_version(store, config, parent=second, learned=[new_id()])  # grew from the second
    judged = await make_version(store, config, learned=[kept], held_out=[gone], context="language:go")
    again = await make_version(store, config, learned=[kept], judged_again=[gone], context="language:c")
    waiting = await make_version(store, config, learned=[kept], untrained=[gone], context="language:lua")
    passages = await make_version(
        store, config, learned=[kept], project_files=[("/project", "keys/other.py")], context="language:rust"
    )
    report = {
        "base": "b",
        "contexts": [{"context": "language:python", "gain": 0.1, "reason": SECRET}],
        "base_fingerprint": "",
    }
    sleep = Consolidation(second.consolidation_id, ConsolidationState.DONE, MORNING, MORNING, report)
    await store.upsert_consolidation(sleep)
    (config.home / "reports").mkdir()
    (config.home / "reports" / f"{sleep.id}.html").write_text(SECRET)
    (config.checkpoints_dir / "x").mkdir(parents=True)
    (config.checkpoints_dir / "x" / "passages.json").write_text(SECRET)

    status, out, _ = await run("forget", "--path", "/project/keys", "--dry-run")
    assert status == 0
    assert "1 suggestions, 1 outcomes, 1 feedback, 1 experiences" in out
    assert await store.counts() == Counts(2, 2, 2, 2, 7, 1), "it only looked"
    assert await store.forgetting.off_limits() == ()

    status, out, err = await run("forget", "--path", "/project/keys", "--yes")
    assert status == 0, err
    assert f"{first.id} comes back into use" in out
    states = {version.id: version.state for version in await store.adapter_versions()}
    assert states == {
        first.id: VersionState.PUBLISHED,
        second.id: VersionState.FORGOTTEN,
        third.id: VersionState.FORGOTTEN,
        judged.id: VersionState.PUBLISHED,
        again.id: VersionState.PUBLISHED,
        waiting.id: VersionState.PUBLISHED,
        passages.id: VersionState.FORGOTTEN,
    }
    there = {path.name for path in config.adapters_dir.iterdir()}
    assert there == {str(one.id) for one in (first, judged, again, waiting)}, "the weights are deleted"
    assert await store.counts() == Counts(1, 1, 1, 1, 7, 1)
    assert await rows_with(config, SECRET) == []
    assert await rows_with(config, "secret.py") == []
    assert await rows_with(config, "/project/keys") == ["off_limits"]
    last = await store.consolidation(sleep.id)
    assert last is not None and last.report["contexts"][0]["gain"] == 0.1
    assert not list((config.home / "reports").iterdir()) and not config.checkpoints_dir.exists()
    assert not await store.forgetting.unfinished()

    await store.write([*bad, *case("keys/new.py", SECRET)])  # type: ignore[list-item]
    assert await store.counts() == Counts(1, 1, 1, 1, 7, 1), "neither the old nor the like of it comes back"
    assert (await run("off-limits"))[1].strip() == "/project/keys"
    assert (await run("remember", "/project/keys"))[0] == 0
    assert (await run("remember", "/project/keys"))[0] == 1
    await store.write(case("keys/new.py"))  # type: ignore[arg-type]
    assert (await store.counts()).suggestions == 2


async def test_a_cerebellum_that_learned_it_goes_with_the_patterns_it_knew(
    store: Store, config: Config, run: Run
) -> None:
    good, bad = case("app.py"), case("keys/secret.py", SECRET)
    await store.write([*good, *bad])  # type: ignore[list-item]
    made: list[CerebellumVersion] = []
    for learned in (good, [*good, *bad]):
        id = new_id()
        folder = config.cerebellum_dir / str(id)
        shutil.copytree(config.base.model, folder)
        digest, now, parent = (
            sha256_file(folder / "model.safetensors"),
            datetime.now(UTC),
            made[-1].id if made else None,
        )
        data = {"learned": [str(one.id) for one in learned if isinstance(one, Suggestion)], "project_files": []}
        write_manifest(folder, Manifest(id, "cerebellum", "origin", parent, new_id(), digest, now, data))
        version = CerebellumVersion(
            *(id, "origin", parent, new_id(), f"cerebellum/{id}", digest, VersionState.PUBLISHED, "", {}, now)
        )
        await store.cerebellum.publish(version, [Pattern("python", SECRET if made else "return total", 3, now)])
        made.append(version)
    assert "patterns" in await rows_with(config, SECRET)
    status, out, err = await run("forget", "--path", "/project/keys", "--yes")
    assert status == 0, err
    assert f"{made[0].id} comes back into use" in out
    assert {version.id: version.state for version in await store.cerebellum.versions()} == {
        made[0].id: VersionState.PUBLISHED,
        made[1].id: VersionState.FORGOTTEN,
    }
    assert [path.name for path in config.cerebellum_dir.iterdir()] == [str(made[0].id)]
    assert await rows_with(config, SECRET) == []


async def test_project_since_and_text(store: Store, config: Config, run: Run) -> None:
    now = datetime.now(UTC)
    await store.write(case("a.py", project="/one"))  # type: ignore[arg-type]
    await store.write(case("a.py", project="/one-more"))  # type: ignore[arg-type]
    await store.write(case("a.py", project="/two", at=now))  # type: ignore[arg-type]
    await store.write(case("b.py", f"x = {SECRET!r}", project="/two"))  # type: ignore[arg-type]
    assert (await run("forget", "--project", "/one", "--yes"))[0] == 0
    assert (await store.counts()).experiences == 3
    assert await rows_with(config, "/one/") == []
    status, out, _ = await run("forget", "--since", "1h", "--yes")
    assert status == 0 and "1 experiences" in out
    assert (await run("forget", "--text", SECRET, "--yes"))[0] == 0
    assert await rows_with(config, SECRET) == []
    (left,) = await store.experiences_since(None)
    assert left.place.project == "/one-more"
    status, out, _ = await run("forget", "--text", SECRET, "--yes")
    assert (status, out) == (1, "Nothing of that is remembered.\n")
    for words, said in [
        ((), "at least one of"),
        (("--since", "yesterday"), "is no time"),
        (("--text", ""), "means nothing"),
        (("--path", "/"), "delete the data folder"),
        (("--text", "return total"), "Nobody is there to ask"),
    ]:
        status, _, err = await run("forget", *words)
        assert status == 1 and said in err and err.count("\n") == 1, err
    assert (await store.counts()).experiences == 1


async def test_a_text_taints_what_read_it_in_a_projects_file(
    store: Store, config: Config, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "with.py").write_text(f"key = {SECRET!r}\n")
    (tmp_path / "without.py").write_text("key = None\n")
    clean = await make_version(store, config, project_files=[(str(tmp_path), "without.py")])
    tainted = await make_version(store, config, parent=clean, project_files=[(str(tmp_path), "with.py")])
    assert (await run("forget", "--text", SECRET, "--yes"))[0] == 0
    states = {version.id: version.state for version in await store.adapter_versions()}
    assert states == {clean.id: VersionState.PUBLISHED, tainted.id: VersionState.FORGOTTEN}


async def test_what_only_a_journal_knows_is_forgotten_too(store: Store, config: Config, run: Run) -> None:
    good, bad = case("app.py"), case("secret.py", SECRET)
    dead = Journal(config.journal_dir)
    dead.append([*good, *bad])  # type: ignore[arg-type]
    dead.close()
    living = Journal(config.journal_dir)
    later = case("secret.py", SECRET)
    living.append(later)  # type: ignore[arg-type]
    damaged = config.journal_dir / "old.corrupt"
    damaged.write_bytes(codec.encode(bad[0])[:-3] + b"\n" + codec.encode(good[0]))  # type: ignore[arg-type]
    status, _, err = await run("forget", "--text", SECRET, "--yes")
    assert status == 0, err
    files = {path: path.read_bytes() for path in config.journal_dir.iterdir() if path != living.path}
    assert files and all(SECRET.encode() not in content for content in files.values())
    assert codec.encode(good[0]) in damaged.read_bytes()  # type: ignore[arg-type]

    async def provide() -> Store:
        return store

    async def embed(texts: list[str]) -> list[tuple[float, ...]]:
        return [unit_vector(1) for _ in texts]

    assert await Pump(living, provide, embed, config.journal).drain(10.0)
    counts = await store.counts()
    assert (counts.suggestions, counts.outcomes, counts.feedback, counts.experiences) == (1, 1, 1, 1)
    assert await rows_with(config, SECRET) == []
    living.close()


CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "


async def test_a_living_server_lets_go_of_it(
    store: Store, config: Config, run: Run, tmp_path: Path, practised_model: Path, database_url: str
) -> None:
    sections = settings(practised_model, database={"url": database_url}, completion={"timeout_ms": 60_000})
    work = tmp_path / "w"
    async with session(config.home, work, sections) as editor:
        uri = editor.open("secret.py", CODE + "# " + SECRET, "python")
        offered = await editor.complete(uri, len(CODE))
        assert offered is not None
        await editor.accept(uri, offered)
        await editor.execute("npllm.evaluation.settle")
        assert await rows_with(config, SECRET)
        assert any(SECRET.encode() in path.read_bytes() for path in config.journal_dir.glob("*.jsonl"))
        status, _, err = await run("forget", "--path", work / "secret.py", "--yes")
        assert status == 0, err

        def texts() -> bytes:
            return b"".join(path.read_bytes() for path in config.journal_dir.iterdir())

        await until(editor, lambda _: SECRET.encode() not in texts())
        editor.change(uri, len(CODE), len(CODE) + len(offered.text), "")
        assert await editor.complete(uri, len(CODE)) is not None  # suggested still, but not written down
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["suggestions"] == status["counts"]["experiences"] == 0
        assert SECRET.encode() not in texts(), "off limits: it is not even in the journal"
        assert await rows_with(config, SECRET) == []
        assert (await run("remember", work / "secret.py"))[0] == 0
        await asyncio.sleep(1.0)
        assert await editor.complete(uri, len(CODE)) is not None
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["suggestions"] == 1
        old = make_experience(final_text=f'key = "{KEY}"', embedding=unit_vector(3))
        await store.write([old])
        assert (await run("redact"))[0] == 0
        assert KEY not in str(await store.experience(old.id))
        async with asyncio.timeout(30):
            while await store.experiences_without_embedding(5):
                await asyncio.sleep(0.1)


async def test_killed_anywhere_it_ends_the_next_time(store: Store, config: Config, run: Run) -> None:
    good = case("app.py")
    for round in range(3):
        bad = [record for number in range(5) for record in case(f"secret{number}.py", SECRET)]
        await store.write([*good, *bad])  # type: ignore[list-item]
        first = await make_version(store, config, learned=[good[0].id])  # type: ignore[attr-defined]
        await make_version(store, config, parent=first, learned=[bad[0].id])  # type: ignore[attr-defined]
        (config.checkpoints_dir / "x").mkdir(parents=True, exist_ok=True)
        words = ("memory", "forget", "--text", SECRET, "--yes")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "npllm.cli", *words), stdout=asyncio.subprocess.PIPE
        )
        if round:  # in the first one as soon as the database has done its part
            await asyncio.sleep(0.5 * round)
        else:
            while not await store.forgetting.unfinished() and child.returncode is None:
                await asyncio.sleep(0.001)
        if child.returncode is None:
            os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        status, out, _ = await run("forget", "--text", SECRET, "--yes")
        assert (status, out) == (1, "Nothing of that is remembered.\n") or status == 0
        assert not await store.forgetting.unfinished()
        assert await rows_with(config, SECRET) == []
        assert not config.checkpoints_dir.exists()
        versions = await store.adapter_versions()
        (published,) = [version for version in versions if version.state is VersionState.PUBLISHED]
        assert published.id == first.id
        there = {path.name for path in config.adapters_dir.iterdir()}
        assert there == {str(v.id) for v in versions if v.state is not VersionState.FORGOTTEN}


def test_the_sleep_reads_nothing_that_is_off_limits(tmp_path: Path) -> None:
    text = "".join(f"value_{number} = compute({number})\n" for number in range(60))
    for name in ("open.py", "closed/secret.py", "a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    written = make_experience(place=make_place(path="a.py", project=str(tmp_path), uri=(tmp_path / "a.py").as_uri()))

    def read(*limits: str) -> set[str]:
        found = project.passages(
            "python",
            [written],
            learned=[written],
            off_limits=limits,
            count=50,
            characters=300,
            seed="0",
            stop=asyncio.Event(),  # type: ignore[arg-type]
        )
        return {passage.path for passage in found}

    assert read() == {"open.py", "closed/secret.py", "a.py"}
    assert read(str(tmp_path / "closed")) == {"open.py", "a.py"}
    assert read(str(tmp_path / "a.py")) == {"open.py", "closed/secret.py"}, "also where it was written in"
    assert read(str(tmp_path)) == set()


def test_links_and_relative_paths_are_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from npllm.memory.places import Selector

    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "a b.py").write_text("")
    monkeypatch.chdir(tmp_path)
    suggestion = make_suggestion(
        place=make_place(path="a b.py", project=str(tmp_path / "link"), uri=(tmp_path / "link" / "a b.py").as_uri())
    )
    assert isinstance(suggestion, Suggestion)
    for path in ("real", "link", "real/a b.py", str(tmp_path / "link" / "a b.py")):
        assert Selector(path=path).takes(suggestion), path
    for path in ("rea", "real/a", "real/b.py"):
        assert not Selector(path=path).takes(suggestion), path
    assert not Selector(path="real", since=suggestion.created_at + timedelta(seconds=1)).takes(suggestion)
    assert json.dumps(sorted(Selector(path="link").limits)) == json.dumps(
        sorted([str(tmp_path / "link"), str(tmp_path / "real")])
    )


KEY = "AKIA" + "Q7RZT4NV2LKWMX6P"  # made up


async def test_what_earlier_versions_stored_is_looked_through_again(
    store: Store, config: Config, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written straight to the store, as if nobody had looked: rows, a comment, a journal that a dead process left."""
    monkeypatch.setattr("npllm.memory.redacting.PAGE", 2)
    line = f'key = "{KEY}"'
    clean, *bad = case("app.py"), *(case(f"a{number}.py", line) for number in range(3))
    await store.write([record for records in (clean, *bad) for record in records])  # type: ignore[misc]
    suggestion = bad[0][0]
    await store.write([Feedback(new_id(), suggestion.id, "👎", line, 0.1, 0.1, 0.0, -0.9, MORNING)])  # type: ignore[attr-defined]
    kept, gone = clean[0].id, bad[2][0].id  # type: ignore[attr-defined]
    first = await make_version(store, config, learned=[kept])
    second = await make_version(store, config, parent=first, learned=[kept, gone])
    waiting = make_suggestion(text=line, created_at=MORNING)
    left = config.journal_dir / "left.jsonl"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(codec.encode(waiting))
    before = await store.counts()

    status, said, _ = await run("redact", "--dry-run")
    assert status == 0 and "would be changed: 3 outcomes, 3 suggestions" in said
    assert (await store.adapter_versions(state=VersionState.PUBLISHED))[0].id == second.id
    status, said, _ = await run("redact")
    assert status == 0 and "3 experiences" in said and "1 records in journals" in said and "aws" in said
    assert str(second.id) in said and f"{first.id} comes back into use" in said
    assert KEY.encode() not in left.read_bytes() and b"<secret:" in left.read_bytes()
    connection = await asyncpg.connect(config.database.url)
    for table in ("suggestions", "outcomes", "feedback", "experiences"):
        rows = str(await connection.fetch(f"SELECT to_jsonb(t)::text FROM npllm.{table} t"))
        assert KEY not in rows and ("<secret:" in rows), table
    await connection.close()
    assert await store.counts() == before, "nothing is lost by it"
    states = {version.id: version.state for version in await store.adapter_versions()}
    assert states == {first.id: VersionState.PUBLISHED, second.id: VersionState.FORGOTTEN}
    assert not (config.home / second.folder).exists()
    assert (await run("redact"))[1].startswith("No secret")


async def test_the_index_goes_once_it_is_switched_off(store: Store, config: Config, run: Run) -> None:
    piece = Piece(b"1" * 32, 0, "area", f"def area(): return {SECRET!r}", b"")
    file = File("shape.py", "python", State(1, 1, 1), (piece,))
    await store.index.write("/project", [file])
    assert await rows_with(config, SECRET) == ["chunk_texts"]
    settings = config.home / "config.toml"
    off = settings.read_text(encoding="utf-8")
    settings.write_text(off + '\n[memory]\nindex = "identifiers"\n', encoding="utf-8")
    status, _, err = await run("drop-index")
    assert status == 1 and 'Set memory.index = "off" first' in err
    assert await rows_with(config, SECRET) == ["chunk_texts"]
    settings.write_text(off, encoding="utf-8")
    status, said, _ = await run("drop-index")
    assert (status, said) == (0, "deleted: the index of 1 files.\n")
    assert (
        await rows_with(config, SECRET)
        == await rows_with(config, "shape.py")
        == await rows_with(config, "/project")
        == []
    )
    assert (await run("drop-index"))[1] == "There is no index.\n"

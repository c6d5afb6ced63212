"""The index of a project's code: real git checkouts, the real process that keeps it, and a real PostgreSQL."""

# ruff: noqa: F811, ASYNC110
from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from npllm.assist.indexer import Indexer
from npllm.config import Config, MemoryConfig
from npllm.evaluation.ablation.desk import awake
from npllm.memory.embedder import Embedder
from npllm.memory.index import child, indexing, records
from npllm.memory.index.child import Keeper
from npllm.memory.index.chunks import Chunk
from npllm.memory.index.indexing import look
from npllm.memory.index.protocol import Wanted
from npllm.memory.index.search import CodeSearch
from npllm.memory.places import Selector
from npllm.memory.retrieval import Retriever
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import Place
from tests.fixtures_memory import database_url, make_experience, postgres, store, store_config  # noqa: F401

HERD = (
    "def migrate_herd(zebra_width, gnu_height):\n"
    "    herd_register.append(zebra_width * gnu_height)\n    return herd_register\n"
)
BOAT = (
    "def paddle_canoe(river_depth):\n    current_speed = measure_current(river_depth)\n    return current_speed * 2\n"
)
KEY = "AKIA" + "Q3EGRZPLM7XWDTNA"


class Project:
    """A git repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "a@example.org")
        self.git("config", "user.name", "A")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.root), *arguments], check=True, capture_output=True)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")

    def place(self, path: str = "now.py", language: str = "python") -> Place:
        return Place((self.root / path).as_uri(), path, language, str(self.root), 0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    made.write("herd.py", HERD)
    made.write("src/boat.py", BOAT)
    made.commit()
    return made


async def looked(store: Store, project: Project, ignore: tuple[str, ...] = ()) -> indexing.Looked:
    return await look(str(project.root), store.index, ignore, await store.forgetting.off_limits())


async def held(store: Store, project: Project) -> dict[str, list[str]]:
    """What the index holds, by path."""
    lying = await store.index.terms(str(project.root), ["python"])
    texts = await store.index.contents([one.hash for one in lying])
    found: dict[str, list[str]] = {}
    for one in lying:
        found.setdefault(one.path, []).append(texts[one.hash])
    return found


async def everything(url: str) -> str:
    """All text of all tables."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = 'npllm'"
        )
        rows = [
            await connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM npllm.{row['name']} t") for row in names
        ]
        return " ".join(filter(None, rows))
    finally:
        await connection.close()


async def test_only_what_differs_is_read_and_written(store: Store, project: Project) -> None:
    first = await looked(store, project)
    assert (first.files, first.read, first.gone) == (2, 2, 0)
    assert await held(store, project) == {"herd.py": [HERD.strip()], "src/boat.py": [BOAT.strip()]}
    assert (await looked(store, project)).read == 0
    project.write("herd.py", HERD + "\n\ndef count_herd():\n    return len(herd_register)\n")
    project.write("new.py", "def not_tracked_yet(river_depth):\n    return river_depth\n")
    (project.root / "src" / "boat.py").unlink()
    again = await looked(store, project)
    assert (again.read, again.gone) == (2, 1)
    now = await held(store, project)
    assert sorted(now) == ["herd.py", "new.py"] and len(now["herd.py"]) == 2


async def test_what_is_to_be_left_alone_is_not_read(store: Store, project: Project) -> None:
    project.write(".gitignore", "built/\n")
    project.write(".npllmignore", "private/\n")
    for path in ("built/a.py", "private/b.py", "drafts/c.py", "credentials.js", "node_modules/d.py", "data.json"):
        project.write(path, BOAT)
    project.git("add", "-f", "private", ".gitignore")
    await looked(store, project, ("/drafts/",))
    assert sorted(await held(store, project)) == ["herd.py", "node_modules/d.py", "src/boat.py"]
    project.write(".npllmignore", "private/\nsrc/\n")
    assert (await looked(store, project, ("/drafts/", "node_modules/"))).gone == 2, "said later, it goes"
    assert sorted(await held(store, project)) == ["herd.py"]


async def test_what_git_cannot_say_takes_nothing_away(
    store: Store, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await looked(store, project)
    before = await held(store, project)
    broken = tmp_path / "bin" / "git"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 128\n", encoding="utf-8")
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
        failed = await looked(store, project)
    assert (failed.files, failed.gone) == (0, 0) and failed.folders == {"", "src"}, "and it is still watched"
    assert await held(store, project) == before
    (project.root / "herd.py").unlink()
    assert (await looked(store, project)).gone == 1


async def test_a_file_that_breaks_the_cutter_stops_no_other(
    store: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = indexing.chunks

    def breaking(text: str, language: str) -> list[Chunk]:
        if "zebra" in text:
            raise RecursionError("maximum recursion depth exceeded")
        return cut(text, language)

    monkeypatch.setattr(indexing, "chunks", breaking)
    assert (await looked(store, project)).read == 2
    assert sorted(await held(store, project)) == ["src/boat.py"]
    assert (await looked(store, project)).read == 0, "it is not met again until it changes"


async def test_secrets_are_replaced_before_anything_is_stored(
    store: Store, project: Project, database_url: str
) -> None:
    project.write("keys.py", f'def connect():\n    return client(key="{KEY}", password="hunter2-and-more")\n')
    await looked(store, project)
    told = await everything(database_url)
    assert "<secret:" in "".join((await held(store, project))["keys.py"])
    assert KEY not in told and "hunter2" not in told


async def test_what_newer_patterns_know_for_a_secret_goes_and_its_file_is_read_again(
    store: Store, project: Project, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("keys.py", f'def connect():\n    return client(key="{KEY}")\n')
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "redact", lambda text, _language: text)  # an earlier version
        await looked(store, project)
    assert KEY in await everything(database_url)
    ways = {"tainted": lambda *_: (), "usable": lambda _: True}
    assert (await store.redacting.run(**ways, dry_run=True)).rows == {"chunks": 1}  # type: ignore[arg-type]
    assert (await store.redacting.run(**ways)).rows == {"chunks": 1}  # type: ignore[arg-type]
    assert KEY not in await everything(database_url)
    assert (await looked(store, project)).read == 1
    assert "<secret:" in "".join((await held(store, project))["keys.py"])


async def test_a_branch_that_comes_back_is_not_embedded_again(store: Store, project: Project) -> None:
    async def embed() -> int:
        found = await store.index.without_embedding([str(project.root)], 100)
        await store.index.embed({hash: [1.0] + [0.0] * 383 for hash, _ in found})
        return len(found)

    await looked(store, project)
    assert await embed() == 2
    project.git("checkout", "-q", "-b", "other")
    project.write("herd.py", HERD.replace("zebra", "okapi"))
    project.commit()
    assert (await looked(store, project)).read == 1 and await embed() == 1
    project.git("checkout", "-q", "main")
    assert (await looked(store, project)).read == 1 and await embed() == 0
    project.git("mv", "herd.py", "moved.py")
    await looked(store, project)
    assert await embed() == 0 and sorted(await held(store, project)) == ["moved.py", "src/boat.py"]


@pytest.mark.parametrize("exact_below", [1, 20_000])
async def test_nearest_is_of_the_project_alone_and_not_of_the_open_file(
    store: Store, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact_below: int
) -> None:
    """By looking at each, and (where a project counts as large) at their codes first."""
    monkeypatch.setattr(records, "EXACT_BELOW", exact_below)
    other = Project(tmp_path / "other")
    other.write("same.py", HERD + "\n\ndef more_of_it(herd):\n    return herd + 1234567890\n")
    other.commit()
    await looked(store, project)
    await looked(store, other)
    found = await store.index.without_embedding([str(project.root), str(other.root)], 100)
    vectors = {}
    for hash, text in found:
        near = 1.0 if "herd" in text else 0.1
        vectors[hash] = [near, (1 - near**2) ** 0.5, *[0.0] * 382]
    await store.index.embed(vectors)
    query = [1.0] + [0.0] * 383

    async def paths(without: str, min_similarity: float = 0.0) -> list[str]:
        near = await store.index.nearest(
            query, str(project.root), ("python",), without=without, limit=10, min_similarity=min_similarity
        )
        return [one.path for one in near]

    assert await paths("") == ["herd.py", "src/boat.py"]
    monkeypatch.setattr(records, "CANDIDATES", 1)
    assert await paths("") == (["herd.py"] if exact_below == 1 else ["herd.py", "src/boat.py"])
    monkeypatch.setattr(records, "CANDIDATES", 100)
    assert await paths("herd.py") == ["src/boat.py"]
    assert await paths("", 0.5) == ["herd.py"]


# -- retrieval -----------------------------------------------------------------------------------------------------


async def test_the_project_s_code_is_found_on_the_hot_path_and_fused_when_the_rest_has_come(
    store: Store, project: Project
) -> None:
    project.write("now.py", HERD)
    await looked(store, project)
    embedder = Embedder()
    for hash, text in await store.index.without_embedding([str(project.root)], 100):
        [vector] = await embedder.embed([text])
        await store.index.embed({hash: vector})
    held_up = asyncio.Event()

    class Slow:
        async def embed(self, texts: list[str]) -> list[tuple[float, ...]]:
            await held_up.wait()
            return await embedder.embed(texts)

    search = CodeSearch(store.index, by_meaning=True)
    made = Retriever(store, Slow(), MemoryConfig(index="identifiers+meaning"), search)  # type: ignore[arg-type]
    prefix = "def migrate_flock(zebra_width):\n    herd_register.sort()\n    "
    early = await made.snippets(project.place(), prefix, "\n", 5_000)
    assert (early[0].path, early[0].text) == ("herd.py", HERD.strip()), "by identifiers, while embedding waits"
    held_up.set()
    late = await made.snippets(project.place(), prefix, "\n", 60_000)
    assert late[0].path == "herd.py" and late[0].score > early[0].score, "two ranks count"
    assert {one.path for one in late} <= {"herd.py", "src/boat.py"}, "the open file does not count"
    assert await made.snippets(project.place(), HERD + prefix, "\n", 60_000) != late, "nor what is on the screen"
    elsewhere = await made.snippets(project.place("a.go", "go"), prefix, "\n", 60_000)
    assert elsewhere == (), "nor another language's"
    await made.close()
    embedder.close()


async def test_experiences_are_found_while_a_large_index_is_loaded_for_the_first_time(
    store: Store, project: Project
) -> None:
    await looked(store, project)
    embedder = Embedder()
    prefix = "def migrate_flock(zebra_width):\n    herd_register.sort()\n    "
    place = project.place()
    [vector] = await embedder.embed([embedding_text(prefix)])
    await store.write(
        [make_experience(place=place, prefix=prefix, final_text="announce(herd_register)", embedding=vector)]
    )
    loading, load = asyncio.Event(), store.index.terms

    async def slowly(*asked: str) -> list[records.Lying]:
        await loading.wait()
        return await load(*asked)  # type: ignore[arg-type]

    store.index.terms = slowly  # type: ignore[method-assign, assignment]
    made = Retriever(store, embedder, MemoryConfig(index="identifiers"), CodeSearch(store.index, by_meaning=False))
    while not (early := await made.snippets(place, prefix, "\n", 1_000)):
        pass
    assert "announce" in early[0].text and len(early) == 1
    loading.set()
    late = await made.snippets(place, prefix, "\n", 60_000)
    assert len(late) > 1 and {"herd.py"} < {one.path for one in late}
    await made.close()
    embedder.close()


# -- forgetting ----------------------------------------------------------------------------------------------------


async def forget(store: Store, selector: Selector, *, keep_out: bool = True) -> int:
    found = await store.forgetting.forget(
        selector, tainted=lambda *_: (), usable=lambda _: True, keep_out=keep_out and bool(selector.limits)
    )
    return found.counts["chunks"]


async def test_a_forgotten_path_is_gone_and_stays_out(store: Store, project: Project, database_url: str) -> None:
    await looked(store, project)
    project.write("src/boat.py", BOAT.replace("river", "ocean"))
    await looked(store, project)
    assert "river_depth" in await everything(database_url), "kept for the branch that may come back"
    assert await forget(store, Selector(path=str(project.root / "src"))) == 1
    told = await everything(database_url)
    assert "paddle_canoe" not in told and "river_depth" not in told and "boat.py" not in told
    await looked(store, project)
    assert sorted(await held(store, project)) == ["herd.py"]
    await store.forgetting.remember(str(project.root / "src"))
    await looked(store, project)
    assert sorted(await held(store, project)) == ["herd.py", "src/boat.py"]


async def test_a_file_that_was_read_before_a_forgetting_is_not_written_after_it(store: Store, project: Project) -> None:
    state = records.State(1, 1, 1)
    late = indexing.read(project.root, "herd.py", state)
    await forget(store, Selector(project=str(project.root)))
    assert await store.index.write(str(project.root), [late]) == 0
    assert await held(store, project) == {} and await store.index.known(str(project.root)) == {}


async def test_a_forgotten_text_does_not_come_back_from_the_file_that_holds_it(
    store: Store, project: Project, database_url: str
) -> None:
    project.write("two.py", HERD + "\n\n" + BOAT)
    await looked(store, project)
    assert await forget(store, Selector(text="paddle_canoe")) == 2
    assert "paddle_canoe" not in await everything(database_url)
    project.write("two.py", "import os\n\n\n" + HERD + "\n\n" + BOAT)
    os.utime(project.root / "src" / "boat.py")
    await looked(store, project)
    assert "paddle_canoe" not in await everything(database_url)
    assert sorted(await held(store, project)) == ["herd.py", "two.py"]


async def test_forgetting_since_takes_what_was_changed_since(store: Store, project: Project) -> None:
    old = time.time() - 86_400
    os.utime(project.root / "src" / "boat.py", (old, old))
    await looked(store, project)
    assert await forget(store, Selector(since=datetime.now(UTC) - timedelta(hours=1))) == 1
    assert sorted(await held(store, project)) == ["src/boat.py"]


async def test_what_is_kept_is_bounded(store: Store, project: Project, tmp_path: Path) -> None:
    await looked(store, project)
    other = Project(tmp_path / "other")
    other.write("a.py", BOAT.replace("canoe", "kayak"))
    await looked(store, other)
    assert await store.retention.prune(MemoryConfig(keep_chunks=100)) == {}
    assert await store.retention.prune(MemoryConfig(keep_chunks=1)) == {"chunk_texts": 2}
    assert await held(store, project) == {} and sorted(await held(store, other)) == ["a.py"]


async def test_where_the_open_projects_reach_the_bound_only_known_files_are_read(
    store: Store, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH", 2)
    for number in range(10):
        project.write(f"m{number}.py", HERD.replace("herd", f"herd_{number}"))
    limits = await store.forgetting.off_limits()

    async def again() -> int:
        return (await look(str(project.root), store.index, (), limits, keep=4)).read

    assert await again() == 4 and len(await held(store, project)) == 4
    assert await store.retention.prune(MemoryConfig(keep_chunks=4)) == {} and await again() == 0, "none comes and goes"
    one = next(iter(await held(store, project)))
    project.write(one, HERD.replace("herd", "flock"))
    assert await again() == 1 and "migrate_flock" in (await held(store, project))[one][0]
    other = Project(tmp_path / "other")
    other.write("a.py", BOAT)
    assert (await look(str(other.root), store.index, (), limits, keep=4)).read == 1, (
        "one that is closed is not in its way"
    )
    third = Project(tmp_path / "third")
    third.write("a.py", BOAT)
    async with store.index.claim() as claims:
        assert await claims.take(str(project.root))
        assert (await look(str(third.root), store.index, (), limits, keep=4)).read == 0, "an open one does"


# -- the process -----------------------------------------------------------------------------------------------------


@pytest.fixture
def indexed_config(store_config: Config) -> Config:
    return replace(store_config, memory=replace(store_config.memory, index="identifiers"))


@pytest.fixture
async def indexer(indexed_config: Config, store: Store) -> AsyncIterator[Indexer]:
    made = Indexer(indexed_config)
    yield made
    await made.close()


async def until(said: object, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await said():  # type: ignore[operator]
            await asyncio.sleep(0.05)


async def test_the_process_follows_the_files_by_itself(indexer: Indexer, store: Store, project: Project) -> None:
    indexer.open(str(project.root))
    assert await indexer.settled(60)
    assert sorted(await held(store, project)) == ["herd.py", "src/boat.py"]
    assert indexer.pid is not None and os.getpriority(os.PRIO_PROCESS, indexer.pid) >= 15
    announced: list[str] = []
    await store.listen(announced.append)
    project.write("src/deep/new.py", HERD.replace("herd", "flock"))
    project.write("herd.py", HERD + "\n\ndef another_one(herd):\n    return herd_register\n")

    async def there() -> bool:
        now = await held(store, project)
        return "src/deep/new.py" in now and len(now["herd.py"]) == 2

    await until(there)
    assert announced and all(one.startswith(records.ANNOUNCED) for one in announced)


async def test_a_process_that_is_killed_is_started_again(indexer: Indexer, store: Store, project: Project) -> None:
    indexer.open(str(project.root))
    assert await indexer.settled(60)
    first = indexer.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    project.write("herd.py", HERD + "\n\ndef another_one(herd):\n    return herd_register\n")

    async def there() -> bool:
        return indexer.pid != first and len((await held(store, project))["herd.py"]) == 2

    await until(there)


async def test_what_a_library_prints_deafens_nobody(indexed_config: Config) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "print('Warning: x'); print('[1]'); print('y' * 200_000); print('{\"number\": 3}')",
        stdout=asyncio.subprocess.PIPE,
    )
    made = Indexer(indexed_config)
    assert await made._listen(process), "it has served, so the next start need not wait long"
    assert made.state.number == 3
    await process.wait()


async def test_a_model_that_cannot_be_loaded_stops_only_embedding(
    indexed_config: Config, store: Store, project: Project, tmp_path: Path
) -> None:
    memory = replace(indexed_config.memory, index="identifiers+meaning", embedder=str(tmp_path / "none"))
    problems: list[str] = []
    made = Indexer(replace(indexed_config, memory=memory), problems.append)
    try:
        made.open(str(project.root))
        assert await made.settled(60)
        assert "no embedding model" in made.state.problem and "no embedding model" in problems[-1]
        project.write("herd.py", HERD + "\n\ndef another_one(herd):\n    return herd_register\n")

        async def there() -> bool:
            return len((await held(store, project))["herd.py"]) == 2

        await until(there)
        assert made.state.files <= 6, "nothing is looked at again and again"
        await made.configure(replace(indexed_config, memory=replace(memory, embedder="")))
        assert await made.settled(120), "it hears of another"
        assert made.state.embedded == 3 and made.state.problem == ""
    finally:
        await made.close()


async def test_nothing_is_embedded_or_found_by_meaning_with_an_embedder_that_is_not_in_use(
    indexed_config: Config, store: Store, project: Project
) -> None:
    await looked(store, project)
    unit = [1.0] + [0.0] * 383
    hashes = [hash for hash, _ in await store.index.without_embedding([str(project.root)], 10)]

    async def near() -> int:
        found = store.index.nearest(unit, str(project.root), ("python",), without="", limit=9, min_similarity=-1.0)
        return len(await found)

    await store.embeddings.use("one", shipped=False)
    await store.index.embed({hashes[0]: unit})
    assert await near() == 1
    other = await Store.connect(indexed_config)
    await other.embeddings.use("other", shipped=False)
    await other.index.embed({hashes[0]: unit})
    await store.index.embed({hashes[1]: unit})
    assert len(await store.index.without_embedding([str(project.root)], 10)) == 1
    assert (
        await near() == 0
        and await store.similar(unit, project=None, language="python", limit=9, min_similarity=-1.0) == []
    )
    await other.close()
    made = Indexer(replace(indexed_config, memory=replace(indexed_config.memory, index="identifiers+meaning")))
    try:
        made.open(str(project.root))
        assert not await made.settled(8) and made.state.files >= 2 and made.state.embedded == 0
    finally:
        await made.close()


async def test_a_problem_is_over_when_the_database_is_back_though_embedding_goes_on(
    indexed_config: Config, store: Store, project: Project
) -> None:
    embedding = asyncio.Event()

    class Busy(Embedder):
        async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
            embedding.set()
            await asyncio.Event().wait()
            return []

    keeper = Keeper(store._database, Busy)
    keeper._say(problem="The database is away.")
    keeper.want(Wanted((str(project.root),), True))
    work = asyncio.create_task(keeper.run())
    async with asyncio.timeout(60):
        await embedding.wait()
    assert keeper._said.problem == "" and keeper._said.number == -1
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_another_embedder_is_taken_once_the_one_before_is_out_of_use(store: Store, project: Project) -> None:
    class Named(Embedder):
        async def fingerprint(self) -> str:
            return self.name

        async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
            assert self.name == in_use
            return [(1.0,) + (0.0,) * 383] * len(texts)

    root = str(project.root)
    keeper = Keeper(store._database, Named)
    in_use = "one"
    await store.embeddings.use(in_use, shipped=False)
    keeper.want(Wanted((root,), True, number=1, embedder="one"))
    work = asyncio.create_task(keeper.run())

    async def all_embedded() -> bool:
        files = await held(store, project)
        return len(files) >= wanted and not await store.index.without_embedding([root], 10)

    wanted = 2
    await until(all_embedded)
    keeper.want(Wanted((root,), True, number=2, embedder="two"))
    project.write("new.py", BOAT.replace("canoe", "raft"))
    wanted = 3
    await until(all_embedded)  # the server goes on with the one before until it is started again
    in_use = "two"
    await store.embeddings.use(in_use, shipped=False)
    keeper.want(Wanted((root,), True, number=3, embedder="two"))
    await until(all_embedded)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_a_project_that_nobody_can_look_at_stops_no_other_and_is_tried_ever_less(
    store: Store, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Project(tmp_path / "broken")
    broken.write("boat.py", BOAT)
    tried: list[float] = []
    mended = False

    async def fails(root: str, *arguments: Any, **named: Any) -> indexing.Looked:
        if root == str(broken.root):
            tried.append(time.monotonic())
            if not mended:
                raise RuntimeError("nobody foresaw this")
        return await look(root, *arguments, **named)

    monkeypatch.setattr(child, "look", fails)
    monkeypatch.setattr(child, "FAILED_S", (0.1, 3600.0))
    keeper = Keeper(store._database)
    projects = (str(broken.root), str(project.root))
    keeper.want(Wanted(projects, False, number=1))
    work = asyncio.create_task(keeper.run())

    async def held_now() -> bool:
        return len(await held(store, project)) == wanted and len(tried) >= 2

    wanted = 2
    await until(held_now)
    project.write("new.py", HERD.replace("herd", "flock"))
    broken.write("boat.py", BOAT + BOAT)
    wanted = 3
    await until(held_now)
    assert len(tried) == 2, "not again for what is heard of it"
    assert "nobody foresaw this" in keeper._said.problem and keeper._said.number == -1
    async with store.index.claim() as claims:
        assert not await claims.take(str(project.root)) and not await claims.take(str(broken.root)), "it keeps both"

    mended = True
    keeper.want(Wanted(projects, False, number=2))

    async def well() -> bool:
        return keeper._said.problem == "" and keeper._said.number == 2 and len(await held(store, broken)) == 1

    await until(well)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_two_windows_share_one_index_and_one_takes_over(
    indexer: Indexer, indexed_config: Config, store: Store, project: Project
) -> None:
    other = Indexer(indexed_config)
    try:
        indexer.open(str(project.root))
        assert await indexer.settled(60)
        other.open(str(project.root))
        assert await other.settled(60)
        assert (indexer.state.read, other.state.read) == (2, 0)
        await indexer.close()
        project.write("herd.py", HERD + "\n\ndef another_one(herd):\n    return herd_register\n")

        async def there() -> bool:
            return len((await held(store, project))["herd.py"]) == 2

        await until(there)
    finally:
        await other.close()


async def test_embeddings_are_made_by_the_process(indexed_config: Config, store: Store, project: Project) -> None:
    made = Indexer(replace(indexed_config, memory=replace(indexed_config.memory, index="identifiers+meaning")))
    try:
        made.open(str(project.root))
        assert await made.settled(120)
        assert made.state.embedded == 2
        assert await store.index.without_embedding([str(project.root)], 10) == []
    finally:
        await made.close()


async def test_what_the_index_finds_stands_in_the_prompt(indexed_config: Config, project: Project) -> None:
    """Through the assistant, with the shipped base: it has to find it useful, too; switched off, nothing is there."""
    methods = (
        "class Herd:\n    def migrate_flock(self, zebra_width, gnu_height):\n"
        "        self.herd_register.append(zebra_width * gnu_height)\n"
        "        self.herd_register.sort(key=self.migration_order)\n"
        "        self.announce_migration(self.herd_register)\n        return self.herd_register\n"
    )
    project.write("flock.py", methods)
    text = methods.replace("flock", "herd").replace("Herd", "Zoo").partition("        self.announce")[0] + "        "
    place = replace(project.place("zoo.py"), offset=len(text))
    slow = replace(indexed_config, memory=replace(indexed_config.memory, wait_ms=60_000, record=False))
    off = replace(slow, memory=replace(slow.memory, index="off"))
    async with awake(slow) as assistant:
        await assistant.resources.indexed(str(project.root))
        pid = assistant.resources.indexer.pid
        with_it = await assistant.score(place, text + "\n", "self.announce_migration(self.herd_register)")
        assert with_it.memories >= 1 and pid is not None
        await assistant.configure(off)
        assert not psutil.pid_exists(pid)
        without = await assistant.score(place, text + "\n", "self.announce_migration(self.herd_register)")
        assert without.memories == 0 and with_it.nats < without.nats
        await assistant.configure(slow)
        await assistant.resources.indexed(str(project.root))
        again = await assistant.score(place, text + "\n", "self.announce_migration(self.herd_register)")
        assert again.memories >= 1


def switched(project: Project, files: int) -> None:
    """Two branches that differ in so many files."""
    body = "\n\n".join(f"def {{name}}_{{number}}_{n}(value):\n    return value + {n}" for n in range(4)) + "\n"
    for number in range(files):
        project.write(f"pkg{number % 40}/m{number}.py", body.format(name="main", number=number))
    project.commit()
    project.git("checkout", "-q", "-b", "other")
    for number in range(files):
        project.write(f"pkg{number % 40}/m{number}.py", body.format(name="other", number=number))
    project.commit()


async def test_a_switch_of_branches_with_thousands_of_files_stalls_nothing(
    indexer: Indexer, store: Store, project: Project
) -> None:
    """The event loop goes on beside it: its longest pause is a small part of the time that the work takes, or no
    longer than a few of those that other programs cause."""
    files = 3000
    switched(project, files)
    search = CodeSearch(store.index, by_meaning=False)
    await store.listen(search.changed)
    indexer.open(str(project.root))
    assert await indexer.settled(240)
    await search.ready(project.place())
    pauses: list[float] = []

    async def beat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            pauses.append(time.perf_counter() - before - 0.005)
            search.look(project.place())

    beating = asyncio.create_task(beat())
    await asyncio.sleep(3)
    usual = max(pauses)
    pauses.clear()
    began = time.perf_counter()
    await asyncio.to_thread(project.git, "checkout", "-q", "main")

    async def there() -> bool:
        return indexer.state.read >= 2 * files + 2

    await until(there, 240)
    took, longest = time.perf_counter() - began, max(pauses)
    beating.cancel()
    print(f"the longest pause was {longest:.3f} s ({usual:.3f} s before) of {took:.1f} s: {longest / took:.2%}")
    assert longest < max(0.05 * took, 4 * usual)
    await search.loaded()
    [hit] = search.by_identifiers(project.place(), "value = main_777_2(value)", 1)
    assert hit.path.endswith("/m777.py")
    await search.close()

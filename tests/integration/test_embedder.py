# ruff: noqa: F811
"""Embedders from a folder, and changing from one to another in a real PostgreSQL, killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from npllm.config import Config, JournalConfig
from npllm.memory.embedder import Embedder
from npllm.memory.journal import Journal
from npllm.memory.pump import Pump
from npllm.memory.store import Store
from npllm.memory.texts import embedding_text
from npllm.types import ModelError
from tests.fixtures_memory import database_url, make_experience, postgres, store, store_config  # noqa: F401

REPOSITORY = Path(__file__).parents[2]
WORDS = ["[PAD]", "[UNK]", *(f"word{number}" for number in range(60))]


def make_embedder(folder: Path, seed: int, *, kind: str = "bert", size: int = 384, first: bool = False) -> Path:
    """A model of one random layer, in the layout that sentence-transformers has."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(WORDS),
        "hidden_size": size,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    model = BertModel(BertConfig(**shape)) if kind == "bert" else RobertaModel(RobertaConfig(**shape, pad_token_id=0))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": first}), encoding="utf-8")
    return folder


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_a_model_of_a_folder_embeds_as_it_says(tmp_path: Path) -> None:
    mean = make_embedder(tmp_path / "mean", 1)
    first = make_embedder(tmp_path / "first", 1, first=True)
    other = make_embedder(tmp_path / "other", 2)
    roberta = make_embedder(tmp_path / "roberta", 3, kind="roberta")
    made, prints = {}, set()
    for folder in (mean, first, other, roberta):
        embedder = Embedder(str(folder))
        [made[folder]] = await embedder.embed(["word1 word2 word3"])
        [long] = await embedder.embed(["word9 " * 300 + "word1 word2"])
        assert len(long) == 384 and cosine(long, long) == pytest.approx(1.0, abs=1e-4)
        prints.add(await embedder.fingerprint())
        assert not embedder.shipped
        embedder.close()
    assert len(prints) == 4
    assert all(cosine(made[mean], made[one]) < 0.999 for one in (first, other, roberta))


async def test_what_cannot_serve_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wrong = make_embedder(tmp_path / "wide", 1, size=256)
    (tmp_path / "empty").mkdir()
    for kind in ("bert", "roberta"):
        (make_embedder(tmp_path / kind, 1, kind=kind) / "model.safetensors").rename(
            tmp_path / kind / "model-00001-of-00001.safetensors"
        )
    for model, says in (
        (str(wrong), r"vectors of 256 numbers, and memory holds 384"),
        (str(tmp_path / "none"), r"no embedding model in .*none.*memory\.embedder"),
        (str(tmp_path / "bert"), r"cannot be loaded: it has no model\.safetensors.*Set memory\.embedder"),
        (str(tmp_path / "roberta"), r"cannot be loaded: it has no model\.safetensors.*Set memory\.embedder"),
        (str(tmp_path / "empty"), r"cannot be loaded.*Set memory\.embedder"),
        ("nobody/has-this-model", r"cannot be fetched.*memory\.embedder"),
    ):
        embedder = Embedder(model)
        with pytest.raises(ModelError, match=says):
            await embedder.embed(["x"])
        with pytest.raises(ModelError, match=says):
            await embedder.fingerprint()
        embedder.close()


SWAP = """
import asyncio, sys
from pathlib import Path
from npllm import config
from npllm.memory import embeddings
from npllm.memory.embedder import Embedder
from npllm.memory.journal import Journal
from npllm.memory.pump import Pump
from npllm.memory.store import Store
from npllm.types import NpllmError

async def main(url, model, folder):
    embeddings.BATCH = 5
    settings = config.merge(config.Config(home=Path(folder)), {"database": {"url": url}}, source="the test")
    store, embedder = await Store.connect(settings), Embedder(model)
    run = store._database.run

    async def told(operation):
        found = await run(operation)
        print("step", flush=True)
        await asyncio.sleep(0.05)
        return found

    store._database.run = told
    fingerprint = await embedder.fingerprint()
    await store.embeddings.use(fingerprint, shipped=False)
    print("dropped", flush=True)

    async def provider():
        return store

    pump = Pump(Journal(Path(folder) / "journal"), provider, embedder.embed, config.JournalConfig(flush_ms=10, batch=5))
    pump.embed_again()
    await pump.run()

asyncio.run(main(*sys.argv[1:]))
"""


async def vectors(url: str) -> dict[str, tuple[float, ...] | None]:
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT final_text, embedding::text AS vector FROM npllm.experiences")
    await connection.close()
    return {row["final_text"]: row["vector"] and tuple(json.loads(row["vector"])) for row in found}


async def test_another_embedder_makes_all_anew_and_may_be_killed(
    store: Store, store_config: Config, database_url: str, tmp_path: Path
) -> None:
    old = Embedder(str(make_embedder(tmp_path / "old", 1)))
    folder = make_embedder(tmp_path / "new", 2)
    new = Embedder(str(folder))
    made = [make_experience(prefix="word0\n", final_text=f"word{n} word{n + 1} word{n + 2}") for n in range(1, 41)]
    texts = [embedding_text(item.prefix, item.final_text) for item in made]
    of_old, of_new = await old.embed(texts), await new.embed(texts)
    wanted = {item.final_text: (a, b) for item, a, b in zip(made, of_old, of_new, strict=True)}
    assert all(cosine(a, b) < 0.9 for a, b in wanted.values())

    def pump_with(embedder: Embedder) -> Pump:
        async def provider() -> Store:
            return store

        return Pump(Journal(tmp_path / "journal"), provider, embedder.embed, JournalConfig(flush_ms=10, batch=15))

    assert await store.embeddings.use(await old.fingerprint(), shipped=False)
    await store.write(made)
    running = asyncio.create_task(pump_with(old).run())
    await until_all(database_url, {name: pair[0] for name, pair in wanted.items()})
    running.cancel()

    for word, count in (("step", 4), ("dropped", 1), ("step", 16)):  # while dropping, between, while embedding
        child = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", SWAP, database_url, str(folder), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'server'}"},
        )
        assert child.stdout is not None
        while count:
            line = await asyncio.to_thread(child.stdout.readline)
            assert line, "the child ended"
            count -= line.strip() == word
        child.kill()
        child.stdout.close()
        child.wait()
        for name, vector in (await vectors(database_url)).items():
            near = [vector is not None and cosine(vector, one) > 0.99 for one in wanted[name]]
            assert vector is None or any(near), "every vector is of one of the two"

    # A window that still has the old embedder may write no vector of it.
    late = make_experience(prefix="word0\n", final_text="word50 word51 word52")
    await store.write(
        [make_experience(id=late.id, prefix=late.prefix, final_text=late.final_text, embedding=of_old[0])]
    )
    assert (await vectors(database_url))[late.final_text] is None
    await store.embeddings.use(await new.fingerprint(), shipped=False)
    running = asyncio.create_task(pump_with(new).run())
    [of_late] = await new.embed([embedding_text(late.prefix, late.final_text)])
    await until_all(database_url, {late.final_text: of_late, **{name: pair[1] for name, pair in wanted.items()}})
    running.cancel()
    found = await store.similar(of_new[3], project="/project", language="python", limit=1, min_similarity=0.9)
    assert found[0].experience_id == made[3].id
    assert not await store.embeddings.use(await new.fingerprint(), shipped=False), "once is enough"
    old.close()
    new.close()


async def until_all(url: str, wanted: dict[str, tuple[float, ...]]) -> None:
    """Return when every experience has the vector that is wanted."""
    async with asyncio.timeout(60):
        while True:
            found = await vectors(url)
            if found.keys() == wanted.keys() and all(
                vector is not None and cosine(vector, wanted[name]) > 0.99 for name, vector in found.items()
            ):
                return
            await asyncio.sleep(0.05)

"""What the person's code says word for word: read from real files, and from what they wrote lately."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from npllm.assist import library
from npllm.assist.library import Library, Shelf
from npllm.models import reading
from npllm.models.base import Base
from npllm.models.codec import TextCodec
from npllm.models.reading import Reader, blocks, known_at
from npllm.types import Decision, Experience, Place, StoreError
from tests.fixtures_sleep import experience

LINE = "zebra_quality = harvest_moon(zebra_quality, 17)\n"


@pytest.fixture(scope="module")
def codec() -> tuple[TextCodec, int]:
    base = Base.load("starter", device="cpu", threads=1)
    return TextCodec(base.tokenizer), int(base.model.config.vocab_size)


class Notebook:
    """A store whose experiences are given; only the database is left out, which other tests have."""

    def __init__(self, *written: Experience) -> None:
        self.written = list(written)
        self.asked: list[datetime | None] = []
        self.down = False

    async def experiences_since(
        self, since: datetime | None, *, context: str | None = None, limit: int = 10_000, newest_first: bool = False
    ) -> list[Experience]:
        self.asked.append(since)
        if self.down:
            raise StoreError("down")
        found = [
            item for item in self.written if item.context == context and (since is None or item.created_at >= since)
        ]
        return sorted(found, key=lambda item: item.created_at, reverse=newest_first)[:limit]


@pytest.fixture
async def shelves(codec: tuple[TextCodec, int], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    monkeypatch.setattr(library, "REST_S", 0.0)
    monkeypatch.setattr(library, "REST_SHARE", 0)
    made = Library(lambda: codec)
    yield made
    await made.close()


def place(root: Path, path: str = "now.py") -> Place:
    return Place((root / path).as_uri(), path, "python", str(root), 0)


async def looked(shelves: Library, at: Place) -> Shelf:
    task = shelves.look(at)
    if task is not None:
        await task
    found = await shelves.shelf(at, 10_000)
    assert found is not None
    return found


def knows(shelf: Shelf | None, codec: tuple[TextCodec, int], above: str = "zebra_quality = harvest_moon(") -> bool:
    """Whether anything makes the line's rest likelier at a place behind its beginning."""
    import torch

    index = shelf.index if shelf is not None and shelf.codec is codec[0] else None
    known = known_at(Reader(codec[0]), above, codec[1], index, shelf.without if shelf else None)
    said = known.mix(torch.zeros(codec[1]), ()).argmax()
    return codec[0].decode([int(said)]).startswith("z")


async def test_files_are_read_again_when_they_change(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    assert not knows(await looked(shelves, place(tmp_path)), codec)
    (tmp_path / "a.py").write_text("x = 1\n" + LINE)
    assert knows(await looked(shelves, place(tmp_path)), codec)
    before = await looked(shelves, place(tmp_path))
    assert (await looked(shelves, place(tmp_path))).index is before.index  # nothing changed: nothing is made anew
    (tmp_path / "a.py").unlink()
    assert not knows(await looked(shelves, place(tmp_path)), codec)


async def test_the_document_at_the_cursor_counts_as_it_is_in_the_editor(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    (tmp_path / "now.py").write_text(LINE * 3)
    assert not knows(await looked(shelves, place(tmp_path)), codec)
    assert knows(await looked(shelves, place(tmp_path, "other.py")), codec)
    assert knows(None, codec, LINE + "\n\n" + "zebra_quality = harvest_moon(")


async def test_what_was_written_lately_counts_and_is_asked_for_once(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    wrote = experience(prefix="x = 1\n", final=LINE.strip())
    disliked = replace(wrote, id=experience().id, decision=Decision.AVOID, suggested=LINE.strip())
    for item, expected in ((wrote, True), (disliked, False)):
        notebook = Notebook(item)
        shelves.connect(notebook)
        assert knows(await looked(shelves, place(tmp_path)), codec) is expected
        await looked(shelves, place(tmp_path))
        assert notebook.asked[0] is None and notebook.asked[-1] == item.created_at
    shelves.connect(notebook := Notebook())
    notebook.down = True
    (tmp_path / "a.py").write_text(LINE)
    assert knows(await looked(shelves, place(tmp_path)), codec)  # without a database, the files


async def test_what_is_off_limits_is_not_read(shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.py").write_text(LINE)
    shelves.off_limits = (str(tmp_path / "secret"),)
    assert not knows(await looked(shelves, place(tmp_path)), codec)
    shelves.off_limits = ()
    shelves.forget()
    assert knows(await looked(shelves, place(tmp_path)), codec)


async def test_another_base_reads_anew_and_never_looks_up_the_tokens_of_the_last(
    codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(LINE)
    now: list[tuple[TextCodec, int] | None] = [None]
    shelves = Library(lambda: now[0])
    assert await shelves.shelf(place(tmp_path), 10_000) is None  # no base yet
    now[0] = codec
    first = await looked(shelves, place(tmp_path))
    other = TextCodec(Base.load("starter", device="cpu", threads=1).tokenizer)
    assert not knows(first, (other, codec[1]))
    now[0] = (other, codec[1])
    assert knows(await looked(shelves, place(tmp_path)), (other, codec[1]))
    await shelves.close()


async def test_the_first_look_is_waited_for_only_so_long(
    codec: tuple[TextCodec, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text(LINE)
    go = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*_: object) -> list[str]:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return ["a.py"]

    monkeypatch.setattr(library.projects, "files", slow)
    shelves = Library(lambda: codec)
    assert await shelves.shelf(place(tmp_path), 5) is None
    go.set()
    assert await shelves.shelf(place(tmp_path), 10_000) is not None
    await shelves.close()


async def test_the_newest_files_come_first_where_not_all_can_be_held(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "MOST_TOKENS", 10)
    (tmp_path / "new.py").write_text("x = 1\n" * 10)
    (tmp_path / "old.py").write_text(LINE)
    os.utime(tmp_path / "old.py", (time.time() - 1000,) * 2)
    assert not knows(await looked(shelves, place(tmp_path)), codec)


def test_blocks_make_up_the_text_and_stay_when_another_part_changes() -> None:
    text = "".join(f"line_{number} = {number * number}\n" for number in range(2000)) + "tail"
    whole = list(blocks(text))
    assert "".join(whole) == text and max(map(len, whole)) < reading._BLOCK_CHARS + 100
    changed = list(blocks("new = 1\n" + text))
    assert len(set(whole) - set(changed)) <= 3
    assert list(blocks("")) == []


async def test_a_secret_in_a_file_is_no_continuation(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text('zebra_quality = harvest_moon(password="zebra77zebra")\n')
    shelf = await looked(shelves, place(tmp_path))
    assert not knows(shelf, codec, 'zebra_quality = harvest_moon(password="')


async def test_files_that_are_left_alone_are_not_read(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    (tmp_path / "drafts").mkdir()
    (tmp_path / "drafts" / "a.py").write_text(LINE)
    shelves.ignore = ("drafts/",)
    assert not knows(await looked(shelves, place(tmp_path)), codec)


async def test_nor_what_was_written_in_them_before(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    wrote = experience(prefix="x = 1\n", final=LINE.strip(), path="drafts/a.py")
    shelves.ignore = ("drafts/",)
    shelves.connect(Notebook(wrote))
    assert not knows(await looked(shelves, place(tmp_path)), codec)
    shelves.ignore = ()
    shelves.connect(Notebook(wrote))
    assert knows(await looked(shelves, place(tmp_path)), codec)

"""What the person's code says word for word: read from real files, and from what they wrote lately."""

from __future__ import annotations

import asyncio
import os
import subprocess
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
from npllm.projects import Listing
from npllm.types import Decision, Experience, Place, StoreError, Trace
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

    async def traces(self, since: datetime | None, *, language: str | None = None, limit: int = 2000) -> list[Trace]:
        self.asked.append(since)
        if self.down:
            raise StoreError("down")
        found = [trace(item) for item in self.written if item.place.language == language]
        found = [item for item in found if since is None or item.created_at >= since]
        return sorted(found, key=lambda item: item.created_at, reverse=True)[:limit]


def trace(item: Experience) -> Trace:
    return Trace(
        *(item.id, item.revision, item.place, item.prefix[-1000:], item.suggested, item.final_text),
        *(item.outcome, item.decision, item.created_at),
    )


@pytest.fixture
async def shelves(codec: tuple[TextCodec, int], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    monkeypatch.setattr(library, "REST_S", 0.0)
    monkeypatch.setattr(library, "REST_SHARE", 0)
    made = Library(lambda: codec)
    made.off_limits = ()
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
    known = known_at(Reader(codec[0]), above, "", codec[1], index, shelf.without if shelf else None)
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


async def test_what_git_cannot_say_takes_nothing_away(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, broken = tmp_path / "project", tmp_path / "bin" / "git"
    root.mkdir()
    await asyncio.to_thread(subprocess.run, ["git", "-C", str(root), "init", "-q"], check=True)
    (root / "a.py").write_text(LINE)
    await asyncio.to_thread(subprocess.run, ["git", "-C", str(root), "add", "a.py"], check=True)
    assert knows(await looked(shelves, place(root)), codec)
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 128\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    assert knows(await looked(shelves, place(root)), codec)


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
        assert notebook.asked[0] is None and notebook.asked[-1] == item.created_at - library.REVISED_FOR
    shelves.connect(notebook := Notebook())
    notebook.down = True
    (tmp_path / "a.py").write_text(LINE)
    assert knows(await looked(shelves, place(tmp_path)), codec)  # without a database, the files


async def test_what_became_of_a_text_later_counts(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    wrote = experience(prefix="x = 1\n", final=LINE.strip())
    later = experience(1, prefix="x = 1\n", final="y = 2")
    notebook = Notebook(wrote, later)
    shelves.connect(notebook)
    assert knows(await looked(shelves, place(tmp_path)), codec)
    notebook.written[0] = replace(wrote, final_text="", revision=1)
    assert not knows(await looked(shelves, place(tmp_path)), codec), "it was deleted"
    notebook.written[0] = replace(wrote, revision=2)
    assert knows(await looked(shelves, place(tmp_path)), codec)
    notebook.written[0] = replace(wrote, final_text="", revision=1)
    assert knows(await looked(shelves, place(tmp_path)), codec), "an older revision says nothing"


async def test_what_is_ignored_from_now_on_counts_no_more(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    wrote = experience(prefix="x = 1\n", final=LINE.strip())
    there = replace(wrote.place, uri=(tmp_path / "drafts" / "a.py").as_uri(), path="drafts/a.py", project=str(tmp_path))
    shelves.connect(Notebook(replace(wrote, place=there)))
    assert knows(await looked(shelves, place(tmp_path)), codec)
    (tmp_path / ".npllmignore").write_text("drafts/\n")
    assert not knows(await looked(shelves, place(tmp_path)), codec)


async def test_nothing_is_read_before_it_is_known_what_is_off_limits(
    codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(LINE)
    shelves = Library(lambda: codec)
    assert shelves.look(place(tmp_path)) is None and await shelves.shelf(place(tmp_path), 10_000) is None
    shelves.off_limits = ()
    assert knows(await looked(shelves, place(tmp_path)), codec)
    await shelves.close()


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
    shelves.off_limits = ()
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

    def slow(*_: object) -> Listing:
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        return Listing(["a.py"], whole=True)

    monkeypatch.setattr(library.projects, "files", slow)
    shelves = Library(lambda: codec)
    shelves.off_limits = ()
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
    monkeypatch.setattr(library, "MOST_TOKENS", 1000)
    assert knows(await looked(shelves, place(tmp_path)), codec)
    monkeypatch.setattr(library, "MOST_TOKENS", 10)
    assert not knows(await looked(shelves, place(tmp_path)), codec), "what is beyond the bound goes"


async def test_a_key_is_no_suggestion_even_where_its_text_is_cut_in_pieces(
    shelves: Library, codec: tuple[TextCodec, int], tmp_path: Path
) -> None:
    body = "".join(f"{number:064x}\n" for number in range(300))
    (tmp_path / "a.py").write_text(
        f'KEY = """-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----"""\n'
    )
    found = await looked(shelves, place(tmp_path))
    assert len(found.index) < 100


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

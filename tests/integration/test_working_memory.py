"""Working memory through the real assistant: edit in one document, complete in another. Shipped starter, PostgreSQL."""

# ruff: noqa: F811
from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from npllm.assist import context
from npllm.assist.assistant import Assistant
from npllm.config import Config
from npllm.evaluation.ablation.desk import awake
from npllm.models import decoding
from npllm.types import Snippet
from tests.benchmarks.working import Tabs
from tests.fixtures_memory import database_url, postgres, store_config  # noqa: F401

OLD = "import os\n\n\nclass Flock:\n    limit = 3\n"
EDIT = (
    "\n    def migrate_flock(self, zebra_width, gnu_height):\n"
    "        self.herd_register.append(zebra_width * gnu_height)\n"
    "        self.herd_register.sort(key=self.migration_order)\n"
    "        self.announce_migration(self.herd_register)\n"
)
ABOVE = "class Quokka:\n    def __init__(self, zebra_width, gnu_height):\n        self.limit = 3\n"
TAIL = EDIT.replace("flock", "herd").partition("        self.announce")[0] + "        "
TRUTH = "self.announce_migration(self.herd_register)"
KEY = "AKIA" + "Q3EGRZPLM7XWDTNA"


@pytest.fixture
async def assistant(store_config: Config) -> AsyncIterator[Assistant]:
    memory = replace(store_config.memory, working=True, record=False, wait_ms=60_000)
    async with awake(replace(store_config, memory=memory)) as made:
        yield made


@pytest.fixture
def tabs(assistant: Assistant, tmp_path: Path) -> Tabs:
    workspace = tmp_path / "project"
    workspace.mkdir()
    return Tabs(assistant, workspace)


def edited(tabs: Tabs, path: str, old: str = OLD, edit: str = EDIT, at: int | None = None) -> str:
    """Open a document and type into it."""
    uri = tabs.open(path, old, "python")
    begin = len(old) if at is None else at
    for number, char in enumerate(edit):
        tabs.change(uri, begin + number, begin + number, char)
    return uri


async def seen(tabs: Tabs, uri: str, offset: int | None = None) -> tuple[Snippet, ...]:
    """What is on the desk for a place, as a request gets it."""
    text = tabs.text(uri)
    place = context.place(uri, "python", len(text) if offset is None else offset, (str(tabs.workspace),))
    _, _, working = await tabs.assistant._offering._recall(place, *context.window(text, place.offset), text)
    return working


async def test_an_edit_in_one_document_helps_in_another(tabs: Tabs, assistant: Assistant) -> None:
    edited(tabs, "flock.py")
    uri = tabs.open("zoo.py", ABOVE + TAIL + "\n", "python")
    at = len(ABOVE + TAIL)
    [piece] = await seen(tabs, uri, at)
    assert (piece.path, piece.experience_id) == ("flock.py", None)
    assert EDIT.strip("\n") in piece.text
    with_it = await tabs.score(uri, at, TRUTH)
    await assistant.configure(replace(assistant.config, memory=replace(assistant.config.memory, working=False)))
    without = await tabs.score(uri, at, TRUTH)
    assert (with_it.memories, without.memories) == (1, 0) and with_it.nats < without.nats


async def test_what_does_not_make_the_last_lines_likelier_stays_out_of_the_prompt(tabs: Tabs) -> None:
    edited(tabs, "other.py", "x = 1\n", "assert '<p>Lorem ipsum dolor sit amet</p>' and '<span id=q>' and 0x7f\n")
    uri = tabs.open("zoo.py", ABOVE + TAIL + "\n", "python")
    assert await seen(tabs, uri, len(ABOVE + TAIL))
    assert (await tabs.score(uri, len(ABOVE + TAIL), TRUTH)).memories == 0


async def test_it_is_the_text_as_it_stands_now(tabs: Tabs, assistant: Assistant) -> None:
    uri = edited(tabs, "flock.py")
    zoo = tabs.open("zoo.py", ABOVE, "python")
    tabs.change(uri, 0, 0, "# a line far above, which moves what was edited\n" * 40)
    at = tabs.text(uri).index("gnu_height)\n        self.herd_register.sort")
    tabs.change(uri, at, at + len("gnu_height"), "emu_height")
    found = "\n".join(piece.text for piece in await seen(tabs, zoo))
    assert "zebra_width * emu_height)" in found and "zebra_width * gnu_height)" not in found
    assert "# a line far above" in found, "it was edited, too"
    begin = tabs.text(uri).index("\n    def migrate_flock")
    tabs.change(uri, begin, len(tabs.text(uri)), "")
    assert "migrate_flock" not in "\n".join(piece.text for piece in await seen(tabs, zoo))
    assistant.closed(uri)
    assert await seen(tabs, zoo) == ()


async def test_what_is_imported_is_there_by_its_first_lines(tabs: Tabs) -> None:
    filler = "".join(f"def filler_{n}(value):\n    return value * {n}\n\n\n" for n in range(40))
    wanted = "def count_herd(register, *, since):\n    return sum(one.at > since for one in register)\n"
    tabs.open("herd.py", filler + wanted + "\n\n" + filler.replace("filler", "other"), "python")
    text = "from herd import (\n    count_herd,\n    filler_7,\n)\n\n\ndef report(register):\n    return "
    zoo = tabs.open("zoo.py", text, "python")
    assert await seen(tabs, zoo) == (), "imported, but not used here"
    tabs.change(zoo, len(text), len(text), "count_herd(")
    [piece] = await seen(tabs, zoo)
    assert piece.path == "herd.py" and piece.text == wanted


async def test_the_same_pieces_in_the_same_order_while_the_person_types(tabs: Tabs) -> None:
    edited(tabs, "flock.py")
    edited(tabs, "herd.py", "y = 1\n\n\n", "def register_of(place):\n    return place.register[0]\n")
    tabs.open("later.py", "def count_herd(register):\n    return 1\n", "python")
    uri = tabs.open("zoo.py", "from later import count_herd\n\n\n", "python")
    first = await seen(tabs, uri)
    assert [piece.path for piece in first] == ["herd.py", "flock.py"], "the latest nearest to the cursor"
    for char in "def quokka(register):\n    total = 0\n    return total + ":
        text = tabs.text(uri)
        tabs.change(uri, len(text), len(text), char)
        await tabs.complete(uri, len(text) + 1)
        assert await seen(tabs, uri) == first
    tabs.change(uri, len(tabs.text(uri)), len(tabs.text(uri)), "count_herd(")
    used = await seen(tabs, uri)
    assert used[1:] == first and used[0].path == "later.py", "what is new stands nearest to the cursor"


async def test_the_keys_and_values_of_the_prompt_before_serve_the_next(
    tabs: Tabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[tuple[int, ...]] = []
    real = decoding.complete
    monkeypatch.setattr(decoding, "complete", lambda *a, **k: (prompts.append(a[1]), real(*a, **k))[1])
    for path in ("flock.py", "flight.py"):
        edited(tabs, path, OLD, EDIT.replace("flock", path[:-3]))
    at = len(ABOVE + TAIL)
    uri = tabs.open("zoo.py", ABOVE + TAIL + "\n", "python")
    for typed in ("quokka", " = ", "[", "wombat", ", "):  # nothing that is suggested
        tabs.change(uri, at, at, typed)
        at += len(typed)
        await tabs.complete(uri, at)
        assert (await tabs.score(uri, at, "gnu")).memories >= 1
    assert len(prompts) == 5
    for before, after in itertools.pairwise(prompts):
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
        assert shared >= len(before) - 2, "all but the token that was being typed"


async def test_what_is_left_alone_is_never_there(tabs: Tabs, assistant: Assistant) -> None:
    (tabs.workspace / ".npllmignore").write_text("private/\n")
    uris = [edited(tabs, path) for path in ("private/flock.py", "forgotten/flock.py", "listed.py")]
    elsewhere = Tabs(assistant, tabs.workspace.parent / "another")
    edited(elsewhere, "flock.py")
    zoo = tabs.open("zoo.py", ABOVE, "python")
    assistant.resources.library.off_limits = (str(tabs.workspace / "forgotten"),)
    await assistant.configure(replace(assistant.config, memory=replace(assistant.config.memory, ignore=("listed.py",))))
    assert await seen(tabs, zoo) == ()
    assistant.resources.library.off_limits = None  # as long as the database has not said it
    tabs.change(uris[1], 0, 0, "# more\n")
    assert await seen(tabs, zoo) == ()
    assistant.resources.library.off_limits = ()
    assert [piece.path for piece in await seen(tabs, zoo)] == ["forgotten/flock.py"]
    assistant._outdate()
    assert await seen(tabs, zoo) == (), "something was forgotten"


async def test_secrets_are_replaced(tabs: Tabs) -> None:
    edited(tabs, "flock.py", OLD, f'\naws_access_key_id = "{KEY}"\nregion = "eu"\n')
    zoo = tabs.open("zoo.py", ABOVE, "python")
    [piece] = await seen(tabs, zoo)
    assert KEY not in piece.text and "<secret:" in piece.text and 'region = "eu"' in piece.text


async def test_a_branch_switch_is_no_edit(tabs: Tabs) -> None:
    uri = edited(tabs, "flock.py")
    tabs.change(uri, 0, len(tabs.text(uri)), "z = 1\n" * 1000)
    zoo = tabs.open("zoo.py", ABOVE, "python")
    assert await seen(tabs, zoo) == ()

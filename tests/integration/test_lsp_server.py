# ruff: noqa: F811
"""The real server over stdio: what it announces, suggests, records, and how it meets what is wrong."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from lsprotocol import types as lsp

from npllm.config import load, merge
from npllm.evaluation.client import Editor
from npllm.feedback import reward
from npllm.memory import codec
from npllm.memory.store import Store
from npllm.types import OutcomeKind
from tests.fixtures_memory import database_url, make_suggestion, postgres  # noqa: F401
from tests.lsp_session import session, settings, until

CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return "


def process_of(editor) -> int:
    return editor._client._server.pid


@pytest.fixture
def given(practised_model, database_url):
    """Settings with a database of the test's own."""
    return settings(practised_model, database={"url": database_url})


async def stored(home: Path, url: str = ""):
    """All experiences, from a second client of the same database."""
    store = await Store.connect(merge(load(home), {"database": {"url": url}}, source="the test"))
    try:
        return await store.experiences_since(None, limit=100)
    finally:
        await store.close()


async def test_initialize_is_answered_before_torch_is_loaded(home, tmp_path, given, database_url):
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        maps = Path(f"/proc/{process_of(editor)}/maps").read_text()
        assert "libtorch" not in maps
        capabilities = editor._client.protocol  # the handshake is over
        assert capabilities is not None
        await editor.ready(60)
        assert "libtorch" in Path(f"/proc/{process_of(editor)}/maps").read_text()


async def test_a_suggestion_accepted_by_its_command_is_one_experience(home, tmp_path, given, database_url):
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        assert offered is not None
        await editor.accept(uri, offered)
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["suggestions"] == 1
        assert status["counts"]["experiences"] == 1
        (experience,) = await stored(home, database_url)
    assert experience.outcome is OutcomeKind.ACCEPTED
    assert experience.final_text.strip() == offered.text.strip()
    assert experience.reward == pytest.approx(reward.weight(1.0, reward.size(offered.text)))
    assert experience.place.path == "shapes.py"
    assert experience.prefix == CODE
    assert len(experience.embedding or ()) in (0, 384)


async def test_acceptance_is_inferred_from_the_change_alone(home, tmp_path, given, database_url):
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        editor.change(uri, offered.start, offered.end, offered.text)
        await editor.execute("npllm.evaluation.settle")
        (experience,) = await stored(home, database_url)
    assert experience.outcome is OutcomeKind.ACCEPTED


async def test_what_was_typed_instead_is_learned(home, tmp_path, given, database_url):
    wanted = "width * height * depth"
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        assert not wanted.startswith(offered.text)
        for index, char in enumerate(wanted):
            editor.change(uri, len(CODE) + index, len(CODE) + index, char)
        await editor.execute("npllm.evaluation.settle")
        (experience,) = await stored(home, database_url)
    assert experience.outcome is OutcomeKind.REJECTED
    assert experience.final_text == wanted
    assert experience.suggested == offered.text
    assert experience.reward < 0


async def test_what_was_refused_is_not_offered_in_another_file_nor_by_the_next_server(
    home, tmp_path, practised_model, database_url
):
    def given(**feedback):
        database, memory = {"url": database_url}, {"enabled": False}
        return settings(practised_model, database=database, memory=memory, feedback={"min_visible_ms": 0, **feedback})

    async def offered_in(editor, name):
        found = await editor.complete(editor.open(name, CODE, "python"), len(CODE))
        return found.text if found else None

    async with session(home, tmp_path / "w", given()) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        refused = (await editor.complete(uri, len(CODE))).text
        editor.change(uri, len(CODE), len(CODE), "width * height * depth\n")
        await editor.execute("npllm.evaluation.settle")
        assert await offered_in(editor, "other.py") != refused
    async with session(home, tmp_path / "w", given()) as editor:
        assert await offered_in(editor, "tomorrow.py") != refused
    async with session(home, tmp_path / "w", given(avoid_refused=False)) as editor:
        assert await offered_in(editor, "control.py") == refused


async def test_feedback_changes_the_reward_seventy_to_thirty(home, tmp_path, given, database_url):
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        await editor.accept(uri, offered)
        answer = await editor.execute("npllm.feedback", {"emoji": "👎", "comment": "wrong again"})
        assert answer["recorded"]
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["feedback"] == 1
        (experience,) = await stored(home, database_url)
    assert experience.emotional is not None and experience.emotional < 0
    assert experience.reward == pytest.approx(0.7 * experience.implicit + 0.3 * experience.emotional, abs=1e-5)


async def test_typing_through_a_suggestion_is_served_from_the_cache(home, tmp_path, given, database_url):
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        assert len(offered.text) > 2
        editor.change(uri, len(CODE), len(CODE), offered.text[:2])
        again = await editor.complete(uri, len(CODE) + 2)
        assert again is not None
        assert again.text == offered.text[2:]
        assert again.item.command.arguments == offered.item.command.arguments
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["suggestions"] == 1


async def test_positions_behind_emoji_and_crlf(home, tmp_path, given, database_url):
    text = 'name = "😀é"\r\nvalue = '
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("emoji.py", text, "python")
        inside = text.index("é") + 1
        offered = await editor.complete(uri, inside)
        if offered is not None:
            assert (offered.start, offered.end) == (inside, inside)
        offered = await editor.complete(uri, len(text))
        assert offered is not None
        editor.change(uri, offered.start, offered.end, offered.text)
        await editor.execute("npllm.evaluation.settle")
        experiences = await stored(home, database_url)
    accepted = [item for item in experiences if item.outcome is OutcomeKind.ACCEPTED]
    assert [item.prefix for item in accepted] == [text]


async def test_the_rewrite_action_is_resolved_lazily(home, tmp_path, given, database_url):
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        client = editor._client
        span = lsp.Range(lsp.Position(1, 4), lsp.Position(1, 25))
        params = lsp.CodeActionParams(lsp.TextDocumentIdentifier(uri), span, lsp.CodeActionContext([]))
        actions = await client.text_document_code_action_async(params)
        assert [action.edit for action in actions] == [None]
        resolved = await client.code_action_resolve_async(actions[0])
        assert (resolved.edit is None) == (resolved.disabled is not None)
        if resolved.edit is not None:
            (change,) = resolved.edit.document_changes
            assert change.edits[0].range == span
            assert change.text_document.version == 1
        rewriting = lsp.CodeActionContext([], only=[lsp.CodeActionKind.RefactorRewrite])
        empty = lsp.CodeActionParams(lsp.TextDocumentIdentifier(uri), lsp.Range(span.start, span.start), rewriting)
        assert not await client.text_document_code_action_async(empty)


async def test_a_newer_request_takes_the_older_one_s_place(home, tmp_path, given):
    given["completion"]["max_new_tokens"] = 200
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        first = asyncio.create_task(editor.complete(uri, len(CODE)))
        second = asyncio.create_task(editor.complete(uri, len(CODE) - 1))
        older, newer = await asyncio.gather(first, second)
        assert older is None
        assert newer is not None


async def test_an_editor_without_inline_completion_gets_an_entry_in_its_list(home, tmp_path, given):
    editor = Editor(tmp_path / "w", home, home / "stderr.log", inline=False)
    (tmp_path / "w").mkdir()
    await editor.start(given)
    try:
        await editor.ready(60)
        text = CODE.replace("    return ", "    return vol")
        uri = editor.open("shapes.py", text, "python")
        position = editor._documents[uri].position(len(text))
        params = lsp.CompletionParams(lsp.TextDocumentIdentifier(uri), position)
        (item,) = (await editor._client.text_document_completion_async(params)).items
        assert item.text_edit.new_text.startswith("vol")
        assert item.filter_text.startswith("vol")
        assert item.text_edit.range.start.character == position.character - 3
    finally:
        await editor.stop()


async def test_anger_is_heard_at_once(home, tmp_path, given):
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        await editor.execute("npllm.feedback", {"emoji": "😡"})
        again = await editor.complete(uri, len(CODE))
        assert again is None or again.text != offered.text


@pytest.mark.parametrize("end", ["eof", "sigterm"])
async def test_what_was_pending_is_written_when_the_editor_dies(home, tmp_path, given, database_url, end):
    wanted = "width * height * depth"
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        await editor.complete(uri, len(CODE))
        for index, char in enumerate(wanted):
            editor.change(uri, len(CODE) + index, len(CODE) + index, char)
        await editor.ask_status()  # all of it has arrived
        server = editor._client._server
        if end == "eof":
            server.stdin.close()
        else:
            server.terminate()
        await asyncio.wait_for(server.wait(), 30)
    async with session(home, tmp_path / "w", given) as editor:
        await until(editor, lambda status: status.backlog == 0 and status.counts["experiences"] >= 1)
    (experience,) = await stored(home, database_url)
    assert experience.final_text == wanted


async def test_wrong_settings_are_told_and_the_server_lives(home, tmp_path, given):
    given["sleep"]["idle_s"] = "soon"
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        await until(editor, lambda _: bool(editor.shown_errors))
        assert "sleep.idle_s must be float" in editor.shown_errors[0]


async def test_a_broken_config_file_is_told_and_the_server_lives(home, tmp_path, given):
    (home / "config.toml").write_text("[sleep\nidle_s = 3")
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        await until(editor, lambda _: bool(editor.shown_errors))
        assert "config.toml" in editor.shown_errors[0]
        await editor.ready(60)


async def test_a_base_without_weights_is_an_error_state_with_the_mend(home, tmp_path, given):
    folder = tmp_path / "empty-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    async with session(home, tmp_path / "w", {**given, "base": {"model": str(folder)}}, ready=False) as editor:
        status = await until(editor, lambda status: status.state == "error")
        assert "safetensors" in status.message
        uri = editor.open("a.py", "x = ", "python")
        assert await editor.complete(uri, 4) is None


async def test_an_unreachable_database_costs_memory_and_nothing_else(home, tmp_path, practised_model):
    nowhere = {"url": "postgresql://nobody@127.0.0.1:9/nothing", "connect_timeout_s": 2.0}
    given = settings(practised_model, database=nowhere)
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        status = await until(editor, lambda status: bool(status.base) and bool(status.problems))
        assert len(status.problems) == 1
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        assert offered is not None
        await editor.accept(uri, offered)
        await until(editor, lambda status: status.backlog >= 2)


async def test_killed_in_the_middle_nothing_acknowledged_is_lost(home, tmp_path, practised_model):
    given = settings(practised_model)  # with the embedded PostgreSQL of the data folder
    async with session(home, tmp_path / "w", given) as editor:
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        await editor.accept(uri, offered)  # answered when it is on disk
        os.kill(process_of(editor), 9)
    async with session(home, tmp_path / "w", given) as editor:
        await until(editor, lambda status: status.backlog == 0 and status.counts["outcomes"] >= 1)
    (experience,) = await stored(home)
    assert experience.outcome is OutcomeKind.ACCEPTED


def test_commands_say_what_is_wrong_in_one_line(home):
    (home / "config.toml").write_text("[memory]\nsnipets = 3\n")
    done = subprocess.run([sys.executable, "-m", "npllm", "status"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "memory.snipets" in done.stderr and "snippets" in done.stderr


def test_doctor_names_the_broken_part(home, practised_model, monkeypatch):
    monkeypatch.setenv("NPLLM_BASE_MODEL", str(home / "nowhere"))
    done = subprocess.run([sys.executable, "-m", "npllm", "doctor"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    bad = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
    assert len(bad) == 1 and "base" in bad[0] and "nowhere" in bad[0]


async def test_files_that_are_left_alone_get_nothing_and_leave_nothing(home, tmp_path, practised_model, database_url):
    given = settings(practised_model, database={"url": database_url}, memory={"ignore": ["drafts/"]})
    (tmp_path / "w" / "private").mkdir(parents=True)
    (tmp_path / "w" / ".npllmignore").write_text("private/\n")
    async with session(home, tmp_path / "w", given) as editor:
        for name in ("drafts/a.py", "private/a.py", "credentials.json"):
            uri = editor.open(name, CODE, "python")
            assert await editor.complete(uri, len(CODE)) is None, name
            editor.change(uri, len(CODE), len(CODE), "width * height")
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        assert offered is not None
        await editor.accept(uri, offered)
        status = await editor.execute("npllm.evaluation.settle")
        assert status["counts"]["suggestions"] == 1
        (experience,) = await stored(home, database_url)
    assert experience.place.path == "shapes.py"


async def test_a_journal_at_its_bound_is_told_and_suggestions_go_on(home, tmp_path, practised_model):
    (home / "journal").mkdir(mode=0o700)
    full = b"".join(codec.encode(make_suggestion(prefix="x = 1\n" * 5000)) for _ in range(30))
    (home / "journal" / "0.jsonl").write_bytes(full)
    nowhere = {"url": "postgresql://nobody@127.0.0.1:9/nothing", "connect_timeout_s": 2.0}
    given = settings(practised_model, database=nowhere, journal={"max_mb": 1})
    async with session(home, tmp_path / "w", given, ready=False) as editor:
        await until(editor, lambda status: bool(status.base))
        uri = editor.open("shapes.py", CODE, "python")
        offered = await editor.complete(uri, len(CODE))
        await editor.accept(uri, offered)
        status = await until(editor, lambda status: any("journal.max_mb" in text for text in status.problems))
        assert status.backlog == 30
        other = editor.open("other.py", CODE, "python")
        assert await editor.complete(other, len(CODE)) is not None
    assert [path.name for path in (home / "journal").iterdir() if path.stat().st_size] == ["0.jsonl"]


async def test_what_a_server_writes_is_its_users_alone(tmp_path, practised_model, given):
    home = tmp_path / "made" / "by the server"
    before = os.umask(0o022)
    try:
        tmp_path.joinpath("made").mkdir()
        home.mkdir(mode=0o700)
        async with session(home, tmp_path / "w", given) as editor:
            uri = editor.open("shapes.py", CODE, "python")
            await editor.accept(uri, await editor.complete(uri, len(CODE)))
            await editor.execute("npllm.evaluation.settle")
    finally:
        os.umask(before)
    ours = [path for path in home.rglob("*") if path.name != "stderr.log"]  # the test's
    assert {path.name for path in ours} >= {"server.log", "journal"}
    assert [path for path in ours if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []


def test_the_embedded_servers_socket_is_its_users_alone(postgres):
    folder = Path(postgres.host)
    assert folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) == 0o700

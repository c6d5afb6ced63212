"""`npllm base use | list | info` over real folders, a real database and a hub of our own."""

# ruff: noqa: F811

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers

from npllm import cli, config
from npllm.bases import command
from npllm.bases import profile as profiles
from npllm.bases.learned import Learned, Lineage, look
from npllm.memory.store import Store
from npllm.models.fingerprints import fingerprint
from npllm.models.locate import resolve
from npllm.sleep import lora
from npllm.sleep.gathering import gather
from npllm.types import AdapterVersion, ModelError, VersionState, new_id
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_place,
    postgres,
    store,
    store_config,
)

OLD = '# my settings\n[base]\nmodel = "starter"  # for now\n'


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(autouse=True)
def settings_file(home: Path) -> Path:
    (home / "config.toml").write_text(OLD)
    return home / "config.toml"


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# --- use ---


def test_use_a_folder(folder: Path, home: Path, capsys: pytest.CaptureFixture[str], settings_file: Path) -> None:
    assert cli.main(["base", "use", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert settings_file.read_text() == OLD.replace('"starter"', f'"{folder}"')
    tiny = fingerprint(folder)
    parameters = sum(p.numel() for p in transformers.AutoModelForCausalLM.from_pretrained(folder).parameters())
    for expected in (
        f"base          {folder}\n",
        f"LlamaForCausalLM, {parameters / 1e6:.1f}M parameters",
        "fill-in-the-middle (starter format)",
        "2048 tokens, of which 1024 are used",
        f"{4 * parameters / 1e6:.0f} MB for its weights in float32 on cpu, once for all editor windows",
        tiny,
        f"The base is now {folder}, no longer starter",
        "Editors that are open go on with starter until their server is restarted",
    ):
        assert expected in said.out
    assert list((home / "cache" / "weights").glob(f"{tiny[:32]}-*")), "the first start finds the shared copy there"


def test_a_folder_is_found_from_everywhere(
    folder: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    assert cli.main(["base", "use", "model"]) == 0
    assert config.load().base.model == str(folder)
    assert cli.main(["base", "use", "./model/"]) == 0
    assert "was the base already" in capsys.readouterr().out
    monkeypatch.chdir("/")
    assert cli.main(["base", "info"]) == 0
    assert f"{folder} (in use)" in capsys.readouterr().out


def test_a_variable_that_goes_over_the_file_is_told(
    folder: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NPLLM_BASE_MODEL", "starter")
    assert cli.main(["base", "use", str(folder)]) == 0
    told = (
        "NPLLM_BASE_MODEL is set to starter, which goes over config.toml: unset it. Until then starter is the base.\n"
    )
    assert f"{told}In config.toml the base is now {folder}, no longer starter" in capsys.readouterr().out
    assert f'model = "{folder}"' in settings_file.read_text()
    assert cli.main(["base", "use", str(folder)]) == 0
    assert f"{told}{folder} was the base already in config.toml.\n" in capsys.readouterr().out
    monkeypatch.setenv("NPLLM_BASE_MODEL", str(folder))
    assert cli.main(["base", "use", "starter"]) == 0
    assert f"In config.toml the base is now starter, no longer {folder}" in capsys.readouterr().out
    assert cli.main(["base", "use", str(folder)]) == 0, "the file has another, whatever the variable says"
    assert f"The base is now {folder}, no longer starter" in capsys.readouterr().out
    assert f'model = "{folder}"' in settings_file.read_text()


@pytest.mark.parametrize(
    ("where", "error", "says"),
    [
        ("load", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Close something"),
        ("load", MemoryError(), "MemoryError. Close something"),
        ("load", OSError(5, "Input/output error"), "Input/output error. Choose another base"),
        ("forward", RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Close something"),
        (
            "forward",
            IndexError("index out of range in self\nsecond line"),
            "index out of range in self. Choose another",
        ),
        ("weights", MemoryError(), "MemoryError. Close something"),
        ("hash", PermissionError(13, "Permission denied"), "Mend the permissions there"),
    ],
)
def test_whatever_goes_wrong_is_one_sentence(
    folder: Path,
    settings_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    error: Exception,
    says: str,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    place = {
        "load": "npllm.bases.command.Base.load",
        "forward": "transformers.LlamaForCausalLM.forward",
        "weights": "transformers.LlamaForCausalLM.from_pretrained",
        "hash": "npllm.models.fingerprints._hash_content",
    }
    monkeypatch.setattr(place[where], fails)
    assert cli.main(["base", "use", str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("npllm: ") and said.count("\n") == 1 and says in said
    assert settings_file.read_text() == OLD


@pytest.mark.parametrize("name", ["/no/such/folder", "~/no-such-folder", "~nobody-here/x", "C:\\x", "./no", "a b"])
@pytest.mark.parametrize("command", ["info", "use"])
def test_a_folder_that_is_not_there(
    name: str, command: str, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["base", command, name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("npllm: There is no model folder ") and said.count("\n") == 1
    settings_file.write_text(f"[base]\nmodel = '{name}'\n")
    assert cli.main(["base", "list"]) == 0
    assert "There is no model folder" in capsys.readouterr().out


def test_a_folder_whose_name_is_no_text(folder: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = folder.rename(folder.parent / "model-\udcff")
    for verb in ("use", "info"):
        assert cli.main(["base", verb, str(odd)]) == 1
        said = capsys.readouterr().err
        assert "is no text, so it cannot be written down" in said and said.count("\n") == 1
    assert settings_file.read_text() == OLD


def test_a_folder_that_must_not_be_looked_at(
    folder: Path, settings_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.exists

    def exists(self: Path) -> bool:
        if self == folder:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "exists", exists)
    assert cli.main(["base", "use", str(folder)]) == 1
    assert "cannot be looked at (Permission denied). Mend the permissions there." in capsys.readouterr().err


def test_the_same_weights_elsewhere_wait_for_nothing(
    folder: Path, settings_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is any other base looked at for it."""
    found = profiles.profile(folder, device="cpu", cache=home / "cache", hashed=True)
    assert found.fingerprint is not None
    known = Learned((Lineage(found.fingerprint, "x", ("language:python",), datetime.now(UTC)),))
    monkeypatch.setattr(command.shelf, "entries", None)
    copy = str(shutil.copytree(folder, folder.parent / "copy"))
    assert command._waiting(copy, found, known, home / "cache") is None
    assert command._waiting(copy, replace(found, fingerprint="ab"), known, home / "cache") == known.lineages[0]
    assert command._waiting("/no/such/folder", found, known, home / "cache") is None


def other(folder: Path, config: Any) -> None:
    """Put another architecture's random weights into a folder, under the tokenizer that is there."""
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def bert(folder: Path) -> None:
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=640, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
    )
    model.save_pretrained(folder)


def bert_as_if_causal(folder: Path) -> None:
    """An architecture that AutoModelForCausalLM takes, and that looks at what stands later all the same."""
    other(
        folder,
        transformers.BertConfig(
            vocab_size=640,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.3,  # weights that matter, as trained ones do
        ),
    )


def no_numbers(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(folder)


def truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 100)


def other_weights(folder: Path) -> None:
    change(folder / "config.json", num_hidden_layers=3)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "as pickle only"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (bert, "holds BertForMaskedLM, not a causal language model"),
        (bert_as_if_causal, "looks at what stands later, so it is not a causal language model"),
        (lambda folder: (folder / "config.json").write_text("{torn"), "config.json cannot be read"),
        (lambda folder: change(folder / "config.json", model_type=["llama"]), "not a model's configuration"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (truncated, "is damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is damaged"),
        (other_weights, "incomplete"),
        (no_numbers, "computes no numbers"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (shutil.rmtree, "There is no model folder"),
    ],
)
def test_what_cannot_be_served_leaves_the_old_base(
    folder: Path,
    settings_file: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    spoil(folder)
    assert cli.main(["base", "use", str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("npllm: ") and said.count("\n") == 1 and says in said
    assert settings_file.read_text() == OLD
    assert "The base is now" not in said


def test_a_settings_file_that_cannot_be_read_is_told_before_anything_else(
    folder: Path, home: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings_file.write_text("[base")
    assert cli.main(["base", "use", str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "config.toml cannot be read" in said.err
    assert settings_file.read_text() == "[base" and not (home / "cache").exists()


@pytest.mark.parametrize(("total", "code"), [(1000, 1), (1 << 40, 0)])
def test_more_than_this_machine_has(
    folder: Path,
    settings_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    total: int,
    code: int,
) -> None:
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(total=total, available=1000))
    assert cli.main(["base", "use", str(folder)]) == code
    said = capsys.readouterr()
    if code:
        assert "for its weights in float32, and this machine has 0 MB. Choose a smaller base." in said.err
        assert settings_file.read_text() == OLD
    else:
        assert "free now: close something" in said.out and settings_file.read_text() != OLD


def test_a_base_that_nothing_can_be_learned_for_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other(folder, transformers.GPT2Config(vocab_size=640, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    assert cli.main(["base", "use", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "GPT2LMHeadModel" in said and "64 tokens, of which 64 are used" in said
    assert "nothing is learned" not in said, "its output layer is linear, and so good enough"

    def none(*_: object) -> None:
        raise ModelError("A GPT2LMHeadModel has no linear layers that an adapter could be put on.")

    monkeypatch.setattr(lora, "targets", none)
    assert cli.main(["base", "use", str(folder)]) == 0
    assert "It has no linear layers that an adapter could be put on" in capsys.readouterr().out


def test_a_plain_tokenizer_means_prefix_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {chr(code): code - 32 for code in range(32, 127)} | {"\n": 95, "<eos>": 96}
    plain = Tokenizer(models.BPE(words, []))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    folder = tmp_path / "plain"
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>").save_pretrained(folder)
    other(
        folder,
        transformers.LlamaConfig(
            vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        ),
    )
    assert cli.main(["base", "use", str(folder)]) == 0
    assert "prefix only: it does not see what stands behind the cursor" in capsys.readouterr().out


# --- what becomes of what was learned ---


async def learn(store: Store, home: Path, base: str, name: str, until: datetime, **changes: Any) -> AdapterVersion:
    """A version as a sleep leaves it, as far as is asked here."""
    version_id = new_id()
    folder = home / "adapters" / version_id.hex
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    given: dict[str, Any] = {
        "id": version_id,
        "context": "language:python",
        "base_fingerprint": base,
        "parent": None,
        "consolidation_id": new_id(),
        "folder": f"adapters/{version_id.hex}",
        "sha256": "0" * 64,
        "state": VersionState.PUBLISHED,
        "reason": "",
        "metrics": {"until": until.timestamp()},
        "created_at": datetime.now(UTC),
    }
    version = AdapterVersion(**{**given, **changes})
    await store.insert_adapter_version(replace(version, state=VersionState.REJECTED))
    if version.state is VersionState.PUBLISHED:
        await store.publish(version)
    return version


async def fill(store: Store, home: Path, folder: Path) -> None:
    """Twelve experiences; the starter has learned from nine of them, the folder's base from three of Python's."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [start + timedelta(hours=number) for number in range(8)]
    python = [make_experience(created_at=time) for time in times]
    place = make_place(path="a.ts", language="typescript")
    script = [make_experience(created_at=time, context="language:typescript", place=place) for time in times[:4]]
    await store.write([*python, *script])
    starter = fingerprint(resolve("starter"))
    await learn(store, home, starter, "starter", times[4])
    await learn(store, home, starter, "starter", times[3], context="language:typescript")
    await learn(store, home, fingerprint(folder), str(folder), times[2])
    await learn(store, home, fingerprint(folder), str(folder), times[7], state=VersionState.REJECTED)
    await learn(store, home, "ab" * 32, "Some/Model-3B", times[5])


async def test_what_is_ahead_is_what_the_next_sleep_finds_new(
    store: Store, store_config: config.Config, folder: Path
) -> None:
    await fill(store, store_config.home, folder)
    nothing_is_enough = config.merge(store_config, {"sleep": {"min_holdout": 1000}}, source="the test")
    for base, ahead in ((fingerprint(folder), 5 + 4), ("cd" * 32, 12)):
        known = await look(store_config, base)
        jobs, waiting = await gather(store, nothing_is_enough, base, new_id(), threading.Event())
        assert not jobs and sum(report.new for report in waiting) == known.ahead == ahead
        assert known.experiences == 12


async def test_adapters_wait_and_come_back(
    store: Store,
    store_config: config.Config,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fill(store, store_config.home, folder)
    monkeypatch.setenv("NPLLM_DATABASE_URL", store_config.database.url)
    assert await asyncio.to_thread(cli.main, ["base", "use", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "adapters      language:python\n" in said
    assert "to learn      9 of 12 experiences, in the next sleeps" in said
    assert "waiting       adapters of Some/Model-3B (language:python), for its return" in said
    assert "The adapters of starter (language:python, language:typescript) wait for its return." in said
    assert await asyncio.to_thread(cli.main, ["base", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  starter ") and "language:typescript" in line for line in lines)
    assert any(line.startswith(f"* {folder} ") and "adapters for language:python" in line for line in lines)
    assert any(line.startswith("  Some/Model-3B ") and "not found here" in line for line in lines)
    assert await asyncio.to_thread(cli.main, ["base", "use", "starter"]) == 0
    assert "to learn      3 of 12 experiences" in capsys.readouterr().out
    assert len(await store.adapter_versions()) == 5, "nothing was forgotten"


def test_without_a_database_everything_works_and_none_is_made(
    folder: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["use", str(folder)], ["list"], ["info"]):
        assert cli.main(["base", *words]) == 0
    assert "0 of 0 experiences" in capsys.readouterr().out
    assert not (home / "postgres").exists()


def test_a_database_that_does_not_answer_is_said_and_no_more(
    folder: Path, settings_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("NPLLM_DATABASE_URL", f"postgresql://nobody@127.0.0.1:{port}/none")
    assert cli.main(["base", "use", str(folder)]) == 0
    assert "learned       not known: The database at" in capsys.readouterr().out
    assert settings_file.read_text() != OLD
    assert cli.main(["base", "list"]) == 0
    assert "Which bases have adapters is not known: The database at" in capsys.readouterr().out


def test_list_survives_a_base_that_is_broken(
    folder: Path, settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["base", "use", str(folder)]) == 0
    truncated(folder)
    capsys.readouterr()
    assert cli.main(["base", "list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("*")]
    assert "is damaged" in line
    assert cli.main(["base", "info"]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert cli.main(["base", "use", "starter"]) == 0, "and there is a way back"


# --- the hub ---


class Shelf(BaseHTTPRequestHandler):
    """As much of a model hub as is asked for: folders by name, and a record of what was asked."""

    models: dict[str, Path]
    asked: list[str]
    broken: set[str]  # files that end too early
    stalled: set[str]  # files that stop in the middle, and the connection stays
    ended: threading.Event

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        repo = parts[3] if parts[:2] == ["api", "models"] else parts[1]
        folder = self.models.get(repo)
        if folder is None:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if parts[0] == "api":
            names = sorted(path.name for path in folder.iterdir())
            siblings = [{"rfilename": name, "size": (folder / name).stat().st_size} for name in names]
            siblings.append({"rfilename": "onnx/tokenizer_config.json", "size": 3})
            info = {"id": f"some/{repo}", "sha": "a" * 40, "siblings": siblings, "tags": [], "downloads": 0}
            return self.send(200, json.dumps(info).encode(), {}, body)
        if body:
            self.asked.append(f"{repo}/{parts[-1]}")
        content = (folder / parts[-1]).read_bytes()
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{repo}-{parts[-1]}"'}
        return self.send(
            200, content, headers, body, body and parts[-1] in self.broken, body and parts[-1] in self.stalled
        )

    def send(
        self, status: int, content: bytes, headers: dict[str, str], body: bool, cut: bool = False, stalled: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut or stalled else content)
        if stalled:
            self.ended.wait(60)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path) -> Iterator[tuple[str, type[Shelf]]]:
    models = {name: Path(shutil.copytree(tiny_model, tmp_path / "hub" / name)) for name in ("good", "bert", "pickled")}
    bert(models["bert"])
    (models["pickled"] / "model.safetensors").rename(models["pickled"] / "pytorch_model.bin")
    for name in ("pytorch_model.bin", "modeling_evil.py", "consolidated.safetensors", "training_args.bin"):
        (models["good"] / name).write_bytes(b"not to be fetched")
    sharded = models["sharded"] = tmp_path / "hub" / "sharded"
    shutil.copytree(tiny_model, sharded)
    (sharded / "model.safetensors").unlink()
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    model.save_pretrained(sharded, max_shard_size="100KB")
    handler = type(
        "TinyShelf",
        (Shelf,),
        {
            "models": models,
            "asked": [],
            "broken": set(),
            "stalled": set(),
            "ended": threading.Event(),
        },
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    handler.ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


def run(words: list[str], cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`npllm base ...` as a process whose hub and cache are the given ones."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "http", "HTTP"))}
    return subprocess.run(
        [sys.executable, "-m", "npllm.cli", "base", *words],
        env={**inherited, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], says: str, settings_file: Path) -> None:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Fetching") and line.strip()]
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert lines[0].startswith("npllm: ") and says in lines[0]
    assert settings_file.read_text() == OLD


def test_use_an_id(hub: tuple[str, type[Shelf]], home: Path, tmp_path: Path, settings_file: Path) -> None:
    address, shelf = hub
    cache = tmp_path / "hf"
    done = run(["use", "some/good"], cache, HF_ENDPOINT=address)
    assert done.returncode == 0, done.stderr
    assert "Fetching some/good" in done.stderr and "100%" not in done.stdout
    assert settings_file.read_text() == OLD.replace('"starter"', '"some/good"')
    fetched = {name.removeprefix("good/") for name in shelf.asked}
    assert fetched == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    listed = run(["list"], cache, HF_HUB_OFFLINE="1")
    assert "* some/good " in listed.stdout
    again = run(["use", "some/good"], cache, HF_ENDPOINT="http://127.0.0.1:9")
    assert again.returncode == 0 and "was the base already" in again.stdout, "once fetched, no network is needed"
    assert run(["use", "starter"], cache).returncode == 0
    assert "  some/good " in run(["list"], cache, HF_HUB_OFFLINE="1").stdout


def test_weights_in_several_files(hub: tuple[str, type[Shelf]], tmp_path: Path, home: Path) -> None:
    address, shelf = hub
    done = run(["use", "some/sharded"], tmp_path / "hf", HF_ENDPOINT=address)
    assert done.returncode == 0, done.stderr
    assert len([name for name in shelf.asked if name.endswith(".safetensors")]) > 1


def test_what_the_hub_cannot_give(hub: tuple[str, type[Shelf]], tmp_path: Path, settings_file: Path) -> None:
    address, shelf = hub
    cache = tmp_path / "hf"
    refused(run(["use", "some/nowhere"], cache, HF_ENDPOINT=address), "There is no model 'some/nowhere'", settings_file)
    refused(run(["use", "some/pickled"], cache, HF_ENDPOINT=address), "has pickled weights only", settings_file)
    refused(run(["use", "some/bert"], cache, HF_ENDPOINT=address), "BertForMaskedLM", settings_file)
    assert not any(name.endswith((".bin", ".safetensors")) for name in shelf.asked), "no weights for nothing"
    refused(run(["use", "bad//id"], cache, HF_ENDPOINT=address), "There is no model folder", settings_file)
    refused(run(["use", "a--b/c"], cache, HF_ENDPOINT=address), "is no Hugging Face id", settings_file)
    refused(run(["use", "some/good"], cache, HF_HUB_OFFLINE="1"), "because HF_HUB_OFFLINE is set", settings_file)
    closed = run(["use", "some/good"], cache, HF_ENDPOINT="http://127.0.0.1:9")
    refused(closed, "the hub cannot be reached", settings_file)


def test_a_download_that_breaks_goes_on_later(
    hub: tuple[str, type[Shelf]], tmp_path: Path, settings_file: Path
) -> None:
    address, shelf = hub
    cache = tmp_path / "hf"
    shelf.broken.add("model.safetensors")
    started = time.monotonic()
    refused(run(["use", "some/good"], cache, HF_ENDPOINT=address), "broke off", settings_file)
    assert time.monotonic() - started < 100
    shelf.broken.clear()
    shelf.asked.clear()
    assert run(["use", "some/good"], cache, HF_ENDPOINT=address).returncode == 0
    assert "good/tokenizer.json" not in shelf.asked, "what was there is not fetched again"


def test_a_download_that_stops_in_the_middle_does_not_hang(
    hub: tuple[str, type[Shelf]], tmp_path: Path, settings_file: Path
) -> None:
    address, shelf = hub
    shelf.stalled.add("model.safetensors")
    started = time.monotonic()
    done = run(["use", "some/good"], tmp_path / "hf", HF_ENDPOINT=address, HF_HUB_DOWNLOAD_TIMEOUT="1")
    refused(done, "broke off", settings_file)
    assert time.monotonic() - started < 60


def test_a_hub_that_says_nothing_does_not_hang(tmp_path: Path, settings_file: Path) -> None:
    """It takes the connection, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        accepted = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(mute.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        started = time.monotonic()
        done = run(["use", "some/good"], tmp_path / "hf", HF_ENDPOINT=f"http://127.0.0.1:{mute.getsockname()[1]}")
        refused(done, "the hub cannot be reached", settings_file)
        assert accepted and time.monotonic() - started < 60
        for connection in accepted:
            connection.close()


def test_a_disk_without_room(hub: tuple[str, type[Shelf]], tmp_path: Path, settings_file: Path) -> None:
    address, shelf = hub
    code = "import sys; from npllm.models import hub; hub.ROOM = 1 << 60; from npllm import cli; sys.exit(cli.main())"
    done = run_code(code, tmp_path / "hf", address)
    refused(done, "GB free. Make room, or set HF_HOME", settings_file)
    assert "good/model.safetensors" not in shelf.asked


def run_code(code: str, cache: Path, address: str) -> subprocess.CompletedProcess[str]:
    """`npllm base use some/good` where something is not as it is here."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "http", "HTTP"))}
    return subprocess.run(
        [sys.executable, "-c", code, "base", "use", "some/good"],
        env={**inherited, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": address},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import psutil; real = psutil.virtual_memory(); psutil.virtual_memory = lambda: real._replace(total=1000)",
         "and this machine has 0 MB. Choose a smaller base."),
        ("import os, torch; torch.cuda.is_available = lambda: False; "
         "open(os.environ['NPLLM_HOME'] + '/config.toml', 'a').write('device = \"cuda\"\\n')", "torch sees no GPU"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_here_is_not_fetched(
    hub: tuple[str, type[Shelf]], tmp_path: Path, settings_file: Path, code: str, says: str
) -> None:
    address, shelf = hub
    done = run_code(f"import sys; {code}; from npllm import cli; sys.exit(cli.main())", tmp_path / "hf", address)
    assert done.returncode == 1 and says in done.stderr and done.stderr.strip().count("\n") <= 1, done.stderr
    assert 'model = "starter"' in settings_file.read_text()
    assert "good/model.safetensors" not in shelf.asked


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            "OSError(28, 'No space left on device')",
            "is full. Make room (what has been fetched is kept), or set HF_HOME",
        ),
        (
            "RuntimeError('Data processing error: IO Error: No space left on device (os error 28)')",
            "is full. Make room",
        ),
        ("PermissionError(13, 'Permission denied', '/cache')", "Mend the permissions there, or set HF_HOME"),
        ("PermissionError(13, 'Permission denied')", "Try again when the network is there"),
    ],
)
def test_what_the_disk_refuses_is_not_called_the_networks_fault(
    hub: tuple[str, type[Shelf]], tmp_path: Path, settings_file: Path, error: str, says: str
) -> None:
    code = f"""
import sys
import huggingface_hub
def fails(*_, **__):
    raise {error}
huggingface_hub.hf_hub_download = fails
from npllm import cli
sys.exit(cli.main())
"""
    refused(run_code(code, tmp_path / "hf", hub[0]), says, settings_file)


def test_bytes_for_people() -> None:
    assert [profiles.gigabytes(size) for size in (24_900_000, 6_170_000_000)] == ["25 MB", "6.2 GB"]

"""Loading a base, and every way in which it cannot be loaded: one clear message each."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers

import npllm
from npllm import doctor
from npllm.config import BaseConfig, Config
from npllm.models.base import Base, fingerprint, placed, resolve
from npllm.types import ModelError


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoiled."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refused(spec: str | Path, says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        Base.load(str(spec), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_loaded_base_says_what_it_is(tiny_model: Path) -> None:
    base = Base.load(str(tiny_model), device="cpu", threads=1)
    info = base.info
    assert info.folder == tiny_model and info.name == str(tiny_model)
    assert info.fingerprint == fingerprint(tiny_model) and len(info.fingerprint) == 64
    assert info.parameters == sum(parameter.numel() for parameter in base.model.parameters())
    assert (info.context_tokens, info.format_name, info.dtype, info.device) == (2048, "starter", "float32", "cpu")
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training


def test_bf16_weights_are_served_in_fp32_on_a_cpu(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    base = Base.load(str(folder), device="cpu")
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}


def test_weights_in_several_files(folder: Path) -> None:
    before = Base.load(str(folder), device="cpu").digest()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert not (folder / "model.safetensors").exists()
    assert Base.load(str(folder), device="cpu").digest() == before
    sorted(folder.glob("model-*.safetensors"))[0].unlink()
    refused(folder, "a part of its weights")


def test_the_fingerprint_is_of_the_weights(folder: Path, tiny_model: Path) -> None:
    assert fingerprint(folder) == fingerprint(tiny_model)
    change(folder / "generation_config.json", max_length=7)
    assert fingerprint(folder) == fingerprint(tiny_model)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert fingerprint(folder) != fingerprint(tiny_model)


def test_large_files_are_hashed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npllm.models.fingerprints._CACHED_ABOVE", 1)
    cache = tmp_path / "cache"
    first = fingerprint(folder, cache)
    book = cache / "fingerprints.json"
    known = json.loads(book.read_text())
    assert len(known) == 1
    book.write_text(json.dumps(dict.fromkeys(known, "ab" * 32)))
    assert fingerprint(folder, cache) != first, "what is remembered is used"
    os.utime(folder / "model.safetensors")
    assert fingerprint(folder, cache) == first, "a changed file is hashed again"
    book.write_text("{torn")
    assert fingerprint(folder, cache) == first


def test_no_such_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "There is no model folder")
    refused("./nowhere", "There is no model folder")
    refused("what is this?", "There is no model folder")


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    refused(folder / "config.json", "is a file")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights")


def test_a_folder_with_pickled_weights_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"as pickle only \(pytorch_model.bin\)")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no weights")


def test_no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


@pytest.mark.parametrize("text", ["{torn", "[]", "\x00\x01"])
def test_a_corrupt_configuration(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")


def test_a_configuration_that_makes_no_sense(folder: Path) -> None:
    change(folder / "config.json", hidden_size="many")
    refused(folder, "Fetch the model again")


def test_not_a_causal_language_model(folder: Path) -> None:
    change(folder / "config.json", model_type="vit")
    refused(folder, "'vit' model, not a causal language model")
    change(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])
    refused(folder, "BertForMaskedLM, not a causal language model")


def test_a_model_that_wants_its_own_code(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    change(folder / "config.json", model_type="evil", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    refused(folder, "needs code of its own")


def test_corrupt_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    refused(folder, "is damaged")
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(folder, "is damaged")


def test_weights_of_another_size(folder: Path) -> None:
    change(folder / "config.json", hidden_size=32)
    refused(folder, "Fetch the model again")


def test_weights_that_are_not_all_there(folder: Path) -> None:
    change(folder / "config.json", num_hidden_layers=3)
    refused(folder, "incomplete")


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(folder, "has no tokenizer")


def test_a_corrupt_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{torn")
    refused(folder, "tokenizer in .* cannot be read")


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra-{n}>" for n in range(50)])
    tokenizer.save_pretrained(folder)
    refused(folder, "do not belong together")


def test_a_device_that_is_not_there(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="must be"):
        Base.load(str(tiny_model), device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU"):
            Base.load(str(tiny_model), device="cuda")


@pytest.mark.parametrize(
    ("device", "parameters", "asleep", "expected"),
    [
        ("auto", 10_600_000, False, ("cpu", torch.float32)),  # token by token a GPU is slower with so little to compute
        ("auto", 10_600_000, True, ("cuda", torch.float32)),
        ("cuda", 10_600_000, False, ("cuda", torch.float32)),  # who says so has it
        ("auto", 3_000_000_000, False, ("cuda", torch.bfloat16)),
        ("auto", 3_000_000_000, True, ("cuda", torch.bfloat16)),
        ("cpu", 3_000_000_000, True, ("cpu", torch.float32)),
    ],
)
def test_where_there_is_a_gpu_a_small_base_answers_from_the_cpu_and_learns_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, parameters: int, asleep: bool, expected: tuple[str, torch.dtype]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    where, dtype = placed(device, parameters, asleep=asleep)
    assert (where.type, dtype) == expected


def test_what_sleeps_loads_is_loaded_to_learn_and_nothing_else_is() -> None:
    """A call that forgets it works without a GPU, and with one keeps the sleep off it, or an editor on it."""
    package = Path(npllm.__file__).parent
    said: dict[str, list[bool]] = {}
    for file in package.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Base.load":
                name = file.relative_to(package).as_posix()
                said.setdefault(name, []).append(any(word.arg == "asleep" for word in call.keywords))
    assert said.pop("doctor.py") == [False, True], "it tries both"
    assert len(said) > 6
    learns = {name: name.startswith("sleep/") or name == "evaluation/ablation/speed.py" for name in said}
    assert said == {name: [learns[name]] * len(found) for name, found in said.items()}


def test_doctor_says_that_a_gpu_cannot_be_learned_on(
    tiny_model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that torch announces and this machine does not have: the base answers all the same."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = doctor._base(Config(home=home, base=BaseConfig(model=str(tiny_model))))
    assert not found.ok and "cannot be loaded on cuda, where sleeps learn" in found.found
    assert 'base.device = "cpu"' in found.mend
    settled = doctor._base(Config(home=home, base=BaseConfig(model=str(tiny_model), device="cpu")))
    assert settled.ok and "learns on" not in settled.found


def test_without_a_gpu_everything_is_on_the_cpu_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asleep in (False, True):
        where, dtype = placed("auto", 3_000_000_000, asleep=asleep)
        assert (where.type, dtype) == ("cpu", torch.float32)


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as is asked for: one model with safetensors, one with pickles, nothing else."""

    model: Path

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        files = [file.name for file in self.model.iterdir()]
        if parts[:2] == ["api", "models"]:
            names = {"good": files, "pickled": ["config.json", "pytorch_model.bin"]}.get(parts[3])
            if names is None:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            siblings = [{"rfilename": name} for name in names]
            if "tree" in parts:
                listed = [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in names]
                return self.answer(200, json.dumps(listed).encode(), {}, body)
            info = {"id": "some/" + parts[3], "sha": "a" * 40, "siblings": siblings, "tags": [], "downloads": 0}
            return self.answer(200, json.dumps(info).encode(), {}, body)
        content = (self.model / parts[-1]).read_bytes()
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{parts[-1]}-1"'}
        return self.answer(200, content, headers, body)

    def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"model": tiny_model}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


ASK = """
import sys
from npllm.models.locate import resolve
from npllm.types import ModelError
for spec in sys.argv[1:]:
    try:
        print("FOUND", resolve(spec))
    except ModelError as error:
        print("REFUSED", error)
"""


def ask(specs: list[str], home: Path, **environment: str) -> list[str]:
    """What a fresh process answers, whose hub and cache are the given ones."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "http", "HTTP"))}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *specs],
        env={**inherited, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line.startswith(("FOUND", "REFUSED"))]


def test_a_base_by_its_hub_id(hub: str, tmp_path: Path, tiny_model: Path) -> None:
    good, pickled, nowhere = ask(["some/good", "some/pickled", "some/nowhere"], tmp_path, HF_ENDPOINT=hub)
    assert good.startswith("FOUND")
    assert fingerprint(Path(good.removeprefix("FOUND "))) == fingerprint(tiny_model)
    assert "pickled weights only" in pickled
    assert "There is no model 'some/nowhere'" in nowhere
    again, other = ask(["some/good", "some/other"], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert again == good, "once fetched, the network is not needed"
    assert "the hub cannot be reached" in other
    (offline,) = ask(["some/other"], tmp_path, HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached" in offline


def test_the_starter_is_found_where_it_is_shipped() -> None:
    try:
        assert (resolve("starter") / "config.json").is_file()
    except ModelError as error:
        assert "npllm starter build" in str(error)

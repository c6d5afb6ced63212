"""The shared copy of a base's weights: the same bits, one file for all processes, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from npllm.models import fingerprints, network, weights
from npllm.models.adapters import AdapterSet
from npllm.models.base import Base
from npllm.models.engine import AdapterChoice
from npllm.models.fingerprints import fingerprint
from npllm.models.folder import read_config
from npllm.models.torch_engine import TorchEngine
from npllm.sleep import lora
from tests.integration.test_models_adapters import make_adapter


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as bases are shipped: in 16 bit."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    transformers.AutoModelForCausalLM.from_pretrained(copy, dtype=torch.bfloat16).save_pretrained(copy)
    return copy


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(folder: Path, cache: Path) -> Base:
    return Base.load(str(folder), device="cpu", cache=cache)


def copies(cache: Path) -> list[Path]:
    return sorted((cache / "weights").iterdir()) if (cache / "weights").is_dir() else []


def uncached(folder: Path) -> Any:
    return network.load(folder, read_config(folder), torch.float32).eval().requires_grad_(False)


def mapped(base: Base, file: Path) -> bool:
    """Whether every parameter lies in this process's mapping of a file."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(file)):
            begin, _, end = line.split()[0].partition("-")
            ranges.append(range(int(begin, 16), int(end, 16)))
    return all(any(p.data_ptr() in place for place in ranges) for p in base.model.parameters())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_first_load_writes_a_copy_and_all_loads_map_it(folder: Path, cache: Path) -> None:
    first = load(folder, cache)
    (file,) = copies(cache)
    assert file.name.startswith(first.info.fingerprint[:32]) and file.stat().st_mode & 0o077 == 0
    written = file.stat().st_mtime_ns
    second = load(folder, cache)
    assert copies(cache) == [file] and file.stat().st_mtime_ns == written, "it is written once"
    plain = uncached(folder)
    for base in (first, second):
        assert mapped(base, file)
        assert network._same(base.model, plain), "bit for bit what a load without it gives"
        assert not any(parameter.requires_grad for parameter in base.model.parameters())
        assert not base.model.training and base.info == first.info
        assert base.model.config.name_or_path == str(folder)


@pytest.mark.parametrize(
    "config",
    [
        transformers.Qwen2Config(
            vocab_size=640,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        ),
        transformers.GPT2Config(vocab_size=640, n_embd=32, n_layer=2, n_head=2, n_positions=64),
        transformers.MixtralConfig(
            vocab_size=640,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=2,
        ),
        transformers.MambaConfig(vocab_size=640, hidden_size=32, num_hidden_layers=2, state_size=4),
    ],
    ids=lambda config: str(config.model_type),
)
def test_other_architectures_share_too(folder: Path, cache: Path, config: Any) -> None:
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    plain = uncached(folder)
    for _ in range(2):
        base = load(folder, cache)
        assert network._same(base.model, plain)
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.inference_mode():
            assert torch.equal(base.model(input_ids=ids).logits, plain(input_ids=ids).logits)
        (file,) = copies(cache)
        assert mapped(base, file)


def test_serving_adapters_and_training_leave_the_copy_as_it_is(folder: Path, cache: Path, tmp_path: Path) -> None:
    load(folder, cache)
    (file,) = copies(cache)
    content = file.read_bytes()
    base = load(folder, cache)
    digest = base.digest()
    version = make_adapter(tmp_path / "adapter", folder, base.info.fingerprint)
    adapters, engine = AdapterSet(base), TorchEngine(base)
    adapters.load(version, tmp_path / "adapter", "language:python")
    bare = engine.prefill([5, 6, 7, 8], threading.Event()).clone()
    engine.use_adapters(AdapterChoice(((version, 1.0),)))
    assert not torch.equal(engine.prefill([5, 6, 7, 8], threading.Event()), bare)
    adapters.unload(version)

    child = load(folder, cache)
    adapted = lora.attach(child.model, lora.Shape(4, 8, False), seed=0).train()
    learned = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    ids = torch.tensor([[5, 6, 7, 8]])
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in learned)
    torch.optim.SGD(learned, lr=1.0).step()
    assert child.digest() == base.digest() == digest
    assert file.read_bytes() == content


def test_what_somebody_writes_stays_their_own(folder: Path, cache: Path) -> None:
    one, other = load(folder, cache), load(folder, cache)
    (file,) = copies(cache)
    content, digest = file.read_bytes(), other.digest()
    next(one.model.parameters()).zero_()
    assert one.digest() != digest and other.digest() == digest and file.read_bytes() == content


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def replace_by_another(file: Path) -> None:
    content = file.read_bytes()
    file.unlink()
    (file.parent / file.name.replace(file.stem[-64:], "ab" * 32)).write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, empty, replace_by_another])
def test_a_damaged_copy_is_made_again(folder: Path, cache: Path, damage: Any) -> None:
    digest = load(folder, cache).digest()
    (file,) = copies(cache)
    content = file.read_bytes()
    damage(file)
    assert load(folder, cache).digest() == digest
    assert copies(cache) == [file] and file.read_bytes() == content


def test_a_copy_that_is_whole_but_wrong_is_not_used(folder: Path, cache: Path) -> None:
    """Its hash fits its name, but its tensors are another model's."""
    digest = load(folder, cache).digest()
    (file,) = copies(cache)
    copies_of = weights.SharedWeights(cache)
    key = weights.Key(fingerprint(folder), file.stem.split("-")[1])
    file.unlink()
    assert copies_of.write(key, {"somebody.else": torch.zeros(3)}) is not None
    assert load(folder, cache).digest() == digest
    assert copies(cache) == [file], "the strange one is gone"


def test_a_folder_that_is_replaced_while_it_is_read_leaves_no_copy(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded then is not what the fingerprint says."""
    real = network.load

    def replaced(*arguments: Any) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.model.norm.weight.fill_(0.5)
        model.save_pretrained(folder)
        return real(*arguments)

    monkeypatch.setattr(network, "load", replaced)
    load(folder, cache)
    assert copies(cache) == []
    monkeypatch.undo()
    assert network._same(load(folder, cache).model, uncached(folder))
    (file,) = copies(cache)
    assert file.name.startswith(fingerprint(folder)[:32])


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory"), RuntimeError("mmap (12)")])
@pytest.mark.parametrize("where", ["mapping", "assembly"])
def test_a_copy_is_not_thrown_away_because_memory_or_files_ran_out(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    load(folder, cache)
    (file,) = copies(cache)
    content, written = file.read_bytes(), file.stat().st_ino

    def fails(*_: object, **__: object) -> None:
        raise error

    if where == "mapping":
        monkeypatch.setattr(weights.safetensors.torch, "load_file", fails)
    else:
        monkeypatch.setattr(network, "_assembled", fails)
    assert network._same(load(folder, cache).model, uncached(folder))
    assert copies(cache) == [file] and (file.read_bytes(), file.stat().st_ino) == (content, written)


def test_a_file_written_over_while_it_is_hashed_is_hashed_again(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "_CACHED_ABOVE", 1)
    real = fingerprints._hash_content

    def meanwhile(file: Path) -> str:
        found = real(file)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns + 1))
        return found

    monkeypatch.setattr(fingerprints, "_hash_content", meanwhile)
    old = fingerprint(folder, cache)
    monkeypatch.setattr(fingerprints, "_hash_content", real)
    now = fingerprint(folder, cache)
    monkeypatch.setattr(fingerprints, "_CACHED_ABOVE", 1 << 40)
    assert now == fingerprint(folder) != old


def test_the_book_keeps_what_is_there(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, locked, gone, new = (tmp_path / name for name in ("a|b", "locked", "gone", "new"))
    for file in (odd, locked, gone, new):
        file.write_bytes(file.name.encode())
    for file in (odd, locked, gone):
        fingerprints.file_hash(file, cache, remembered=True)
    gone.unlink()
    real = Path.exists

    def exists(self: Path) -> bool:
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "exists", exists)
    fingerprints.file_hash(new, cache, remembered=True)
    book = json.loads((cache / "fingerprints.json").read_text())
    assert [key.rsplit("|", 2)[0] for key in book] == [str(odd), str(locked), str(new)]


def test_another_configuration_is_another_copy(folder: Path, cache: Path) -> None:
    """The weights are the same, what transformers makes of them may not be."""
    load(folder, cache)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rope_theta": 50.0}))
    base = load(folder, cache)
    assert network._same(base.model, uncached(folder)) and len(copies(cache)) == 2


def test_old_copies_are_pruned(folder: Path, cache: Path, tmp_path: Path) -> None:
    days = 86400.0
    load(folder, cache)
    (mine,) = copies(cache)
    for name, age in (("recent", 2 * days), ("older", 3 * days), ("ancient", 40 * days)):
        file = mine.parent / f"{name}.safetensors"
        file.write_bytes(b"x")
        os.utime(file, (time.time() - age,) * 2)
    (mine.parent / ".abandoned.tmp").write_bytes(b"x")
    os.utime(mine.parent / ".abandoned.tmp", (time.time() - days,) * 2)
    (mine.parent / ".writing.tmp").write_bytes(b"x")
    os.utime(mine, (time.time() - 50 * days, mine.stat().st_mtime))
    load(folder, cache)
    assert {file.name for file in copies(cache)} == {mine.name, "recent.safetensors", ".writing.tmp"}
    assert time.time() - mine.stat().st_atime < 60, "that it was used is noted"
    os.utime(mine.parent / "recent.safetensors", (time.time() - 31 * days,) * 2)
    load(folder, cache)
    assert {file.name for file in copies(cache)} == {mine.name, ".writing.tmp"}


LIMITED = """
import resource, sys
from pathlib import Path
from npllm.models.base import Base
if sys.argv[3:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
base = Base.load(sys.argv[1], device="cpu", cache=Path(sys.argv[2]))
print(base.digest())
"""


def run(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_room_for_the_copy_the_base_is_served_as_before(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load(folder, tmp_path / "other").digest()
    assert run(LIMITED, folder, cache, 10_000) == digest, "the file cannot be written to its end"
    assert copies(cache) == []
    monkeypatch.setattr(weights, "ROOM", 1 << 60)
    assert load(folder, cache).digest() == digest
    assert copies(cache) == []


@pytest.mark.parametrize("place", ["/proc/npllm", "file"])
def test_where_nothing_can_be_written_the_base_is_served_as_before(folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Path(place) if place.startswith("/") else tmp_path / place
    assert load(folder, cache).digest() == load(folder, tmp_path / "cache").digest()


def test_two_processes_that_start_at_once(folder: Path, cache: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, str(folder), str(cache)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [load(folder, cache).digest()] * 2
    assert len(copies(cache)) == 1


def test_a_process_that_is_killed_while_it_writes_does_no_harm(folder: Path, cache: Path) -> None:
    code = LIMITED.replace("base =", "import os, npllm.models.weights as w; w.sync = lambda _: os._exit(9)\nbase =")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, folder, cache], timeout=120, check=False)
    assert done.returncode == 9
    assert [file.suffix for file in copies(cache)] == [".tmp"]
    base = load(folder, cache)
    assert network._same(base.model, uncached(folder))
    assert len(list((cache / "weights").glob("*.safetensors"))) == 1


SHARER = """
import sys, threading
from pathlib import Path
from npllm.models.base import Base
from npllm.models.torch_engine import TorchEngine
base = Base.load(sys.argv[1], device="cpu", threads=1, cache=Path(sys.argv[2]))
engine = TorchEngine(base)
engine.prefill(list(range(5, 105)), threading.Event())
engine.step(7)
print("ready", flush=True)
sys.stdin.readline()
"""


def smaps(pid: int, name: str) -> dict[str, int]:
    """KiB by kind, over all mappings of a file, and their inodes."""
    found: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head, *rest = line.split()
        if "-" in head and not head.endswith(":"):
            inside = line.endswith(name)
            if inside:
                found["inode"] = int(rest[3])
        elif inside and rest[-1:] == ["kB"]:
            found[head.rstrip(":")] = found.get(head.rstrip(":"), 0) + int(rest[0])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
def test_two_processes_share_the_pages(tmp_path: Path, cache: Path) -> None:
    """After a forward through all layers, nothing of the weights is any process's own."""
    from tests.tiny import make_tiny_model

    folder = make_tiny_model(tmp_path / "larger", hidden=256, layers=4)
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    command = [sys.executable, "-W", "ignore", "-c", SHARER, str(folder), str(cache)]
    load(folder, cache)
    (file,) = copies(cache)
    windows = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for window in windows:
            assert window.stdout is not None and window.stdout.readline() == "ready\n"
        size = file.stat().st_size // 1024
        found = [smaps(window.pid, str(file)) for window in windows]
        for one in found:
            assert one["inode"] == file.stat().st_ino
            assert one["Rss"] > 0.9 * size, "the forward has read them"
            assert one["Private_Dirty"] == one["Private_Clean"] == 0, "and no page is its own"
            assert one["Shared_Clean"] > 0.9 * size
            assert one["Pss"] < 0.6 * size
    finally:
        for window in windows:
            window.communicate("go\n", timeout=60)

# ruff: noqa: F811
"""`npllm adapters`: with a real database, real PEFT folders, and a real server whose adapters change under it."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from npllm import cli
from npllm.config import Config
from npllm.lineage.choosing import NoSuchVersion, find
from npllm.lineage.difference import differences
from npllm.memory.lineage import quiet
from npllm.memory.store import Store
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.manifest import WEIGHTS, Manifest, read_manifest, sha256_file, write_manifest
from npllm.sleep.gathering import gather
from npllm.types import CerebellumVersion, Pattern, StoreError, VersionState, new_id
from tests.fixtures_cerebellum import make_cerebellum
from tests.fixtures_lineage import make_version, write_adapter
from tests.fixtures_memory import database_url, postgres  # noqa: F401
from tests.fixtures_sleep import MORNING, PYTHON, config_for, from_source, write_settings
from tests.lsp_session import session, settings, until
from tests.tiny import make_tiny_model

Run = Callable[..., "asyncio.Future[tuple[int, str, str]]"]


@pytest.fixture
def config(home: Path, tiny_model: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("NPLLM_DATABASE_URL", database_url)
    made = config_for(home, tiny_model)
    write_settings(made)
    return replace(made, database=replace(made.database, url=database_url))


@pytest.fixture
def run(config: Config, capsys: pytest.CaptureFixture[str]) -> Run:
    """`npllm adapters ...` in a thread, which has an event loop of its own: status, stdout, stderr."""

    async def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(cli.main, ["adapters", *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command  # type: ignore[return-value]


async def test_what_there_is_is_listed_shown_and_compared(store: Store, config: Config, run: Run) -> None:
    assert (await run("list"))[1].startswith("No adapter yet")
    ids = [new_id() for _ in range(5)]
    files = [("/p/one", "a.py"), ("/p/one", "b.py"), ("/p/two", "c.py")]
    first = await make_version(store, config, learned=ids[:3], held_out=ids[4:], project_files=files[:1], rank=4)
    second = await make_version(store, config, parent=first, learned=ids[1:4], project_files=files, rank=8, seed=1)
    status, out, _ = await run("list")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert set(lines) == {first.id.hex[-8:], second.id.hex[-8:]}
    assert "retired" in lines[first.id.hex[-8:]]
    assert "published" in lines[second.id.hex[-8:]] and first.id.hex[-8:] in lines[second.id.hex[-8:]]

    status, out, _ = await run("show", second.id.hex[-8:])
    assert status == 0
    assert f"{second.id.hex[-8:]} (published) <- {first.id.hex[-8:]} (retired)" in out
    assert "3 experiences" in out and "2 files of /p/one" in out and "rank 8" in out

    status, out, _ = await run("diff", first.id, second.id.hex[10:])
    assert status == 0
    assert f"only {first.id.hex[-8:]} learned 1 experiences and 0 files" in out
    assert f"only {second.id.hex[-8:]} learned 1 experiences and 2 files: /p/one/b.py, /p/two/c.py" in out


async def test_the_difference_is_that_of_the_whole_matrices(tmp_path: Path, tiny_model: Path) -> None:
    write_adapter(tmp_path / "a", tiny_model, rank=4, seed=1)
    write_adapter(tmp_path / "b", tiny_model, rank=6, seed=2)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in "ab")
    found = {layer.layer: layer for layer in differences(tmp_path / "a", tmp_path / "b")}
    assert len(found) == len(one) / 2
    for layer, said in found.items():
        name = f"base_model.model.{layer}."
        whole = [2 * t[name + "lora_B.weight"] @ t[name + "lora_A.weight"] for t in (one, two)]  # alpha = 2 rank
        wanted = [float(torch.linalg.norm(m)) for m in (*whole, whole[0] - whole[1])]
        assert [said.first, said.second, said.difference] == pytest.approx(wanted, rel=1e-4)
    same = differences(tmp_path / "a", tmp_path / "a")
    assert max(layer.difference for layer in same) < 1e-5


async def test_an_id_may_be_short_but_not_ambiguous(store: Store, config: Config, run: Run) -> None:
    first = await make_version(store, config)
    second = await make_version(store, config, parent=first)
    one = replace(first, id=type(first.id)("01900000-0000-7000-8000-00000000abcd"))
    two = replace(first, id=type(first.id)("01900000-0000-7000-8000-0000abcd1234"))
    assert find([one, two], "00ABCD") == one
    assert find([one, two], "abcd") == one, "what it ends with goes before what it holds"
    assert find([one, two], "cd12-34") == two
    with pytest.raises(NoSuchVersion, match="fits 2 versions"):
        find([one, two], "0190")
    for words, said in [
        (["show", "x"], "no part of an id"),
        (["show", "ffffffffffffffff"], "No version has"),
        (["rollback", "language:cobol"], f"Contexts with adapters: {PYTHON}"),
        (["rollback", PYTHON, "abc"], "no part of an id"),
        (["pin", first.id], "retired, not in use"),
        (["export", second.id, config.home], "is there already"),
    ]:
        status, _, err = await run(*words)
        assert (status, err.count("\n")) == (1, 1), err
        assert err.startswith("npllm: ") and said in err


async def test_a_rollback_is_in_the_running_editor_at_once(
    store: Store, config: Config, run: Run, tmp_path: Path, tiny_model: Path, database_url: str
) -> None:
    first = await make_version(store, config, seed=1)
    second = await make_version(store, config, parent=first, seed=2)
    sections = settings(tiny_model, database={"url": database_url})
    async with session(config.home, tmp_path / "w", sections) as editor:
        await until(editor, lambda status: list(status.adapters) == [str(second.id)])
        status, out, err = await run("rollback", PYTHON)
        assert status == 0, err
        assert str(first.id) in out and str(second.id) in out
        await until(editor, lambda status: list(status.adapters) == [str(first.id)])
        assert (await run("rollback", PYTHON, second.id.hex[-10:]))[0] == 0
        await until(editor, lambda status: list(status.adapters) == [str(second.id)])
        assert (await run("rollback", PYTHON, "none"))[0] == 0
        await until(editor, lambda status: list(status.adapters) == [])
    assert [version.state for version in await store.adapter_versions()] == [VersionState.RETIRED] * 2
    status, _, err = await run("rollback", PYTHON)
    assert status == 1 and "Nothing is in use" in err


async def test_a_rollback_to_what_is_not_whole_changes_nothing(store: Store, config: Config, run: Run) -> None:
    first = await make_version(store, config)
    second = await make_version(store, config, parent=first)
    weights = config.home / first.folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    status, _, err = await run("rollback", PYTHON)
    assert status == 1 and "not what the database says" in err
    shutil.rmtree(config.home / first.folder)
    status, _, err = await run("rollback", PYTHON)
    assert status == 1 and "are gone" in err and err.count("\n") == 1
    (published,) = await store.adapter_versions(state=VersionState.PUBLISHED)
    assert published.id == second.id
    assert "files gone" in (await run("list"))[1]


async def test_after_a_rollback_what_the_abandoned_one_had_learned_is_new_again(
    store: Store, config: Config, run: Run
) -> None:
    morning = from_source(40)
    later = from_source(40, start=MORNING + timedelta(days=1), offset=1)
    await store.write([*morning, *later])
    first = await make_version(
        store, config, learned=[one.id for one in morning], until=max(one.created_at for one in morning)
    )
    await make_version(
        store, config, parent=first, learned=[one.id for one in later], until=max(one.created_at for one in later)
    )

    async def new() -> tuple[set[object], object]:
        jobs, _ = await gather(store, config, first.base_fingerprint, new_id(), asyncio.Event())  # type: ignore[arg-type]
        if not jobs:
            return set(), None
        part = jobs[0].part
        return {one.id for one in (*part.learn, *part.inner, *part.held_out)}, jobs[0].parent

    assert await new() == (set(), None)
    assert (await run("rollback", PYTHON))[0] == 0
    ids, parent = await new()
    assert ids == {one.id for one in later}
    assert parent is not None and parent.id == first.id  # type: ignore[attr-defined]

    assert (await run("pin", first.id))[0] == 0
    jobs, waiting = await gather(store, config, first.base_fingerprint, new_id(), asyncio.Event())  # type: ignore[arg-type]
    assert jobs == []
    assert "is pinned" in waiting[0].text
    assert "pinned" in (await run("list"))[1]
    status, _, err = await run("rollback", PYTHON, "none")
    assert status == 1 and "unpin" in err
    assert (await run("unpin", first.id))[0] == 0
    assert (await new())[0] == ids


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about itself
async def test_an_export_is_plain_peft_without_private_paths_and_comes_in_again(
    store: Store, config: Config, run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    project = "/home/ada/secret-client/engine"
    version = await make_version(store, config, learned=[new_id()], project_files=[(project, "src/a.py")])
    for target in (tmp_path / "folder", tmp_path / "packed.tar.gz"):
        status, out, err = await run("export", version.id.hex[-8:], target)
        assert status == 0, err
        assert "last name" in out
    with tarfile.open(tmp_path / "packed.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert sorted(names) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]
    for folder in (tmp_path / "folder", tmp_path / "unpacked"):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(folder))
        own = {name: value for name, value in model.named_parameters() if "lora_B" in name}
        assert own and all(bool((value != 0).any()) for value in own.values())
        text = "".join((folder / name).read_text() for name in ("adapter_config.json", "manifest.json"))
        assert "/home/ada" not in text and str(tiny_model) not in text and str(config.home) not in text
        assert read_manifest(folder).data["project_files"] == [["engine", "src/a.py"]]

    status, _, err = await run("import", tmp_path / "folder")
    assert status == 1 and "is here already" in err
    shutil.rmtree(config.home / version.folder)
    assert (await run("import", tmp_path / "packed.tar.gz"))[0] == 0, "its files were gone, and are back"
    assert sha256_file(config.home / version.folder / WEIGHTS) == version.sha256


async def test_what_comes_in_becomes_a_version_that_can_be_used(
    store: Store, config: Config, run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    write_adapter(tmp_path / "made-elsewhere", tiny_model, seed=5)
    status, _, err = await run("import", tmp_path / "made-elsewhere")
    assert status == 1 and "give --context" in err
    status, out, err = await run("import", tmp_path / "made-elsewhere", "--context", PYTHON)
    assert status == 0, err
    (version,) = await store.adapter_versions()
    assert version.state is VersionState.RETIRED and "Imported from made-elsewhere" in version.reason
    assert f"npllm adapters rollback {PYTHON} {version.id.hex[-8:]}" in out
    assert (await run("rollback", PYTHON, version.id.hex[-8:]))[0] == 0
    (version,) = await store.adapter_versions(state=VersionState.PUBLISHED)
    assert read_manifest(config.home / version.folder).version_id == version.id


async def test_an_adapter_of_another_base_waits_for_it(store: Store, config: Config, run: Run, tmp_path: Path) -> None:
    version = await make_version(store, config)
    assert (await run("export", version.id, tmp_path / "out"))[0] == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest |= {"version_id": str(new_id()), "base_fingerprint": "f" * 64, "parent": None}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    status, out, err = await run("import", tmp_path / "out")
    assert status == 0, err
    assert "waits for that" in out
    assert len(await store.adapter_versions(base_fingerprint="f" * 64)) == 1


@pytest.mark.parametrize("part", ["learned", "negatives"])
async def test_one_that_learned_from_what_was_forgotten_does_not_come_in(
    store: Store, config: Config, run: Run, tmp_path: Path, part: str
) -> None:
    [item] = from_source(1)
    await store.write([item])
    version = await make_version(store, config)
    assert (await run("export", version.id, tmp_path / "out"))[0] == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest |= {"version_id": str(new_id()), "parent": None}
    manifest["data"][part] = [str(item.id)]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    words = ["memory", "forget", "--path", f"{item.place.project}/{item.place.path}", "--yes"]
    assert await asyncio.to_thread(cli.main, words) == 0 and await store.experience(item.id) is None
    status, _, err = await run("import", tmp_path / "out")
    assert status == 1 and "has learned from what you have forgotten" in err
    assert len(await store.adapter_versions()) == 1


def _tar(file: Path, *entries: tuple[str, bytes], link: str = "") -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo("adapter_model.safetensors")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)


async def test_what_is_dangerous_or_damaged_is_refused_in_one_line(
    store: Store, config: Config, run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    good = tmp_path / "good"
    write_adapter(good, tiny_model)
    parts = {path.name: path.read_bytes() for path in good.iterdir()}
    cases: dict[str, str] = {}

    def folder(name: str, said: str, **changes: bytes) -> None:
        shutil.copytree(good, tmp_path / name)
        for file, content in changes.items():
            (tmp_path / name / file.replace("__", ".")).write_bytes(content)
        cases[name] = said

    _tar(tmp_path / "climbs.tar.gz", ("../../evil/adapter_config.json", b"{}"))
    _tar(tmp_path / "absolute.tar.gz", ("/etc/adapter_config.json", b"{}"))
    _tar(tmp_path / "links.tar.gz", ("adapter_config.json", parts["adapter_config.json"]), link="/etc/passwd")
    _tar(tmp_path / "two.tar.gz", *((f"{d}/adapter_config.json", b"{}") for d in "ab"))
    cases |= {"climbs.tar.gz": "outside", "absolute.tar.gz": "outside", "links.tar.gz": "a link"}
    cases |= {"two.tar.gz": "more than one adapter", "not-there": "is not there"}
    (tmp_path / "text.tar.gz").write_text("no archive")
    cases["text.tar.gz"] = "cannot be read"
    folder("pickle", "a pickle", adapter_model__bin=b"\x80\x04")
    folder("script", "no part of a plain adapter", run__py=b"print()")
    folder("empty", "no safetensors", adapter_model__safetensors=b"")
    raw = json.loads(parts["adapter_config.json"])
    folder("dora", "not a plain LoRA", adapter_config__json=json.dumps(raw | {"use_dora": True}).encode())
    shutil.copytree(good, tmp_path / "nan")
    tensors = load_file(good / WEIGHTS)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * float("nan")}, tmp_path / "nan" / WEIGHTS)
    cases["nan"] = "not finite"
    shutil.copytree(good, tmp_path / "wide")
    save_file({key: torch.cat([value, value], dim=-1) for key, value in tensors.items()}, tmp_path / "wide" / WEIGHTS)
    cases["wide"] = "does not fit the base"
    version = await make_version(store, config)
    assert (await run("export", version.id, tmp_path / "changed"))[0] == 0
    (tmp_path / "changed" / WEIGHTS).write_bytes(parts[WEIGHTS] + b" ")
    cases["changed"] = "sha256 differs"
    before = sorted(path.name for path in config.adapters_dir.iterdir())
    for source, said in cases.items():
        status, _, err = await run("import", tmp_path / source, "--context", PYTHON)
        assert (status, err.count("\n")) == (1, 1), (source, err)
        assert said in err, (source, err)
    assert len(await store.adapter_versions()) == 1
    assert sorted(path.name for path in config.adapters_dir.iterdir()) == before
    assert not (tmp_path.parent / "evil").exists()


async def cerebella(store: Store, config: Config, count: int) -> list[CerebellumVersion]:
    """Versions of the cerebellum, each from the one before; the last is in use and knows a pattern."""
    made: list[CerebellumVersion] = []
    for number in range(count):
        id, now = new_id(), MORNING + timedelta(days=number)
        folder = config.cerebellum_dir / str(id)
        shutil.copytree(config.base.model, folder)
        digest, parent = sha256_file(folder / "model.safetensors"), made[-1].id if made else None
        calibration = Calibration(None, 9, 0, 0, projects=("/home/me/work",)).to_json()
        data = {"learned": [], "project_files": [["/home/me/work", "a.py"]], "calibration": calibration}
        write_manifest(folder, Manifest(id, "cerebellum", "origin", parent, new_id(), digest, now, data))
        version = CerebellumVersion(
            *(
                id,
                "origin",
                parent,
                new_id(),
                f"cerebellum/{id}",
                digest,
                VersionState.PUBLISHED,
                "",
                {"gain": 0.1},
                now,
            )
        )
        await store.cerebellum.publish(version, [Pattern("python", "return total", 3, now)])
        made.append(version)
    return made


async def test_the_cerebellum_has_a_lineage_too(store: Store, config: Config, run: Run, tmp_path: Path) -> None:
    first, second = await cerebella(store, config, 2)
    heard: list[str] = []
    await store.listen(heard.append)

    async def states() -> list[VersionState]:
        found = {one.id: one.state for one in await store.cerebellum.versions()}
        return [found[first.id], found[second.id]]

    _, out, _ = await run("list")
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert "cerebellum" in lines[first.id.hex[-8:]] and "retired" in lines[first.id.hex[-8:]]
    assert "published" in lines[second.id.hex[-8:]] and "+10.0%" in lines[second.id.hex[-8:]]
    _, out, _ = await run("show", second.id.hex[-8:])
    assert str(first.id) in out and "gain" in out

    assert (await run("pin", second.id))[0] == 0
    status, _, err = await run("rollback", "cerebellum")
    assert status != 0 and "is pinned" in err and await states() == [VersionState.RETIRED, VersionState.PUBLISHED]
    assert (await run("unpin", second.id))[0] == 0

    assert (await run("rollback", "cerebellum"))[0] == 0
    assert await states() == [VersionState.PUBLISHED, VersionState.RETIRED]
    assert await store.cerebellum.patterns() == [], "they were the other one's"
    async with asyncio.timeout(10):
        while str(first.id) not in heard:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    (config.cerebellum_dir / str(second.id) / "model.safetensors").write_bytes(b"broken")
    status, _, err = await run("rollback", "cerebellum", second.id)
    assert status != 0 and "sha256 differs" in err and await states() == [VersionState.PUBLISHED, VersionState.RETIRED]

    target = tmp_path / "mine"
    assert (await run("export", first.id, target))[0] == 0
    assert "/home/me" not in (target / "manifest.json").read_text()
    assert Cerebellum.load(target, context_tokens=64, version=False).base.info.parameters > 0
    status, _, err = await run("export", first.id, target)
    assert status != 0 and "there already" in err

    assert (await run("rollback", "cerebellum", "none"))[0] == 0
    assert await states() == [VersionState.RETIRED, VersionState.RETIRED]
    status, _, err = await run("rollback", "cerebellum")
    assert status != 0 and "name the one" in err


@pytest.mark.parametrize("words", [(), ("none",)], ids=["to the parent", "to the model as it came"])
async def test_of_two_models_versions_that_of_the_configured_one_is_rolled_back(
    store: Store, config: Config, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    models = [make_tiny_model(tmp_path / f"{seed}", seed=seed, hidden=32) for seed in (3, 4)]
    one, other = (replace(config, cerebellum=replace(config.cerebellum, model=str(model))) for model in models)
    first = await make_cerebellum(store, one, models[0], until=MORNING)
    second = await make_cerebellum(store, one, models[0], until=MORNING, parent=first)
    elsewhere = await make_cerebellum(store, other, models[1], until=MORNING)
    write_settings(one)  # back to the first
    status, out, err = await run("rollback", "cerebellum", *words)
    assert (status, err) == (0, "") and str(second.id) in out and str(elsewhere.id) not in out
    found = {version.id: version.state for version in await store.cerebellum.versions()}
    assert found == {
        first.id: VersionState.RETIRED if words else VersionState.PUBLISHED,
        second.id: VersionState.RETIRED,
        elsewhere.id: VersionState.PUBLISHED,
    }


async def test_two_commands_that_change_what_was_learned_do_not_run_into_one_another(store: Store) -> None:
    async with quiet(store):
        with pytest.raises(StoreError, match="Another npllm command"):
            async with quiet(store, patience_s=0.3):
                raise AssertionError("both at once")
    async with quiet(store, patience_s=0.3):
        assert await store.latest_activity() is None, "none leaves a window behind"

"""The whole recipe on a tiny corpus: build, kill and resume, schedule, optimizer, export, evaluation."""

from __future__ import annotations

import dataclasses
import inspect
import math
import random
import statistics
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from npllm.starter import build as building
from npllm.starter.build import Plan, build, prepare, train
from npllm.starter.checkpoint import load_checkpoint
from npllm.starter.head import fused, in_place, linear_cross_entropy
from npllm.starter.muon import Muon, orthogonalise
from npllm.starter.network import new_network
from npllm.starter.paths import WorkFolder
from npllm.starter.presets import PRESETS, Optimisation, Phase, Preset, Shape
from npllm.starter.schedule import Budget, phase_at, rate_at
from npllm.starter.tokens import SPECIAL_TOKENS
from npllm.starter.train import RunFiles, Trainer, next_token_loss

TINY = Preset(
    name="tiny",
    shape=Shape(vocabulary=400, hidden=32, intermediate=64, layers=2, heads=2, kv_heads=1, positions=256),
    phases=(Phase(64, 4, 0.6, 0.5), Phase(128, 2, 1.0, 0.5)),
    optimisation=Optimisation(warmup_steps=3),
    minutes=1.0,
    package_cap=100_000,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two packages, cut from modules of the standard library."""
    folder = tmp_path_factory.mktemp("sources")
    for package, modules in {"first": (random, statistics), "second": (inspect, dataclasses)}.items():
        (folder / package).mkdir()
        for module in modules:
            text = Path(str(module.__file__)).read_text(encoding="utf-8")
            (folder / package / Path(str(module.__file__)).name).write_text(text[: text.rfind("\ndef ", 0, 20_000)])
    return folder


def plan(folder: Path, sources: Path, steps: int) -> Plan:
    return Plan(TINY, WorkFolder(folder / "work", "tiny"), folder / "out", Budget(steps=steps), sources, workers=1)


def test_build_makes_a_model_that_plain_transformers_load(tmp_path: Path, sources: Path) -> None:
    wanted = plan(tmp_path, sources, steps=25)
    assert build(wanted)
    model = AutoModelForCausalLM.from_pretrained(wanted.out)
    tokenizer = AutoTokenizer.from_pretrained(wanted.out)
    assert type(model).__name__ == "LlamaForCausalLM" and model.dtype == torch.bfloat16
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|end|>", "<|pad|>", None)
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(6))
    text = "<|file|>a.py\ndef f():\n    return 1\n"
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|file|>") and tokenizer.decode(ids) == text
    assert {file.name for file in wanted.out.iterdir()} == {
        *("config.json", "generation_config.json", "manifest.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert '"loss"' in RunFiles(wanted.work.run).curve.read_text()

    before = {path: path.stat().st_mtime_ns for path in wanted.work.folder.rglob("*.xz")}
    assert build(wanted), "a finished build is finished at once"
    assert before == {path: path.stat().st_mtime_ns for path in wanted.work.folder.rglob("*.xz")}


def test_preparing_leaves_rows_and_no_run(tmp_path: Path, sources: Path) -> None:
    wanted = dataclasses.replace(plan(tmp_path, sources, steps=2), prepare_only=True)
    assert build(wanted)
    assert len(list(wanted.work.packed.glob("rows-*.npy.xz"))) == 2
    assert not wanted.work.run.exists() and not wanted.out.exists()


def test_a_run_that_is_stopped_and_resumed_equals_one_that_is_not(tmp_path: Path, sources: Path) -> None:
    wanted = plan(tmp_path, sources, steps=12)
    prepare(wanted)
    whole = Trainer(TINY, wanted.work.packed, RunFiles(tmp_path / "whole"), wanted.budget)
    assert whole.run()

    files = RunFiles(tmp_path / "broken")
    for _ in range(20):
        part = Trainer(TINY, wanted.work.packed, files, wanted.budget)
        stop_at = part.progress.step + 5
        step = part._step

        def stopping(part: Trainer = part, step: object = step, stop_at: int = stop_at) -> float:
            loss = float(step())  # type: ignore[operator]
            if part.progress.step == stop_at:
                part.stop()
            return loss

        part._step = stopping  # type: ignore[method-assign]
        if part.run():
            break
    assert part.progress.step == whole.progress.step == 12
    assert part.progress.served == whole.progress.served
    for (name, left), right in zip(whole.network.named_parameters(), part.network.parameters(), strict=True):
        assert torch.equal(left, right), name


def test_a_team_of_two_processes_learns_what_one_learns(tmp_path: Path, sources: Path) -> None:
    wanted = plan(tmp_path, sources, steps=4)
    prepare(wanted)
    alone = Trainer(TINY, wanted.work.packed, RunFiles(tmp_path / "alone"), wanted.budget)
    assert alone.run()
    assert train(dataclasses.replace(wanted, helpers=1), [])
    together = new_network(TINY.shape, 1)
    progress = load_checkpoint(RunFiles(wanted.work.run).checkpoint, together)
    assert (progress.tokens, progress.served) == (alone.progress.tokens, alone.progress.served)
    for (name, left), right in zip(alone.network.named_parameters(), together.parameters(), strict=True):
        assert torch.allclose(left, right, atol=2e-2), name


def test_a_killed_run_loses_no_more_than_the_work_since_its_checkpoint(tmp_path: Path, sources: Path) -> None:
    wanted = plan(tmp_path, sources, steps=8)
    prepare(wanted)
    files = RunFiles(tmp_path / "run")
    trainer = Trainer(TINY, wanted.work.packed, files, wanted.budget)
    trainer._step()
    trainer.save()
    files.checkpoint.with_suffix(".tmp").write_bytes(b"half a checkpoint")
    again = Trainer(TINY, wanted.work.packed, files, wanted.budget)
    assert again.progress.step == 1
    assert load_checkpoint(files.checkpoint, new_network(TINY.shape, 1)).step == 1
    assert again.run()


def test_a_flag_file_begins_the_decay_early(tmp_path: Path, sources: Path) -> None:
    wanted = plan(tmp_path, sources, steps=1000)
    prepare(wanted)
    files = RunFiles(tmp_path / "run")
    trainer = Trainer(TINY, wanted.work.packed, files, wanted.budget)
    for _ in range(5):
        trainer._step()
    files.decay.touch()
    assert trainer.run()
    assert trainer.progress.step == 7


def test_a_leg_ends_the_call_and_not_the_training(tmp_path: Path, sources: Path) -> None:
    wanted = plan(tmp_path, sources, steps=200)
    assert not build(dataclasses.replace(wanted, leg_minutes=0.0))
    assert not wanted.out.exists()
    assert Trainer(TINY, wanted.work.packed, RunFiles(wanted.work.run), wanted.budget).progress.step == 1


def test_nothing_to_learn_from_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "starter-cpu", TINY)
    (tmp_path / "empty" / "click").mkdir(parents=True)
    arguments = ["--sources", str(tmp_path / "empty"), "--work", str(tmp_path / "work")]
    assert building.main(arguments) == 1
    assert "nothing to learn from" in capsys.readouterr().err
    assert building.main(["--sources", str(tmp_path / "absent"), "--work", str(tmp_path / "other")]) == 1
    assert "absent" in capsys.readouterr().err


def test_too_little_text_for_every_row_length_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "starter-cpu", TINY)
    (tmp_path / "sources" / "single").mkdir(parents=True)
    text = Path(str(random.__file__)).read_text(encoding="utf-8")
    (tmp_path / "sources" / "single" / "one.py").write_text(text[: text.rfind("\ndef ", 0, 20_000)])
    assert building.main(["--sources", str(tmp_path / "sources"), "--work", str(tmp_path / "work")]) == 1
    assert "too little text: no file was left for the rows of 128 tokens" in capsys.readouterr().err


def test_the_presets_have_the_sizes_they_promise() -> None:
    sizes = {}
    for name, preset in PRESETS.items():
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in new_network(preset.shape, 0).parameters())
        assert preset.shape.positions == 2048 and preset.phases[-1].length == 1024
        assert preset.phases[-1].until == 1.0 and math.isclose(sum(phase.deal for phase in preset.phases), 1.0)
    assert 4e6 < sizes["starter-cpu"] < 7.5e6
    assert 9e6 < sizes["starter"] < 20e6, "it ships, in 16 bit, beside its cerebellum"
    for small, large in (("cerebellum-cpu", "starter-cpu"), ("cerebellum", "starter")):
        assert 6 < sizes[large] / sizes[small] < 10
        assert PRESETS[small].shape.vocabulary == PRESETS[large].shape.vocabulary == 16384


def test_rows_are_bounded_where_they_have_to_travel(tmp_path: Path) -> None:
    wanted = building.parse(["--preset", "starter", "--work", str(tmp_path)])
    assert 0.66 * (wanted.preset.most_tokens or math.inf) < 58e6, "compressed, at 0.66 bytes a token as measured"
    assert building.parse(["--most-tokens", "5000000"]).preset.most_tokens == 5_000_000


def test_the_cerebellum_learns_from_its_starters_rows_with_its_starters_tokenizer(tmp_path: Path) -> None:
    for small, large in (("cerebellum-cpu", "starter-cpu"), ("cerebellum", "starter")):
        plans = {name: building.parse(["--preset", name, "--work", str(tmp_path), "--ship"]) for name in (small, large)}
        mine, others = plans[small].work, plans[large].work
        assert (mine.corpus, mine.tokenizer, mine.packed) == (others.corpus, others.tokenizer, others.packed)
        assert mine.run != others.run and plans[small].out.name == "cerebellum" and plans[large].out.name == "model"
        for ours, theirs in zip(PRESETS[small].phases, PRESETS[large].phases, strict=True):
            assert (ours.length, ours.deal, ours.snippets) == (theirs.length, theirs.deal, theirs.snippets)


def test_progress_phases_and_rates() -> None:
    settings = Optimisation(warmup_steps=10, decay_from=0.75)
    assert rate_at(0.0, 0, settings) == 0.1
    assert rate_at(0.5, 500, settings) == 1.0
    assert rate_at(0.875, 900, settings) == 0.5
    assert rate_at(1.0, 1000, settings) == 0.0
    assert [phase_at(x, TINY.phases) for x in (0.0, 0.59, 0.6, 1.0)] == [0, 0, 1, 1]
    budget = Budget(seconds=100.0)
    assert budget.progress(25.0, 3) == 0.25 and budget.progress(200.0, 3) == 1.0
    assert budget.shortened(30.0, 3, 0.75).progress(30.0, 3) == 0.75
    assert budget.shortened(90.0, 3, 0.75) == budget
    with pytest.raises(ValueError, match="seconds or steps"):
        Budget().progress(1.0, 1)


def test_the_chunked_head_equals_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(700, 16, requires_grad=True)
    weight = torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (700,))
    plain = cross_entropy(hidden @ weight.T, targets, ignore_index=0)
    chunked = linear_cross_entropy(hidden, weight, targets, 0)
    assert torch.allclose(plain, chunked, atol=1e-5)
    expected = torch.autograd.grad(plain, (hidden, weight))
    for want, got in zip(expected, torch.autograd.grad(2 * chunked, (hidden, weight)), strict=True):
        assert torch.allclose(2 * want, got, atol=1e-5)


def test_what_a_gpu_computes_of_a_chunk_equals_what_a_cpu_does() -> None:
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(40, 50) * 5, torch.randint(0, 50, (40,)), torch.rand(40)
    weights[3] = 0
    for want, got in zip(in_place(logits, targets, weights), fused(logits, targets, weights), strict=True):
        assert torch.allclose(want, got, atol=1e-5)


def test_a_compiled_network_has_a_graph_for_each_row_length_and_none_for_validation(
    tmp_path: Path, sources: Path
) -> None:
    """What a GPU does, with graphs that are traced and run as they are, and in bfloat16."""
    wanted = plan(tmp_path, sources, steps=6)
    prepare(wanted)
    trainer = Trainer(TINY, wanted.work.packed, RunFiles(tmp_path / "run"), wanted.budget)
    graphs: list[list[torch.Size]] = []

    def traced(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append([value.shape for value in inputs if value.dtype == torch.long])
        return module.forward

    def validate(network: LlamaForCausalLM) -> float:
        for width in (3, 5, 7):
            network.model(input_ids=torch.ones(1, width, dtype=torch.long))
        return 1.0

    trainer.bfloat16 = True
    trainer.network.set_attn_implementation("sdpa")
    trainer._attend = lambda length: None  # type: ignore[method-assign]
    trainer.network.model.compile(backend=traced, dynamic=False)
    torch.compiler.reset()
    assert trainer.run(validate=validate, validate_every=0.0)
    assert graphs == [[torch.Size([4, 63])], [torch.Size([2, 127])]]
    plain = Trainer(TINY, wanted.work.packed, RunFiles(tmp_path / "run"), wanted.budget)
    assert plain.progress.step == 6, "the checkpoint of a compiled network is a plain one"


def test_bfloat16_loses_little() -> None:
    network, rows = new_network(TINY.shape, 0), torch.randint(6, 400, (2, 20))
    wide, narrow = next_token_loss(network, rows, False), next_token_loss(network, rows, True)
    assert narrow.dtype == torch.float32 and torch.allclose(wide, narrow, rtol=1e-2)
    narrow.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in network.parameters())


def test_padding_costs_nothing() -> None:
    network = new_network(TINY.shape, 0)
    rows = torch.randint(6, 400, (1, 20))
    padded = torch.cat([rows, torch.zeros(1, 12, dtype=torch.long)], dim=1)
    assert torch.allclose(next_token_loss(network, rows, False), next_token_loss(network, padded, False), atol=1e-5)


def test_muon_orthogonalises_and_descends() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 48), (3, 48, 24)):
        singular = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert float(singular.min()) > 0.5 and float(singular.max()) < 1.4
    target, weight = torch.randn(8, 8), torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([weight], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        ((weight - target) ** 2).sum().backward()
        optimizer.step()
    assert float(((weight - target) ** 2).mean().detach()) < 0.1


def test_the_shipped_shape_is_the_one_that_its_card_states() -> None:
    from npllm.starter.paths import SHIPPED

    config, card = AutoModelForCausalLM.from_pretrained(SHIPPED).config, (SHIPPED / "MODEL_CARD.md").read_text()
    assert f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}," in card
    assert f"{config.vocab_size} byte-level BPE tokens" in card and config.max_position_embeddings == 2048

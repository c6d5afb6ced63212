"""Adapters around a real (tiny) base: what they do to the logits, that they leave no trace, what is refused."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import peft
import pytest
import torch
import transformers

from npllm.models.adapters import (
    WEIGHTS,
    AdapterSet,
    Manifest,
    publish_folder,
    read_manifest,
    sha256_file,
    write_manifest,
)
from npllm.models.base import Base
from npllm.models.decoding import complete
from npllm.models.engine import NO_ADAPTERS, AdapterChoice
from npllm.models.fim import PromptBuilder, PromptParts, choose
from npllm.models.stops import StopRules
from npllm.models.torch_engine import TorchEngine
from npllm.types import ModelError, new_id

PYTHON = "language:python"
NEVER = threading.Event()


@pytest.fixture
def base(tiny_model: Path) -> Base:
    return Base.load(str(tiny_model), device="cpu", threads=1)


def peft_model(model: Path, adapter: peft.LoraConfig | Path) -> Any:
    """What peft itself makes of a model folder and an adapter."""
    network = transformers.AutoModelForCausalLM.from_pretrained(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers in a way it will have to give up
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # it warns of merging, which nobody does
        if isinstance(adapter, Path):
            return peft.PeftModel.from_pretrained(network, adapter).eval()
        return peft.get_peft_model(network, adapter)


def make_adapter(
    folder: Path,
    model: Path,
    fingerprint: str,
    *,
    seed: int = 1,
    rank: int = 8,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
    **config: Any,
) -> UUID:
    """A PEFT folder with random weights (B too, so that it does something), and its manifest."""
    adapted = peft_model(
        model,
        peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM", **config),
    )
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    version = new_id()
    write_manifest(
        folder,
        Manifest(
            version,
            PYTHON,
            fingerprint,
            None,
            new_id(),
            sha256_file(folder / WEIGHTS),
            datetime.now(UTC),
            {"experiences": 3},
            {"nll": 1.5},
        ),
    )
    return version


def logits(engine: TorchEngine, choice: AdapterChoice = NO_ADAPTERS, *, kept: bool = False) -> torch.Tensor:
    """What follows a fixed prompt; computed from its first token, unless what is `kept` may be used."""
    engine.use_adapters(choice)
    if not kept:
        engine.forget()
    return engine.prefill(range(10, 60), NEVER).clone()


def test_an_adapter_acts_as_in_peft_itself(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    adapters, engine = AdapterSet(base), TorchEngine(base)
    before = logits(engine)
    adapters.load(version, tmp_path / "a", PYTHON)
    assert torch.equal(logits(engine), before), "loaded is not yet acting"
    acting = logits(engine, adapters.choose((PYTHON,)))

    reference = peft_model(tiny_model, tmp_path / "a")
    with torch.inference_mode():
        expected = reference(input_ids=torch.arange(10, 60)[None]).logits[0, -1]
    torch.testing.assert_close(acting, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(acting, before, atol=0.1)
    assert torch.equal(logits(engine, NO_ADAPTERS), before)


def test_strength_scales_what_an_adapter_does(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    adapters, engine = AdapterSet(base), TorchEngine(base)
    adapters.load(version, tmp_path / "a", PYTHON)
    plain, full = logits(engine), logits(engine, adapters.choose((PYTHON,)))
    faint = logits(engine, AdapterChoice(((version, 1e-4),)))
    half = logits(engine, AdapterChoice(((version, 0.5),)))
    torch.testing.assert_close(faint, plain, atol=1e-2, rtol=1e-2)
    assert not torch.allclose(half, full, atol=1e-2)
    assert adapters.choose((PYTHON,), 0.0) == NO_ADAPTERS
    assert torch.equal(logits(engine, adapters.choose((PYTHON,))), full), "strengths do not add up over requests"


def test_several_adapters_at_once_and_by_context(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint, seed=1)
    two = make_adapter(
        tmp_path / "b", tiny_model, base.info.fingerprint, seed=2, rank=16, targets=("o_proj", "up_proj")
    )
    adapters, engine = AdapterSet(base), TorchEngine(base)
    adapters.load(one, tmp_path / "a", PYTHON)
    adapters.load(two, tmp_path / "b", "generic")
    assert adapters.loaded() == (one, two)
    assert adapters.choose((PYTHON,)).versions == (one,)
    assert adapters.choose(("language:rust", "generic")).versions == (two,)
    alone = logits(engine, AdapterChoice(((one, 1.0),)))
    both = logits(engine, AdapterChoice(((one, 1.0), (two, 1.0))))
    assert not torch.allclose(alone, both, atol=1e-2)
    adapters.unload(two)
    assert torch.equal(logits(engine, AdapterChoice(((one, 1.0),))), alone)
    with pytest.raises(ModelError, match=f"Adapter {two} is not loaded"):
        engine.use_adapters(AdapterChoice(((two, 1.0),)))


def test_the_cache_of_one_adapter_is_not_used_with_another(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    adapters, engine = AdapterSet(base), TorchEngine(base)
    adapters.load(version, tmp_path / "a", PYTHON)
    choice = adapters.choose((PYTHON,))
    logits(engine, kept=True)
    logits(engine, choice, kept=True)
    assert engine.prefilled == 50
    logits(engine, kept=True)
    assert engine.prefilled == 1, "going back finds the other cache again"
    logits(engine, AdapterChoice(((version, 0.5),)), kept=True)
    assert engine.prefilled == 50, "another strength is another cache"


@pytest.mark.parametrize("lean", [True, False])
def test_an_adapter_on_the_output_layer_leaves_the_cache_valid(
    base: Base, tiny_model: Path, tmp_path: Path, lean: bool
) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint, targets=("lm_head",))
    inner = make_adapter(tmp_path / "b", tiny_model, base.info.fingerprint, seed=2)
    adapters, engine = AdapterSet(base), TorchEngine(base, lean=lean)
    adapters.load(version, tmp_path / "a", PYTHON)
    adapters.load(inner, tmp_path / "b", "language:rust")
    choice = adapters.choose((PYTHON,))
    plain, adapted = logits(engine), logits(engine, choice)
    assert not torch.allclose(plain, adapted, atol=1e-2)
    logits(engine)
    assert torch.allclose(logits(engine, choice, kept=True), adapted, atol=1e-4)
    assert engine.prefilled == 1, "only the last position is computed again"
    assert torch.allclose(logits(engine, kept=True), plain, atol=1e-4)
    assert engine.prefilled == 1
    newer = make_adapter(tmp_path / "c", tiny_model, base.info.fingerprint, seed=3, targets=("lm_head",))
    adapters.unload(version)
    adapters.load(newer, tmp_path / "c", PYTHON)
    swapped = logits(engine, adapters.choose((PYTHON,)), kept=True)
    assert engine.prefilled == 1, "a newer version is swapped in amid the work"
    assert torch.allclose(swapped, logits(engine, adapters.choose((PYTHON,))), atol=1e-4)
    assert not torch.allclose(swapped, adapted, atol=1e-2)
    adapters.load(version, tmp_path / "a", PYTHON)
    logits(engine)
    both = AdapterChoice(((version, 1.0), (inner, 1.0)))
    fresh = logits(engine, both)
    logits(engine, AdapterChoice(((inner, 1.0),)), kept=True)
    assert engine.prefilled == 1, "with another adapter beside it, too"
    assert torch.allclose(logits(engine, both, kept=True), fresh, atol=1e-4)
    with torch.no_grad():
        expected = peft_model(tiny_model, tmp_path / "a")(torch.arange(10, 60)[None]).logits[0, -1]
    assert torch.allclose(adapted, expected, atol=1e-4), "and it acts as in peft itself"


def test_an_adapter_on_the_embedding_is_not_one_of_the_output_layer(
    base: Base, tiny_model: Path, tmp_path: Path
) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint, targets=("embed_tokens", "lm_head"))
    adapters, engine = AdapterSet(base), TorchEngine(base)
    adapters.load(version, tmp_path / "a", PYTHON)
    logits(engine)
    logits(engine, adapters.choose((PYTHON,)), kept=True)
    assert engine.prefilled == 50, "it changes every key"


def test_thousand_requests_leave_every_parameter_bit_identical(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    originals = {id(tensor): tensor.clone() for tensor in base.model.parameters()}
    digest = base.digest()
    versions = [
        (make_adapter(tmp_path / str(seed), tiny_model, base.info.fingerprint, seed=seed), tmp_path / str(seed))
        for seed in range(2)
    ]
    adapters, engine = AdapterSet(base), TorchEngine(base)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 256)
    text = Path(__file__).read_text(encoding="utf-8")
    with torch.inference_mode():  # as the serving thread does
        for request in range(1000):
            if request % 100 == 0:
                version, folder = versions[request // 100 % 2]
                for old in adapters.loaded()[:1] if request % 300 == 0 else ():
                    adapters.unload(old)
                if version not in adapters.loaded():
                    adapters.load(version, folder, PYTHON)
                engine.forget()
            engine.use_adapters(adapters.choose((PYTHON if request % 3 else "language:c",)))
            prefix, suffix = text[: 40 + request], text[40 + request : 90 + request]
            prompt = builder.build(PromptParts("t.py", prefix, suffix), reserve=4)
            stop = StopRules(prefix, suffix, end_ids=builder.end_ids)
            complete(engine, prompt.ids, stop=stop, max_new_tokens=2, cancel=NEVER)
            if request % 50 == 0:
                assert not any(parameter.requires_grad for parameter in base.model.parameters())
                assert all(parameter.grad is None for parameter in base.model.parameters())
    for version in adapters.loaded():
        adapters.unload(version)
    assert base.digest() == digest
    remaining = dict(base.model.named_parameters())
    assert {id(tensor) for tensor in remaining.values()} == set(originals), "the very same tensors"
    assert all(torch.equal(tensor, originals[id(tensor)]) for tensor in remaining.values())
    assert not hasattr(base.model, "peft_config")
    assert not any("lora" in name for name in remaining)


def test_swapping_leaks_nothing(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    keeper = make_adapter(tmp_path / "b", tiny_model, base.info.fingerprint, seed=2)
    adapters, engine = AdapterSet(base), TorchEngine(base)

    def held() -> int:
        gc.collect()
        return sum(1 for item in gc.get_objects() if issubclass(type(item), torch.Tensor))

    def swap() -> None:
        adapters.load(version, tmp_path / "a", PYTHON)
        logits(engine, AdapterChoice(((version, 1.0),)))
        adapters.unload(version)
        engine.use_adapters(NO_ADAPTERS)
        engine.forget()

    for beside in (False, True):
        if beside:
            adapters.load(keeper, tmp_path / "b", "generic")
        swap()
        first = held()
        for _ in range(5):
            swap()
        assert held() <= first


def test_an_unloaded_version_that_comes_back_acts_again(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    adapters, engine = AdapterSet(base), TorchEngine(base)
    adapters.load(version, tmp_path / "a", PYTHON)
    acting = logits(engine, adapters.choose((PYTHON,)))
    adapters.unload(version)
    adapters.unload(version)
    adapters.load(version, tmp_path / "a", PYTHON)
    engine.forget()
    assert torch.equal(logits(engine, adapters.choose((PYTHON,))), acting)


def damage(folder: Path, what: str) -> None:
    """Spoil an adapter's folder in one way."""
    weights, config, manifest = folder / WEIGHTS, folder / "adapter_config.json", folder / "manifest.json"
    if what == "flipped bit":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif what == "no weights":
        weights.unlink()
    elif what == "no manifest":
        manifest.unlink()
    elif what == "torn manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif what == "other base":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "base_fingerprint": "0" * 64}))
    elif what == "newer format":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    elif what == "not lora":
        config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "PREFIX_TUNING"}))
    elif what == "other version":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version_id": str(new_id())}))
    elif what == "no safetensors":
        weights.write_bytes(b"not tensors at all")
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sha256": sha256_file(weights)}))
    elif what == "other layers":
        config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": ["o_proj"]}))
    elif what == "no such layers":
        config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": ["c_attn"]}))
    elif what == "other rank":
        config.write_text(json.dumps({**json.loads(config.read_text()), "r": 4}))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("flipped bit", "sha256 differs"),
        ("no weights", "cannot be read"),
        ("no manifest", "no readable manifest"),
        ("torn manifest", "damaged"),
        ("other base", "trained for another base"),
        ("newer format", "update npllm"),
        ("not lora", "not a plain LoRA adapter"),
        ("other version", "holds adapter"),
        ("no safetensors", "no safetensors file"),
        ("other layers", "does not fit the base"),
        ("no such layers", "does not fit the base"),
        ("other rank", "does not fit the base"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_what_does_not_fit_is_refused_and_says_why(
    what: str, says: str, beside: bool, base: Base, tiny_model: Path, tmp_path: Path
) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    adapters, engine = AdapterSet(base), TorchEngine(base)
    choice = NO_ADAPTERS
    if beside:
        good = tmp_path / "b"
        other = make_adapter(good, tiny_model, base.info.fingerprint, seed=2)
        adapters.load(other, good, PYTHON)
        choice = adapters.choose((PYTHON,))
    before = logits(engine, choice)
    damage(tmp_path / "a", what)
    with pytest.raises(ModelError, match=says):
        adapters.load(version, tmp_path / "a", PYTHON)
    engine.forget()
    assert version not in adapters.loaded()
    assert torch.equal(logits(engine, choice), before), "what acted before goes on unchanged"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_an_adapter_that_would_rewrite_the_base_does_not(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, base.info.fingerprint)
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "init_lora_weights": "pissa"}))
    digest = base.digest()
    AdapterSet(base).load(version, tmp_path / "a", PYTHON)
    assert base.digest() == digest


def test_manifest_says_what_was_written(tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "a", tiny_model, "f" * 64)
    manifest = read_manifest(tmp_path / "a")
    assert (manifest.version_id, manifest.context, manifest.base_fingerprint) == (version, PYTHON, "f" * 64)
    assert manifest.data == {"experiences": 3} and manifest.metrics == {"nll": 1.5}
    assert manifest.created_at.tzinfo is not None


def test_publishing_is_all_or_nothing(tiny_model: Path, tmp_path: Path) -> None:
    version = make_adapter(tmp_path / "tmp", tiny_model, "f" * 64)
    final = tmp_path / "adapters" / str(version)
    publish_folder(tmp_path / "tmp", final)
    assert not (tmp_path / "tmp").exists()
    assert read_manifest(final).version_id == version
    shutil.copytree(final, tmp_path / "tmp")
    with pytest.raises(ModelError, match="never written over"):
        publish_folder(tmp_path / "tmp", final)

"""Neuromodulated attention: exactly the standard one at zero, the same by transformers and by the lean forward, causal,
right with kept keys and values, and refused where it does not fit."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AttentionMaskInterface, LlamaConfig, Qwen2Config

from npllm.models import attention
from npllm.models.attention import Bias, Gains, Neuromodulation, acting
from npllm.models.base import Base, BaseInfo
from npllm.models.fim import Span
from npllm.models.torch_engine import TorchEngine
from npllm.types import ModelError, new_id
from tests.integration.test_models_lean import FITTING, SHAPE, base_of, network

NEVER = threading.Event()
IDS = [index * 13 % 600 for index in range(400)]  # more than one chunk
SPANS = (Span(3, 20, 0.9), Span(20, 41, -0.6))
CLOSE = {"atol": 2e-4, "rtol": 2e-4}


def gains_of(model: Any, *, scale: float = 1.0) -> Gains:
    torch.manual_seed(7)
    config = model.config
    return Gains(scale * torch.randn(config.num_hidden_layers, config.num_attention_heads), 0.1)


def modulated(base: Base, gains: Gains) -> Neuromodulation:
    """Gains act as if they had been loaded."""
    made = Neuromodulation(base)
    attention.prepare(base.model)
    made.version, made.gains = new_id(), gains
    return made


@pytest.mark.parametrize("lean", [True, False])
def test_gains_of_zero_are_exactly_standard_attention(lean: bool, tiny_model: Path) -> None:
    model = network(FITTING["llama"]())
    base = base_of(model, tiny_model)
    plain = TorchEngine(base, lean=lean)
    wanted = [plain.prefill(IDS, NEVER), plain.step(5), plain.verify([9, 8, 7])]
    modulated(base, gains_of(model, scale=0.0))
    engine = TorchEngine(base, lean=lean)
    for one, other in zip(wanted, [engine.prefill(IDS, NEVER, SPANS), engine.step(5), engine.verify([9, 8, 7])]):
        assert torch.equal(one, other)


@pytest.mark.parametrize("lean", [True, False])
def test_prompts_without_memories_are_exactly_standard_too(lean: bool, tiny_model: Path) -> None:
    model = network(FITTING["llama"]())
    base = base_of(model, tiny_model)
    wanted = TorchEngine(base, lean=lean).prefill(IDS, NEVER)
    modulated(base, gains_of(model))
    assert torch.equal(TorchEngine(base, lean=lean).prefill(IDS, NEVER), wanted)


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """softmax(q k / sqrt(d) + g s) v with a causal mask, written out; q [H, T, D], k and v [KV, T, D], bias [H, T]."""
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + bias[:, None, :]
    scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ v


def test_it_is_the_equation(tiny_model: Path) -> None:
    """One layer's output, with grouped queries, against the scores written out."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 12, 8), torch.randn(1, 2, 12, 8), torch.randn(1, 2, 12, 8)
    gains, felt = torch.randn(3, 4), torch.zeros(1, 12)
    felt[0, 2:5], felt[0, 5:7] = 0.8, -0.7
    module = torch.nn.Module()
    module.layer_idx, module.num_key_value_groups, module.is_causal = 1, 2, True
    with acting(Bias(gains, felt)):
        out, _ = attention._attend(module, q, k, v, None, scaling=8**-0.5)
    wanted = by_hand(q[0], k[0], v[0], gains[1][:, None] * felt)
    torch.testing.assert_close(out[0].transpose(0, 1), wanted)


@pytest.mark.parametrize("name", FITTING)
def test_the_lean_forward_adds_the_same_as_transformers(name: str, tiny_model: Path) -> None:
    model = network(FITTING[name]())
    base = base_of(model, tiny_model)
    plain = TorchEngine(base).prefill(IDS, NEVER)
    modulated(base, gains_of(model))
    ours, theirs = TorchEngine(base), TorchEngine(base, lean=False)
    made = ours.prefill(IDS, NEVER, SPANS)
    assert not torch.allclose(made, plain, **CLOSE)
    torch.testing.assert_close(made, theirs.prefill(IDS, NEVER, SPANS), **CLOSE)
    torch.testing.assert_close(ours.step(5), theirs.step(5), **CLOSE)
    torch.testing.assert_close(ours.verify([9, 8, 7, 6]), theirs.verify([9, 8, 7, 6]), **CLOSE)
    for engine in (ours, theirs):
        engine.crop(100)
    torch.testing.assert_close(ours.verify(IDS[100:130]), theirs.verify(IDS[100:130]), **CLOSE)


OTHERS: dict[str, Any] = {
    "mistral, sliding": lambda: transformers.MistralConfig(**SHAPE, sliding_window=64),
    "qwen2, sliding": lambda: Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=64, max_window_layers=1),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE),
    "starcoder2": lambda: transformers.Starcoder2Config(**SHAPE),
    "gpt2": lambda: transformers.GPT2Config(n_embd=48, n_head=4, n_layer=3, vocab_size=600),
    "llama": lambda: LlamaConfig(**SHAPE),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_architecture_loses_its_causality(name: str, tiny_model: Path) -> None:
    """What comes later changes nothing before it, bias or not; and without one it is what sdpa computes."""
    model = network(OTHERS[name]())
    ids, later = torch.tensor([IDS[:96]]), torch.tensor([[*IDS[:90], 1, 2, 3, 4, 5, 6]])
    with torch.no_grad():
        standard = model(input_ids=ids).logits
        attention.prepare(model)
        assert torch.equal(model(input_ids=ids).logits, standard)
        felt = torch.zeros(1, 96)
        felt[0, 3:20] = 1.0
        with acting(Bias(gains_of(model).values, felt)):
            one, other = model(input_ids=ids).logits, model(input_ids=later).logits
    assert not torch.allclose(one, standard, **CLOSE)
    torch.testing.assert_close(one[:, :3], standard[:, :3], **CLOSE)  # nothing remembered stands before these
    torch.testing.assert_close(one[:, :90], other[:, :90], **CLOSE)
    attention.restore(model)
    assert model.config._attn_implementation == "sdpa"


def test_without_its_mask_registered_causality_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pitfall is real: a mask interface that does not know the name makes none, with padding ignored."""
    model = network(OTHERS["mistral, sliding"]())
    attention.prepare(model)
    ids = torch.tensor([IDS[:96]])
    with torch.no_grad():
        wanted = model(input_ids=ids).logits
        monkeypatch.delitem(AttentionMaskInterface._global_mapping, attention.NAME)
        assert not torch.allclose(model(input_ids=ids).logits, wanted, **CLOSE)


@pytest.mark.parametrize("lean", [True, False])
def test_kept_keys_serve_only_what_feels_the_same(lean: bool, tiny_model: Path) -> None:
    model = network(FITTING["llama"]())
    base = base_of(model, tiny_model)
    acting_gains = modulated(base, gains_of(model))
    engine = TorchEngine(base, lean=lean)

    def anew(spans: tuple[Span, ...]) -> torch.Tensor:
        return TorchEngine(base, lean=lean).prefill(IDS, NEVER, spans)

    engine.prefill(IDS, NEVER, SPANS)
    engine.step(5)
    torch.testing.assert_close(engine.prefill(IDS, NEVER, SPANS), anew(SPANS), **CLOSE)
    assert engine.prefilled == 1  # kept, with their bias
    other = (SPANS[0], Span(20, 41, 0.6))
    torch.testing.assert_close(engine.prefill(IDS, NEVER, other), anew(other), **CLOSE)
    assert engine.prefilled == len(IDS) - 20  # from the first token that feels different
    torch.testing.assert_close(engine.prefill(IDS, NEVER), anew(()), **CLOSE)
    assert engine.prefilled == len(IDS) - 3
    engine.prefill(IDS, NEVER, SPANS)
    acting_gains.version, acting_gains.gains = new_id(), gains_of(model, scale=0.5)
    torch.testing.assert_close(engine.prefill(IDS, NEVER, SPANS), anew(SPANS), **CLOSE)
    assert engine.prefilled == len(IDS)  # other gains: nothing is kept
    acting_gains.unload()
    torch.testing.assert_close(engine.prefill(IDS, NEVER, SPANS), anew(()), **CLOSE)


def test_a_memory_that_pays_is_looked_at_more(tiny_model: Path) -> None:
    """With one gain for all heads and s > 0, the weight of the memory's tokens rises, by exp(g s) before the norm."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 4, 6, 8), torch.randn(1, 4, 6, 8)
    values = torch.zeros(1, 4, 6, 8)
    values[:, :, 1:3] = 1.0  # the output is the weight on tokens 1 and 2
    module = torch.nn.Module()
    module.layer_idx, module.is_causal = 0, True
    felt = torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    plain, _ = attention._attend(module, q, k, values, None)
    with acting(Bias(torch.full((1, 4), math.log(2)), felt)):
        more, _ = attention._attend(module, q, k, values, None)
    odds = plain / (1 - plain)
    torch.testing.assert_close(more[:, 3:] / (1 - more[:, 3:]), 2 * odds[:, 3:])


def test_a_base_that_it_does_not_fit_says_so(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        attention.prepare(network(transformers.Gemma2Config(**SHAPE, head_dim=12)))
    with pytest.raises(ModelError, match="does not fit"):
        attention.prepare(network(transformers.MambaConfig(hidden_size=48, num_hidden_layers=2, vocab_size=600)))


def saved(folder: Path, base: Base, gains: Gains) -> Any:
    from tests.fixtures_attention import write_version

    return write_version(folder, base.info.fingerprint, gains)


def test_a_version_is_loaded_replaced_and_refused(tmp_path: Path, tiny_model: Path) -> None:
    model = network(FITTING["llama"]())
    base = base_of(model, tiny_model)
    gains = gains_of(model)
    version = saved(tmp_path / "one", base, gains)
    acting_gains = Neuromodulation(base)
    acting_gains.load(version, tmp_path / "one")
    assert acting_gains.gains is not None
    assert torch.equal(acting_gains.gains.values, gains.values)
    assert acting_gains.gains.centre == pytest.approx(0.1)
    with pytest.raises(ModelError, match="holds version"):
        acting_gains.load(new_id(), tmp_path / "one")
    other = saved(tmp_path / "two", base, Gains(torch.zeros(2, 4), 0.0))
    with pytest.raises(ModelError, match="shape"):
        acting_gains.load(other, tmp_path / "two")
    damaged = saved(tmp_path / "three", base, gains)
    with (tmp_path / "three" / attention.WEIGHTS).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ModelError, match="sha256"):
        acting_gains.load(damaged, tmp_path / "three")
    assert acting_gains.version == version  # what acted before goes on
    info = BaseInfo("test", tiny_model, "another", 0, 4096, "starter", "float32", "cpu")
    with pytest.raises(ModelError, match="another base"):
        Neuromodulation(Base(model, base.tokenizer, info, base.device)).load(version, tmp_path / "one")

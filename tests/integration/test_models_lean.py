"""The lean forward is transformers' forward: the same logits, prefilled, stepped and verified, with adapters or not."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from transformers import LlamaConfig, Qwen2Config

from npllm.models.adapters import AdapterSet
from npllm.models.base import Base, BaseInfo
from npllm.models.engine import NO_ADAPTERS, AdapterChoice
from npllm.models.lean import LeanForward, fits
from npllm.models.torch_engine import TorchEngine
from npllm.types import new_id

NEVER = threading.Event()
SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "vocab_size": 600,
    "max_position_embeddings": 4096,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
FITTING: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "llama, biases, untied": lambda: LlamaConfig(
        **SHAPE, attention_bias=True, mlp_bias=True, tie_word_embeddings=False
    ),
    "llama, every head its own keys": lambda: LlamaConfig(**{**SHAPE, "num_key_value_heads": 4}),
    "llama, heads wider than the stream": lambda: LlamaConfig(**SHAPE, head_dim=32),
    "llama 3 rotary": lambda: LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "qwen2": lambda: Qwen2Config(**SHAPE),
}
OTHERS: dict[str, Any] = {
    "qwen2 with a sliding window": lambda: Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "another activation": lambda: LlamaConfig(**SHAPE, hidden_act="gelu"),
    "another family": lambda: transformers.MistralConfig(**SHAPE),
    "rotary that depends on the length": lambda: LlamaConfig(
        **SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    ),
}


def network(config: Any) -> Any:
    """A random network whose norms and biases are not at their neutral start."""
    torch.manual_seed(2)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def base_of(model: Any, tiny_model: Path) -> Base:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    info = BaseInfo("test", tiny_model, "", 0, 4096, "starter", "float32", "cpu")
    return Base(model, tokenizer, info, torch.device("cpu"))


def same_everywhere(base: Base, choice: AdapterChoice = NO_ADAPTERS) -> None:
    ours, theirs = TorchEngine(base), TorchEngine(base, lean=False)
    ids = [index * 13 % 600 for index in range(2300)]  # more than one chunk, and than the first table of angles
    for engine in (ours, theirs):
        engine.use_adapters(choice)
    close = {"atol": 2e-4, "rtol": 2e-4}
    torch.testing.assert_close(ours.prefill(ids, NEVER), theirs.prefill(ids, NEVER), **close)
    torch.testing.assert_close(ours.hidden(), theirs.hidden(), **close)
    for token in (5, 17, 3):
        torch.testing.assert_close(ours.step(token), theirs.step(token), **close)
    torch.testing.assert_close(ours.verify([9, 8, 7, 6]), theirs.verify([9, 8, 7, 6]), **close)
    for engine in (ours, theirs):
        engine.crop(100)
    torch.testing.assert_close(ours.verify(ids[100:130]), theirs.verify(ids[100:130]), **close)
    torch.testing.assert_close(ours.hidden(), theirs.hidden(), **close)


@pytest.mark.parametrize("name", FITTING)
def test_the_same_logits_as_transformers(name: str, tiny_model: Path) -> None:
    model = network(FITTING[name]())
    assert fits(model)
    same_everywhere(base_of(model, tiny_model))


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_does_not_compute_it_leaves_to_transformers(name: str) -> None:
    assert not fits(network(OTHERS[name]()))


def test_other_precisions_are_left_to_transformers() -> None:
    assert not fits(network(FITTING["llama"]()).to(torch.bfloat16))


def test_the_same_logits_with_adapters(tiny_model: Path) -> None:
    model = network(FITTING["qwen2"]())
    base = base_of(model, tiny_model)
    adapters = AdapterSet(base)
    one, two = new_id(), new_id()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        wrapped = peft.PeftModel(model, peft.LoraConfig(r=4, target_modules=targets), adapter_name=one.hex)
        wrapped.add_adapter(two.hex, peft.LoraConfig(r=8, target_modules=["v_proj"], use_rslora=True))
    for parameter_name, parameter in wrapped.named_parameters():
        if "lora_" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.eval().requires_grad_(False)
    adapters._peft = wrapped
    adapters._contexts = {one: "language:python", two: "generic"}
    adapters._act(AdapterChoice())
    plain = TorchEngine(base).prefill(range(50), NEVER).clone()
    for choice in (AdapterChoice(((one, 1.0),)), AdapterChoice(((one, 0.4), (two, 1.5))), AdapterChoice()):
        same_everywhere(base, choice)
    torch.testing.assert_close(TorchEngine(base).prefill(range(50), NEVER), plain)


def test_it_copies_no_weights(tiny_model: Path) -> None:
    model = network(FITTING["llama"]())
    forward = LeanForward(model, AdapterChoice())
    own = {parameter.data_ptr() for parameter in model.parameters()}
    used = [getattr(layer, name).weight for layer in forward._layers for name in ("q", "k", "v", "o", "gate", "down")]
    assert {tensor.data_ptr() for tensor in used} <= own

"""The starter's network: a plain `LlamaForCausalLM` of a preset's shape, freshly initialised."""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from npllm.starter.presets import Shape
from npllm.starter.tokens import END, PAD, SPECIAL_TOKENS


def llama_config(shape: Shape) -> LlamaConfig:
    """The configuration that is trained and exported: no biases, tied embeddings, eos `<|end|>`, no bos."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(END),
        pad_token_id=SPECIAL_TOKENS.index(PAD),
        use_cache=True,
    )


def new_network(shape: Shape, seed: int) -> LlamaForCausalLM:
    """A network whose residual branches start at zero: every layer is the identity until it has learned something."""
    torch.manual_seed(seed)
    network = LlamaForCausalLM(llama_config(shape))
    network.config.use_cache = False
    for layer in network.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    return network


def supports_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are done in hardware, so that autocast pays."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())

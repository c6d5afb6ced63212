"""A lean forward for Llama and Qwen2 in fp32: transformers' arithmetic without what is around it.

At batch 1 a small model spends most of its time between the kernels: masks, wrappers, module calls. This reads the
same weight tensors (nothing is copied) and computes, for each layer (Touvron et al. 2023, 2302.13971),

    h = x + Wo Attention(RoPE(Wq n), RoPE(Wk n), Wv n),  n = RMSNorm(x)
    x = h + Wd (silu(Wg m) * Wu m),                      m = RMSNorm(h)

with LoRA terms s B A x where adapters act, and the bias of neuromodulated attention where that does. Tests hold its
logits to transformers'. It knows no sliding windows, no other activations and no rotary scaling that depends on the
length: `fits` says no, and transformers' forward serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

from npllm.models.attention import Bias, with_mask
from npllm.models.engine import AdapterChoice
from npllm.models.plastic import ATTRIBUTE, PlasticLayer

_FIRST_POSITIONS = 2048
_ROTARY = {"default", "linear", "llama3"}  # angles that are the same whatever the length


def fits(model: Any) -> bool:
    """Whether this forward computes what the model's own does."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        type(model) in (LlamaForCausalLM, Qwen2ForCausalLM)
        and config.hidden_act == "silu"
        and set(getattr(config, "layer_types", None) or ("full_attention",)) == {"full_attention"}
        and rope.get("rope_type", "default") in _ROTARY
        and not isinstance(model.model.embed_tokens, LoraLayer)
        and model.dtype == torch.float32
        and model.device.type == "cpu"
    )


class _Linear:
    """W x + b + sum_i s_i B_i A_i x, over a module's own tensors."""

    __slots__ = ("bias", "terms", "weight")

    def __init__(self, module: Any, choice: AdapterChoice) -> None:
        plain = module.base_layer if isinstance(module, LoraLayer) else module
        self.weight: torch.Tensor = plain.weight
        self.bias: torch.Tensor | None = plain.bias
        self.terms: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        if isinstance(module, LoraLayer):
            for name in (version.hex for version in choice.versions):
                if name in module.lora_A:
                    pair = module.lora_A[name].weight, module.lora_B[name].weight
                    self.terms.append((*pair, float(module.scaling[name])))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.linear(x, self.weight, self.bias)
        for a, b, scale in self.terms:
            out = out.add_(functional.linear(functional.linear(x, a), b), alpha=scale)
        return out


class _Layer:
    __slots__ = ("attention_norm", "down", "eps", "gate", "k", "mlp_norm", "o", "q", "up", "v")

    def __init__(self, layer: Any, choice: AdapterChoice) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.q, self.k = _Linear(attention.q_proj, choice), _Linear(attention.k_proj, choice)
        self.v, self.o = _Linear(attention.v_proj, choice), _Linear(attention.o_proj, choice)
        self.gate, self.up = _Linear(mlp.gate_proj, choice), _Linear(mlp.up_proj, choice)
        self.down = _Linear(mlp.down_proj, choice)
        self.attention_norm: torch.Tensor = layer.input_layernorm.weight
        self.mlp_norm: torch.Tensor = layer.post_attention_layernorm.weight
        self.eps: float = layer.input_layernorm.variance_epsilon


class LeanForward:
    """The forward of one model under one choice of adapters; make a new one when the choice changes.

    Args:
        model: one that `fits`.
        choice: the adapters that act (`AdapterSet` has set their strengths).
    """

    def __init__(self, model: Any, choice: AdapterChoice) -> None:
        inner = model.model
        attention = inner.layers[0].self_attn
        self._size: int = attention.head_dim
        self._heads: int = model.config.num_attention_heads
        self._kv_heads: int = model.config.num_key_value_heads
        self._scale: float = attention.scaling
        self._embed: torch.Tensor = inner.embed_tokens.weight
        self._layers = [_Layer(layer, choice) for layer in inner.layers]
        self._norm: torch.Tensor = inner.norm.weight
        self._eps: float = inner.norm.variance_epsilon
        self._head = _Linear(model.lm_head, choice)
        self._plastic: PlasticLayer | None = getattr(model, ATTRIBUTE, None)
        self._rotary = inner.rotary_emb
        self._cos = self._sin = torch.empty(0)

    def __call__(
        self, tokens: Sequence[int], cache: Any, past: int, rows: int, bias: Bias | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append T tokens at position `past`; logits [rows, V] and the last hidden state [H]."""
        count = len(tokens)
        end = past + count
        cos, sin = self._angles(past, end)
        x = functional.embedding(torch.tensor(tokens), self._embed)
        mask = None if count == 1 else torch.ones(count, end, dtype=torch.bool).tril_(past)
        for index, layer in enumerate(self._layers):
            n = functional.rms_norm(x, (x.shape[-1],), layer.attention_norm, layer.eps)
            x = x.add_(layer.o(self._attend(layer, n, cache, index, cos, sin, mask, bias)))
            n = functional.rms_norm(x, (x.shape[-1],), layer.mlp_norm, layer.eps)
            x = x.add_(layer.down(functional.silu(layer.gate(n)).mul_(layer.up(n))))
        hidden = functional.rms_norm(x[-rows:], (x.shape[-1],), self._norm, self._eps)
        if self._plastic is not None:
            hidden = self._plastic(hidden)
        return self._head(hidden), hidden[-1]

    def _attend(
        self,
        layer: _Layer,
        n: torch.Tensor,
        cache: Any,
        index: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None,
        bias: Bias | None,
    ) -> torch.Tensor:
        count, heads, kv, size = n.shape[0], self._heads, self._kv_heads, self._size
        both = torch.cat((layer.q(n), layer.k(n)), -1).view(count, heads + kv, size)
        # rotate_half(x) * sin = roll(x, D/2) * sin', where sin' has the sign of its first half turned
        both = torch.addcmul(both * cos, both.roll(size // 2, -1), sin).transpose(0, 1)
        v = layer.v(n).view(1, count, kv, size).transpose(1, 2)
        keys, values = cache.update(both[heads:].unsqueeze(0), v, index)
        if bias is not None:
            mask = with_mask(bias.over(index, keys.shape[2]), mask, both)
        if count == 1:  # the heads of one group ask the same keys: they are its queries, and nothing is repeated
            q = both[:heads].view(1, kv, heads // kv, size)
            if mask is not None:
                mask = mask.view(1, kv, heads // kv, -1)
            out = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=self._scale)
            return out.reshape(1, heads * size)
        q = both[:heads].unsqueeze(0)
        out = functional.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, scale=self._scale, enable_gqa=heads != kv
        )
        return out[0].transpose(0, 1).reshape(count, heads * size)

    def _angles(self, past: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and signed sin [T, 1, D] of the positions, from a table that grows."""
        if self._cos.shape[0] < end:
            most = max(_FIRST_POSITIONS, 2 * self._cos.shape[0], end)
            cos, sin = self._rotary(self._embed[:1], torch.arange(most)[None])
            half = self._size // 2
            self._cos = cos[0].unsqueeze(1)
            self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), -1).unsqueeze(1)
        return self._cos[past:end], self._sin[past:end]

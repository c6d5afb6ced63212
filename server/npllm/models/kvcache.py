"""Keys and values of one sequence, in buffers that grow by doubling.

transformers' dynamic layers concatenate at each token, which copies all that is there; here a token is
written in place and cropping is a change of length. Sliding-window layers keep all keys too (their mask
still slides), so that every attention layer can be cropped. Models with recurrent layers get transformers'
own cache, which cannot.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
_FIRST_CAPACITY = 256


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer: [1, heads, length, head size] views into larger buffers."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._length = 0
        self._key_buffer: torch.Tensor | None = None
        self._value_buffer: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [1, heads, T, head size]; all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[-2]
        keys = self._key_buffer = self._with_room(self._key_buffer, key_states, end)
        values = self._value_buffer = self._with_room(self._value_buffer, value_states, end)
        keys[:, :, self._length : end] = key_states
        values[:, :, self._length : end] = value_states
        return self._show(end)

    def get_seq_length(self) -> int:
        return self._length

    def truncate(self, length: int) -> None:
        """Keep the first `length` positions."""
        if self.is_initialized and length < self._length:
            self._show(length)

    def crop(self, tokens_to_remove: int) -> None:
        self.truncate(self._length - abs(tokens_to_remove))

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._key_buffer is not None and self._value_buffer is not None
        self._length = length
        self.keys = self._key_buffer[:, :, :length]
        self.values = self._value_buffer[:, :, :length]
        return self.keys, self.values

    def _with_room(self, buffer: torch.Tensor | None, states: torch.Tensor, end: int) -> torch.Tensor:
        if buffer is not None and buffer.shape[2] >= end:
            return buffer
        capacity = max(_FIRST_CAPACITY, end)
        if buffer is not None:
            capacity = max(capacity, 2 * buffer.shape[2])
        batch, heads, _, size = states.shape
        grown = states.new_empty((batch, heads, capacity, size))
        if buffer is not None:
            grown[:, :, : self._length] = buffer[:, :, : self._length]
        return grown


def new_cache(config: Any) -> Cache:
    """An empty cache for a model with this configuration."""
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    recurrent = any(
        hasattr(config, name) for name in ("ssm_cfg", "state_size", "mamba_d_state", "linear_num_key_heads")
    )
    if kinds <= _ATTENTION_LAYERS and not recurrent:
        return Cache(layer_class_to_replicate=GrowingLayer)
    return DynamicCache(config=config)


def can_truncate(cache: Cache) -> bool:
    """Whether a cache can go back to fewer positions."""
    return cache.layer_class_to_replicate is GrowingLayer


def truncate(cache: Cache, length: int) -> bool:
    """Keep the first `length` positions of a cache; False where its kind cannot."""
    if not can_truncate(cache):
        return False
    for layer in cache.layers:
        layer.truncate(length)
    return True

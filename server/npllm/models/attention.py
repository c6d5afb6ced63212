"""Neuromodulated attention: what was remembered is looked at more, or less, by how satisfying it proved.

    score'_ij = q_i k_j / sqrt(d) + g_lh s_j,   s_j = satisfaction of j's memory - centre, 0 outside of memories

for layer l and head h: the weight of a memory's token is multiplied by exp(g s) before the softmax. The gains g are
learned in sleep (`npllm.sleep.attention`) and never awake. Where g or s is 0 everywhere nothing is added and attention
is the standard one, to the bit. Works for every architecture that asks transformers' `AttentionInterface` with "sdpa";
`npllm.models.lean` adds the same. Knows nothing of prompts but their spans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import safetensors
import safetensors.torch
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from npllm.models.base import Base
from npllm.models.fim import Span
from npllm.models.kvcache import can_truncate, new_cache
from npllm.models.manifest import Manifest, read_manifest
from npllm.types import ModelError

NAME = "npllm_satisfaction"  # of the attention function, to transformers
WEIGHTS = "gains.safetensors"
CONTEXT = "attention"  # in manifests and reports, where adapters have their family


# Sees a layer attend: its number, query [B, H, T, D], key [B, G, K, D], mask to be added [B, H, T, K], and the scale.
Watch = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, float], None]


@dataclass(frozen=True, slots=True)
class Bias:
    """What is added to the scores: gains [L, H] times satisfaction [B, K]; keys beyond K get nothing.

    Attributes:
        watch: only in sleep, by transformers' forward.
    """

    gains: torch.Tensor
    satisfaction: torch.Tensor
    watch: Watch | None = None

    def over(self, layer: int, keys: int) -> torch.Tensor:
        """The summand of one layer for the first `keys` keys, [B, H, 1, keys]."""
        felt = self.satisfaction[:, :keys]
        bias = self.gains[layer][None, :, None, None] * felt[:, None, None, :]
        return torch.nn.functional.pad(bias, (0, keys - felt.shape[1]))


_ACTING: ContextVar[Bias | None] = ContextVar("npllm_attention_bias", default=None)


@contextmanager
def acting(bias: Bias | None) -> Iterator[None]:
    """In the block, forwards of a model that was `prepare`d add this bias."""
    before = _ACTING.set(bias)
    try:
        yield
    finally:
        _ACTING.reset(before)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa attention with the acting bias in its mask; without one, that attention itself."""
    bias = _ACTING.get()
    if bias is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        attention_mask = with_mask(bias.over(layer, key.shape[2]), attention_mask, query)
        if bias.watch is not None:
            bias.watch(layer, query, key, attention_mask, options.get("scaling") or query.shape[-1] ** -0.5)
    out: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return out


def with_mask(bias: torch.Tensor, mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor:
    """A float mask [B, H, T, K] that forbids what `mask` does and adds the bias elsewhere.

    Args:
        bias: [B, H, 1, K].
        mask: boolean (True: may be seen), float (to be added), or None: causal, the last query sees all keys.
        query: [B, H, T, D], for its length and dtype.
    """
    bias = bias.to(query.dtype)
    if mask is None:
        count, keys = query.shape[-2], bias.shape[-1]
        if count == 1:
            return bias
        mask = torch.ones(count, keys, dtype=torch.bool, device=query.device).tril_(keys - count)
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(query.dtype).min)
    return mask + bias


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)  # without this, transformers makes no mask, and causality is lost


def shape_of(model: Any) -> tuple[int, int]:
    """Layers and heads.

    Raises:
        ModelError: the mechanism does not fit this model.
    """
    config = model.config
    known = getattr(config, "_attn_implementation", None) in ("sdpa", NAME)
    if not known or not can_truncate(new_cache(config)):
        raise ModelError(
            f"Neuromodulated attention does not fit a {type(model).__name__}: it needs transformers' sdpa attention in "
            "every layer. Set attention.enabled to false, or use another base."
        )
    return int(config.num_hidden_layers), int(config.num_attention_heads)


def prepare(model: Any) -> tuple[int, int]:
    """Make a model's attention ours, which is the standard one until a bias acts; its layers and heads.

    Raises:
        ModelError: the mechanism does not fit this model.
    """
    shape = shape_of(model)
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ModelError(
            f"Neuromodulated attention does not fit a {type(model).__name__}: its attention cannot be chosen. "
            "Set attention.enabled to false, or use another base."
        )
    return shape


def restore(model: Any) -> None:
    """Undo `prepare`."""
    if getattr(model.config, "_attn_implementation", None) == NAME:
        model.set_attn_implementation("sdpa")


@dataclass(frozen=True, slots=True)
class Gains:
    """What a sleep learned.

    Attributes:
        values: g, [layers, heads], float32.
        centre: the satisfaction that neither draws nor repels.
        parts: what plastic values were made of (`npllm.sleep.plastic_gains`); no part of them acts.
    """

    values: torch.Tensor
    centre: float
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def none(cls, shape: tuple[int, int], centre: float) -> Gains:
        """Standard attention."""
        return cls(torch.zeros(shape), centre)

    def felt(self, length: int, spans: Sequence[Span]) -> list[float]:
        """s_j of the first `length` tokens."""
        felt = [0.0] * length
        for span in spans:
            for index in range(span.begin, min(span.end, length)):
                felt[index] = span.satisfaction - self.centre
        return felt


class Neuromodulation:
    """The gains that act in one base. At first there are none. Used from the engine's thread."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self.version: UUID | None = None
        self.gains: Gains | None = None
        base.neuromodulation = self

    def load(self, version_id: UUID, folder: Path) -> Manifest:
        """Let a version act, in place of the one before.

        Raises:
            ModelError: it is damaged, or does not fit the base; what acted before goes on.
        """
        manifest = read_manifest(folder)
        if manifest.version_id != version_id:
            raise ModelError(f"{folder} holds version {manifest.version_id}, not {version_id}; it is not loaded.")
        if manifest.base_fingerprint != self._base.info.fingerprint:
            raise ModelError(f"The gains in {folder} were learned for another base; they are not loaded.")
        with torch.inference_mode(False):
            gains = read(folder, manifest.sha256, shape_of(self._base.model))
        prepare(self._base.model)
        self.version, self.gains = version_id, Gains(gains.values.to(self._base.device), gains.centre)
        return manifest

    def unload(self) -> None:
        """Standard attention again."""
        self.version = self.gains = None
        restore(self._base.model)

    def felt(self, length: int, spans: Sequence[Span]) -> list[float]:
        """s_j of a prompt's tokens: all 0 without gains."""
        if self.gains is None or not spans or not bool(self.gains.values.any()):
            return [0.0] * length
        return self.gains.felt(length, spans)

    def bias(self, felt: Sequence[float]) -> Bias | None:
        """The bias for one sequence; None where it is 0 everywhere."""
        if self.gains is None or not any(felt):
            return None
        return Bias(self.gains.values, torch.tensor([felt], device=self._base.device))


def read(folder: Path, sha256: str, shape: tuple[int, int]) -> Gains:
    """The gains in a folder whose hash is the manifest's.

    Raises:
        ModelError: they are not there, damaged, or not those of a base of this shape.
    """
    file = folder / WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}); the next sleep learns new gains.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{file} is not what its manifest says (sha256 differs); the next sleep learns new gains.")
    try:
        tensors = safetensors.torch.load(content)
        values, centre = tensors.pop("gains").float(), float(tensors.pop("centre"))
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{file} holds no gains ({error}); the next sleep learns new ones.") from error
    if tuple(values.shape) != shape or not bool(values.isfinite().all()):
        raise ModelError(f"{file} holds gains of shape {tuple(values.shape)}, the base needs {shape}.")
    return Gains(values, centre, tensors)


def write(file: Path, gains: Gains) -> None:
    """Write gains as safetensors."""
    tensors = {**gains.parts, "gains": gains.values, "centre": torch.tensor(gains.centre)}
    safetensors.torch.save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, file)

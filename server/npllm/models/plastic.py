"""The cerebellum's plastic layer, awake: what yesterday left in it, frozen.

Between the last hidden state h and the output layer stands, with x = h / rms(h),

    h' = h + rms(h) * tanh(x (w + alpha * Hebb))

(Miconi et al., Differentiable plasticity, 1804.02464; Backpropamine, 2002.10585): w are slow weights, alpha says how
plastic each connection is, Hebb is the trace that a day's experiences left (`sleep/backpropamine.py` has the rule).
Nothing changes awake. `zeroed` is the ablation: the same layer as if the day had left no trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load

from npllm.types import ModelError

WEIGHTS = "plastic.safetensors"
ATTRIBUTE = "plastic_layer"  # of a model that has one; `lean` looks for it, too


@dataclass(frozen=True, slots=True)
class PlasticLayer:
    """w + alpha * Hebb, put together: `weight` [D, D], input by output."""

    weight: torch.Tensor

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """The state [..., D] that the output layer gets in the place of `hidden` [..., D]."""
        return apply(hidden, self.weight)


def apply(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The equation above, differentiable."""
    x, scale = normalised(hidden)
    return hidden + scale * torch.tanh(x @ weight)


def normalised(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x = h / rms(h) [..., D], and rms(h) [..., 1]."""
    scale = hidden.pow(2).mean(-1, keepdim=True).add(1e-12).sqrt()
    return hidden / scale, scale


def attach(model: Any, layer: PlasticLayer | None) -> None:
    """Let `layer` stand before the output layer of a causal LM, in the place of one that stood there; None: none.

    It computes where the output layer does, and in the same numbers.

    Raises:
        ModelError: the model has no output layer, or another width.
    """
    head = model.get_output_embeddings()
    if head is None and layer is None:
        return
    if head is None:
        raise ModelError(f"A {type(model).__name__} has no output layer that a plastic layer could stand before.")
    if layer is not None and layer.weight.shape[0] != head.weight.shape[1]:
        raise ModelError(f"The plastic layer is {layer.weight.shape[0]} wide, the model {head.weight.shape[1]}.")
    if layer is not None:
        layer = PlasticLayer(layer.weight.to(head.weight.device, head.weight.dtype))
    old = getattr(model, "_plastic_hook", None)
    if old is not None:
        old.remove()
    setattr(model, ATTRIBUTE, layer)
    model._plastic_hook = None if layer is None else head.register_forward_pre_hook(lambda _, args: (layer(args[0]),))


def of(tensors: dict[str, torch.Tensor], *, zeroed: bool = False) -> PlasticLayer:
    """The layer of `w`, `alpha` and `hebb`, each [D, D]."""
    return PlasticLayer(tensors["w"] if zeroed else tensors["w"] + tensors["alpha"] * tensors["hebb"])


def read(content: bytes, where: Path) -> PlasticLayer:
    """The layer in the content of a `plastic.safetensors`.

    Raises:
        ModelError: it is none.
    """
    try:
        tensors = load(content)
        shapes = {tuple(tensors[name].shape) for name in ("w", "alpha", "hebb")}
    except (safetensors.SafetensorError, KeyError) as error:
        raise ModelError(f"{where} is no plastic layer: {error}. The next sleep makes a new one.") from error
    (shape,) = shapes if len(shapes) == 1 else ((),)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ModelError(f"{where} is no plastic layer: its tensors are {shapes}. The next sleep makes a new one.")
    return of(tensors)

"""The adapter that is trained: LoRA (Hu et al., 2106.09685) by peft, around a base that stays as it is.

    y = W x + s B A x,   s = alpha / r, or alpha / sqrt(r) (rsLoRA, 2312.03732)

on the output layer alone, or on every linear layer but that; B = 0 at the start. On the output layer, y are the logits:
the adapter learns which words this person uses after which hidden state, and what the base computes before it, its
keys and values among it, stays as it was. Knows nothing of training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from npllm.types import ModelError

WEIGHTS = "adapter_model.safetensors"

Layers = Literal["output", "all"]


@dataclass(frozen=True, slots=True)
class Shape:
    """An adapter's rank and scale, and the layers it is put on: the output layer, or all others that are linear."""

    rank: int
    alpha: int
    rslora: bool
    layers: Layers = "all"


def attach(model: Any, shape: Shape, *, seed: int) -> PeftModel:
    """`model` with a fresh adapter that does nothing yet; only the adapter's parameters have `requires_grad`."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=shape.rank,
        lora_alpha=shape.alpha,
        use_rslora=shape.rslora,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(targets(model, shape.layers)),
    )
    with _seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, config)
    return adapted


def load(adapted: PeftModel, folder: Path) -> None:
    """Take over the weights of an adapter of the same shape.

    Raises:
        ModelError: they do not fit.
    """
    try:
        outcome = set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"The adapter in {folder} does not fit: {str(error).splitlines()[0]}") from error
    if outcome.unexpected_keys:
        raise ModelError(f"The adapter in {folder} does not fit: {outcome.unexpected_keys[0]} is not known.")


def shape_of(folder: Path, model: Any) -> Shape | None:
    """The shape of the adapter in `folder` around this base, in which training can go on; None if it is another's."""
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError):
        return None
    if (
        config.use_dora
        or config.modules_to_save
        or config.rank_pattern
        or config.alpha_pattern
        or config.bias != "none"
    ):
        return None
    kinds: tuple[Layers, ...] = ("output", "all")
    for layers in kinds:
        if set(config.target_modules or ()) == targets(model, layers):
            return Shape(config.r, config.lora_alpha, bool(config.use_rslora), layers)
    return None


def weights(adapted: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors by their names in its file; they are the live ones."""
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return found


def put(adapted: PeftModel, tensors: dict[str, torch.Tensor]) -> None:
    """Set the adapter's tensors to copies of `tensors`."""
    set_peft_model_state_dict(adapted, {name: tensor.clone() for name, tensor in tensors.items()})


def between(
    origin: dict[str, torch.Tensor] | None, trained: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Weights `share` of the way from `origin` to `trained`, tensor by tensor; without an origin, from the base.

    Interpolation in weight space keeps most of a gain and loses more than its part of what was forgotten (Wortsman et
    al., 2109.01903). From the base it scales B alone, and so the product B A.
    """
    if origin is None:
        return {name: tensor * (share if "lora_B" in name else 1.0) for name, tensor in trained.items()}
    return {name: torch.lerp(origin[name].to(tensor), tensor, share) for name, tensor in trained.items()}


def save(adapted: PeftModel, folder: Path, base_name: str) -> None:
    """Write a plain PEFT folder (adapter_config.json, adapter_model.safetensors)."""
    adapted.peft_config["default"].base_model_name_or_path = base_name
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def trainable(adapted: PeftModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by their full names, in a fixed order."""
    return {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}


def after_the_cache(adapted: PeftModel) -> bool:
    """Whether all that is trained acts on the output layer alone, so that keys and values are the frozen base's."""
    head = adapted.get_output_embeddings()
    own = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    return all(id(parameter) in own for parameter in trainable(adapted).values())


def targets(model: Any, layers: Layers) -> set[str]:
    """Last names of the linear layers that an adapter is put on.

    Raises:
        ModelError: there are none at all. A base without a linear output layer learns in the others, and vice versa.
    """
    found = _linear(model, layers) or _linear(model, "all" if layers == "output" else "output")
    if not found:
        raise ModelError(f"A {type(model).__name__} has no linear layers that an adapter could be put on.")
    return found


def _linear(model: Any, layers: Layers) -> set[str]:
    head = model.get_output_embeddings()
    head = head.base_layer if isinstance(head, LoraLayer) else head
    return {
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (module is head) == (layers == "output") and ".lora_" not in name
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)

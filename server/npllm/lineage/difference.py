"""How far two adapters are apart, layer by layer: the Frobenius norm of the difference of what they add to the weights.

    || s_1 B_1 A_1 - s_2 B_2 A_2 ||_F,   s = alpha / r   (alpha / sqrt(r) for rsLoRA)

without ever making that matrix, which is as large as the layer: with X = [s_1 B_1, -s_2 B_2] and Y = [A_1; A_2],
||X Y||_F^2 = tr((X^T X)(Y Y^T)). So ranks may differ; a layer that one of the two leaves alone is zero there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from npllm.lineage.files import CONFIG
from npllm.models.manifest import WEIGHTS
from npllm.types import ModelError

_PAIRS = ((".lora_A", ".lora_B"), (".lora_embedding_A", ".lora_embedding_B"))
_FRONT = "base_model.model."


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One layer: the norm of what each adds to its weights, and of the difference."""

    layer: str
    first: float
    second: float
    difference: float


Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]  # by layer: scaled B (out x r), A (r x in)


def differences(first: Path, second: Path) -> list[LayerDifference]:
    """By layer, in the order of their names.

    Raises:
        ModelError: a folder holds no LoRA adapter, or the two are not of one base (a layer's size differs).
    """
    one, two = factors(first), factors(second)
    found = []
    for layer in sorted(one.keys() | two.keys()):
        pair = [own[layer] for own in (one, two) if layer in own]
        if len({(b.shape[0], a.shape[1]) for b, a in pair}) > 1:
            raise ModelError(f"The two adapters are not of one base: {layer} has another size.")
        signed = [(-b if len(pair) == 2 and number else b, a) for number, (b, a) in enumerate(pair)]
        both = norm(torch.cat([b for b, _ in signed], dim=1), torch.cat([a for _, a in signed], dim=0))
        sizes = [norm(*own[layer]) if layer in own else 0.0 for own in (one, two)]
        found.append(LayerDifference(layer, sizes[0], sizes[1], both))
    return found


def norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """|| left right ||_F, of (out x r) and (r x in)."""
    left, right = left.double(), right.double()
    return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))


def factors(folder: Path) -> Factors:
    """What an adapter adds, by layer.

    Raises:
        ModelError: the folder holds none.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder} holds no adapter that can be read: {error}") from error
    found: Factors = {}
    for name, down in tensors.items():
        for first, second in _PAIRS:
            if first in name and (up := tensors.get(name.replace(first, second))) is not None:
                layer = name.partition(first)[0].removeprefix(_FRONT)
                found[layer] = (up * _scale(config, layer, down.shape[0]), down)
    if not found:
        raise ModelError(f"{folder / WEIGHTS} holds no LoRA matrices.")
    return found


def _scale(config: dict[str, Any], layer: str, rank: int) -> float:
    own = [value for key, value in (config.get("alpha_pattern") or {}).items() if layer.endswith(key)]
    alpha = float(own[0] if own else config.get("lora_alpha", rank))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank

"""Checkpoints of a training run: one safetensors file, replaced atomically, that resumes the run exactly.

Holds the parameters, both optimizers' moments and the counters; the latter as JSON in
safetensors' metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Progress:
    """What a run has used. `served` counts, for each phase, the rows that were trained on."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    served: tuple[int, ...] = ()


def save_checkpoint(
    path: Path, network: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...], progress: Progress
) -> None:
    """Write to a temporary name, fsync, rename."""
    tensors = {f"model.{name}": value.detach().cpu().clone() for name, value in network.named_parameters()}
    for name, value in _moments(network, optimizers):
        tensors[name] = value.detach().cpu().clone()
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(progress))})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path, network: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...] = ()) -> Progress:
    """Restore parameters and, where optimizers are given, their moments. Raises FileNotFoundError."""
    with safe_open(path, "pt") as stored:
        raw = json.loads(stored.metadata()["progress"])
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        keys = set(stored.keys())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(stored.get_tensor(f"model.{name}"))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    for key in ("momentum", "exp_avg", "exp_avg_sq", "step"):
                        full = f"optimizer.{names[id(parameter)]}.{key}"
                        if full in keys:
                            device = "cpu" if key == "step" else parameter.device
                            optimizer.state[parameter][key] = stored.get_tensor(full).to(device)
    return Progress(raw["step"], raw["seconds"], raw["tokens"], tuple(raw["served"]))


def _moments(network: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...]) -> Iterator[tuple[str, Tensor]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for key, value in optimizer.state.get(parameter, {}).items():
                    yield f"optimizer.{names[id(parameter)]}.{key}", value

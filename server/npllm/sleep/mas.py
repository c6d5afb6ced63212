"""Memory aware synapses (Aljundi et al. 2018, 1711.09601): what mattered so far is held where it is, the rest may move.

    Omega_i = mean over examples x of | d ||F(x)||^2 / d theta_i |        how much the output depends on theta_i
    L_total = L + lambda * sum_i Omega_i (theta_i - theta*_i)^2           theta*: the weights when the sleep began

F(x) are the log-probabilities at the positions of an example's answer, each weighted by the root of its own probability
p, which is held fixed: ||F||^2 = mean over positions of sum_v p_v (log p_v)^2. Unweighted, the thousands of tokens that
never come, with log p near -15, would make up all of the norm; so weighted, what is likely does. (Its gradient is then
-2 times that of the entropy, so no label enters.) Example by example, or signs would cancel; with dropout off; after
the training, since LoRA's B = 0 would give A no importance. Each tensor's Omega is divided by its mean, so that lambda
means the same in all of them. Over the sleeps Omega is a running mean, whose newest part never weighs less than
`NEWEST`: a sum, as in the paper, grows with every night until nothing can be learned any more.

Works on the trainable parameters of any module. Knows nothing of adapters, nor of where examples come from.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from npllm.sleep import checkpoint
from npllm.sleep.interruption import look
from npllm.sleep.objectives import Sample
from npllm.types import ModelError

IMPORTANCE = "importance.safetensors"  # beside a version's weights
EXAMPLES = 64  # are enough for an estimate
NEWEST = 0.2

Norm = Callable[[Any, Sample], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Importance:
    """Omega by the parameter's name, and over how many sleeps it is the mean."""

    omega: Mapping[str, torch.Tensor]
    sleeps: int = 1


@dataclass(slots=True)
class Sums:
    """An estimate that is under way: sums of absolute gradients over the first `examples` examples."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    examples: int = 0


def answer_norm(model: Any, sample: Sample) -> torch.Tensor:
    """||F(x)||^2, a differentiable scalar, for a causal LM of transformers."""
    ids = torch.tensor([sample.ids], device=next(model.parameters()).device)
    keep = len(sample.ids) - sample.loss_start + 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits[0, -keep:-1]
    log_p = torch.log_softmax(logits.float(), dim=-1)  # [answer's positions, vocabulary]
    return (log_p.detach().exp() * log_p.square()).sum(dim=-1).mean()


def estimate(
    model: nn.Module,
    samples: Sequence[Sample],
    *,
    stop: threading.Event,
    sums: Sums | None = None,
    norm: Norm = answer_norm,
) -> dict[str, torch.Tensor]:
    """Omega of every trainable parameter, by name, on the CPU; in each tensor its mean is 1, or it is 0 throughout.

    Args:
        samples: a few dozen are enough; each costs a forward and a backward.
        stop: looked at between any two examples.
        sums: where an interrupted estimate goes on, and where it is left when it is interrupted; the rest of the
            examples, added later, give the same to the bit.

    Raises:
        Interrupted: `stop` was set; `sums` holds what was done.
    """
    sums = Sums() if sums is None else sums
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    training = model.training
    model.eval()
    try:
        for sample in samples[sums.examples :]:
            look(stop)
            found = torch.autograd.grad(norm(model, sample), list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                size = torch.zeros_like(parameters[name]) if gradient is None else gradient.abs()
                before = sums.tensors.get(name)
                sums.tensors[name] = size if before is None else before.to(size.device).add_(size)
            sums.examples += 1
    finally:
        model.train(training)
    return {name: _normalised(total).cpu() for name, total in sums.tensors.items()}


def accumulate(old: Importance | None, new: Mapping[str, torch.Tensor]) -> Importance:
    """The running mean over the sleeps: the first few weigh alike, later the newest weighs `NEWEST`; old ones fade."""
    if old is None or not _fit(old.omega, new):
        return Importance(dict(new))
    share = max(NEWEST, 1.0 / (old.sleeps + 1))
    omega = {name: torch.lerp(old.omega[name].to(tensor), tensor, share) for name, tensor in new.items()}
    return Importance(omega, old.sleeps + 1)


class Penalty:
    """lambda * sum_i Omega_i (theta_i - theta*_i)^2.

    Args:
        weight: lambda.
        anchor: theta* by the parameter's name; what has no importance or no anchor is free.
        rate: the highest learning rate. Omega is cut where rate * 2 lambda Omega would pass 1, from where on a step
            of gradient descent would jump over theta*.
    """

    def __init__(
        self, weight: float, importance: Importance, anchor: Mapping[str, torch.Tensor], *, rate: float
    ) -> None:
        self.weight = weight
        most = 1.0 / max(2.0 * weight * rate, 1e-12)
        self._held = {
            name: (omega.clamp(max=most), anchor[name].detach().clone())
            for name, omega in importance.omega.items()
            if name in anchor and anchor[name].shape == omega.shape
        }

    @torch.no_grad()
    def add_gradient(self, parameters: Mapping[str, nn.Parameter]) -> float:
        """Add the penalty's gradient to `grad`, once in each optimizer step; returns the penalty's value."""
        total = 0.0
        for name, (omega, anchor) in self._held.items():
            parameter = parameters[name]
            if omega.device != parameter.device or omega.dtype != parameter.dtype:
                omega, anchor = omega.to(parameter), anchor.to(parameter)
                self._held[name] = (omega, anchor)
            away = parameter - anchor
            pull = omega * away
            total += float((pull * away).sum())
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(pull, alpha=2.0 * self.weight)
        return self.weight * total


def save(importance: Importance, file: Path) -> None:
    """Write it to a file of safetensors. Raises OSError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in importance.omega.items()}
    save_file(tensors, file, {"sleeps": str(importance.sleeps)})


def load(file: Path) -> Importance:
    """What `save` wrote.

    Raises:
        ModelError: it is not there or damaged.
    """
    try:
        with safe_open(file, framework="pt") as stream:
            names = list(stream.keys())
            return Importance({name: stream.get_tensor(name) for name in names}, int(stream.metadata()["sleeps"]))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{file} cannot be read: {error}. The next sleep measures anew what matters.") from error


def save_sums(sums: Sums, file: Path, key: str) -> None:
    """Keep an interrupted estimate; `key` tells of which weights."""
    checkpoint.write_tensors(file, sums.tensors, {"examples": str(sums.examples), "key": key})


def load_sums(file: Path, key: str) -> Sums:
    """What `save_sums` kept for the same weights; empty where there is none."""
    try:
        with safe_open(file, framework="pt") as stream:
            header = stream.metadata() or {}
            if header.get("key") == key:
                return Sums({name: stream.get_tensor(name) for name in stream.keys()}, int(header["examples"]))  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError):
        pass  # it is estimated anew
    return Sums()


def _normalised(total: torch.Tensor) -> torch.Tensor:
    mean = float(total.mean())
    return total / mean if mean > 0 else torch.zeros_like(total)


def _fit(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> bool:
    return old.keys() == new.keys() and all(old[name].shape == new[name].shape for name in new)

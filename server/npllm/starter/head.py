"""The output layer and its cross-entropy in one function, chunk by chunk.

    loss = mean_i ( logsumexp(h_i W^T) - h_i W^T [y_i] )

The gradient is made in the forward pass, while a chunk's logits are still in the cache: a whole batch's logits in
fp32 would cross the memory bus half a dozen times. Same idea as Liger's fused linear cross-entropy (2410.10989).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Tokens per chunk: on a CPU its logits stay in the cache; on a GPU few large kernels are better.
_CPU_CHUNK, _GPU_CHUNK = 128, 8192


class LinearCrossEntropy(torch.autograd.Function):
    """`apply(hidden, weight, targets, ignore)`: hidden (tokens, width), weight (vocabulary, width), targets (tokens).

    Returns the mean loss in nats over the targets that are not `ignore`. Works in the dtype of `hidden`, reduces in
    fp32, and gives fp32 gradients of the weight."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, ignore: int) -> Tensor:
        """Loss; keeps the gradients for `backward`."""
        matrix = weight.to(hidden.dtype)
        counted = (targets != ignore).sum().clamp(min=1)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        total = torch.zeros((), device=hidden.device)
        chunk = _GPU_CHUNK if hidden.is_cuda else _CPU_CHUNK
        gradient = _compiled() if hidden.is_cuda else in_place
        for begin in range(0, hidden.size(0), chunk):
            part = slice(begin, begin + chunk)
            h, y = hidden[part], targets[part]
            loss, scaled = gradient(h @ matrix.T, y, (y != ignore) / counted)
            total += loss
            grad_hidden[part] = scaled @ matrix
            grad_weight += scaled.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The kept gradients, times the outer one (a scalar)."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * outer[0].to(grad_hidden.dtype), grad_weight * outer[0].to(grad_weight.dtype), None, None


def in_place(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted loss of one chunk, a scalar, and its gradient by the logits, in their dtype. logits (tokens,
    vocabulary), targets and weights (tokens). In place, as a CPU's cache likes it."""
    index = targets.unsqueeze(1)
    log_p = torch.log_softmax(logits.float(), dim=1)
    loss = -(log_p.gather(1, index).squeeze(1) * weights).sum()
    grad = log_p.exp_()
    grad.scatter_add_(1, index, torch.full_like(index, -1, dtype=grad.dtype))
    return loss, (grad * weights.unsqueeze(1)).to(logits.dtype)


def fused(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The same, written so that a compiler makes two passes of it over the logits."""
    scores = logits.float()
    norm = scores.logsumexp(dim=1, keepdim=True)
    loss = ((norm - scores.gather(1, targets.unsqueeze(1))).squeeze(1) * weights).sum()
    hit = torch.arange(scores.size(1), device=scores.device) == targets.unsqueeze(1)
    return loss, (((scores - norm).exp() - hit.float()) * weights.unsqueeze(1)).to(logits.dtype)


@functools.cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = torch.compile(fused, dynamic=False)
    return function


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, ignore: int) -> Tensor:
    """The mean loss of `LinearCrossEntropy`, a scalar."""
    loss: Tensor = LinearCrossEntropy.apply(hidden, weight, targets, ignore)  # type: ignore[no-untyped-call]
    return loss

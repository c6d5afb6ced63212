"""The output layer and its cross-entropy in one function, chunk by chunk.

    loss = mean_i ( logsumexp(h_i W^T) - h_i W^T [y_i] )

The gradient is made in the forward pass, while a chunk's logits are still in the cache: a whole batch's logits in
fp32 would cross the memory bus half a dozen times. Same idea as Liger's fused linear cross-entropy (2410.10989).
"""

from __future__ import annotations

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
        for begin in range(0, hidden.size(0), chunk):
            part = slice(begin, begin + chunk)
            h, y = hidden[part], targets[part]
            keep = (y != ignore).unsqueeze(1)
            log_p = torch.log_softmax((h @ matrix.T).float(), dim=1)
            total -= (log_p.gather(1, y.unsqueeze(1)) * keep).sum()
            grad = log_p.exp_()
            grad.scatter_add_(1, y.unsqueeze(1), torch.full_like(y, -1, dtype=grad.dtype).unsqueeze(1))
            scaled = (grad * (keep / counted)).to(hidden.dtype)
            grad_hidden[part] = scaled @ matrix
            grad_weight += scaled.T @ h
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total / counted

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The kept gradients, times the outer one (a scalar)."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * outer[0].to(grad_hidden.dtype), grad_weight * outer[0].to(grad_weight.dtype), None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, ignore: int) -> Tensor:
    """The mean loss of `LinearCrossEntropy`, a scalar."""
    loss: Tensor = LinearCrossEntropy.apply(hidden, weight, targets, ignore)  # type: ignore[no-untyped-call]
    return loss

"""Muon: momentum whose matrix updates are orthogonalised, for the hidden matrices of a network.

    M <- mu M + G;  U = NewtonSchulz5(G + mu M);  W <- W (1 - lr wd) - lr sqrt(max(1, rows / columns)) U

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). Embeddings, norms and other
vectors are AdamW's work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from npllm.starter.team import Team

# The quintic's coefficients (a, b, c), chosen by its authors for the steepest slope at zero.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(gradients: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to `gradients` of shape (..., rows, columns), roughly: singular values come
    out between 0.7 and 1.2."""
    x = gradients.to(torch.bfloat16)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).to(gradients.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay. Takes matrices only."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        team: Team | None = None,
    ) -> None:
        self._team = team or Team()
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; matrices of one shape go together."""
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                updates = self._orthogonalised([self._nesterov(p, group["momentum"]) for p in parameters])
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _orthogonalised(self, gradients: list[Tensor]) -> Tensor:
        """Every rank does its share of the matrices, where they can be shared out evenly."""
        share, rest = divmod(len(gradients), self._team.size)
        if rest:
            return orthogonalise(torch.stack(gradients))
        begin = self._team.rank * share
        return self._team.gather(orthogonalise(torch.stack(gradients[begin : begin + share])))

    def _nesterov(self, parameter: Tensor, mu: float) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = cast(Tensor, parameter.grad)
        momentum = cast(Tensor, state["momentum"]).mul_(mu).add_(gradient)
        return gradient.add(momentum, alpha=mu)

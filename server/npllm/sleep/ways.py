"""How far of its way a cerebellum that has learned goes: W = W0 + s (W1 - W0), tensor by tensor.

A short training, at a rate that a long one can use, ends at noisier weights than it began with; between the two the
noise is averaged out sooner than what was learned (Wortsman et al., 2109.01903). s is chosen by `saying`, on lines that
this sleep has not learned; where these are too few, it is `USUAL`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch

WAYS = (1.0, 0.75, 0.5, 0.25)  # s
USUAL = 0.5  # where nothing chooses it


def ways(model: Any, origin: Any) -> Mapping[float, Callable[[], None]]:
    """s -> what brings a model's parameters there, any number of times.

    Args:
        model: with its trained weights.
        origin: the same architecture with the weights that the training began at.
    """
    began = {name: parameter.detach() for name, parameter in origin.named_parameters()}
    trained = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return {share: partial(_go, model, began, trained, share) for share in WAYS}


def usual(ways: Collection[float]) -> float:
    """The way to go of these where nothing chooses one."""
    return USUAL if USUAL in ways else max(ways)


@torch.no_grad()
def _go(model: Any, began: Mapping[str, torch.Tensor], trained: Mapping[str, torch.Tensor], share: float) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.lerp(began[name].to(trained[name]), trained[name], share))

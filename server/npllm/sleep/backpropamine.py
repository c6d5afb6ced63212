"""Backpropamine (Miconi et al., 2002.10585): a plastic layer whose trace a learned neuromodulator writes.

Over a morning's experiences in order. With x = h / rms(h) at each token of what the person wrote, y the direction of
that token in the output layer (the layer's output is clamped to what should have come, as in 1804.02464), and C =
sum_t x_t y_t^T:

    h' = h + rms(h) * tanh(x (w + alpha * Hebb))                 how the layer answers (`models/plastic.py`)
    M  = tanh(v . [1, reward, surprise, mean x])                 the neuromodulator, after the experience
    E    <- (1 - eta) E + eta C,   Hebb <- clip(Hebb + M E)      retroactive: the reward reaches back
    Hebb <- clip(Hebb + M eta C)                                 simple, where `retroactive` is off

Each experience is first predicted, then written into the trace, and w, alpha, eta and v are learned by backpropagation
through that, truncated to `WINDOW` experiences; Hebb and E begin at zero with each episode. The network below stays as
it is, so its states are given. Only in sleep; what the day left is then frozen. Ablation: Hebb = 0.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from npllm.models.plastic import apply, normalised
from npllm.sleep.interruption import look

CLIP = 2.0  # of the trace, element by element
WINDOW = 16  # experiences through which is backpropagated
INITIAL = 1e-3  # w and alpha begin at this times U(0, 1)
ETA = 0.01


@dataclass(frozen=True, slots=True)
class Moment:
    """One experience.

    Attributes:
        hidden: the last hidden states [T, D] before its T tokens.
        targets: those tokens [T].
        reward: its reward, [-1, 1].
        surprise: nats per token without the layer.
    """

    hidden: torch.Tensor
    targets: torch.Tensor
    reward: float
    surprise: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Hebb and the eligibility E, each [D, D]."""

    hebb: torch.Tensor
    eligibility: torch.Tensor

    def cut(self) -> Trace:
        """The same numbers, through which nothing flows back."""
        return Trace(self.hebb.detach(), self.eligibility.detach())


class Plastic(nn.Module):
    """The layer's parameters: w, alpha [D, D], eta, v [3 + D].

    Args:
        output: the output layer's weights [V, D], which stay as they are.
    """

    def __init__(self, output: torch.Tensor, *, seed: int = 0, retroactive: bool = True) -> None:
        super().__init__()
        width = output.shape[1]
        chance = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(INITIAL * torch.rand(width, width, generator=chance))
        self.alpha = nn.Parameter(INITIAL * torch.rand(width, width, generator=chance))
        self.eta = nn.Parameter(torch.tensor(ETA))
        start = torch.zeros(3 + width)
        start[:2] = 0.5
        self.v = nn.Parameter(start)
        self.retroactive = retroactive
        self._output = output.detach()
        self._directions = normalised(self._output)[0]

    def reset(self) -> Trace:
        """The trace at an episode's beginning."""
        return Trace(torch.zeros_like(self.w.data), torch.zeros_like(self.w.data))

    def nll(self, moment: Moment, trace: Trace) -> torch.Tensor:
        """-log p of each token [T], given a trace."""
        hidden = apply(moment.hidden, self.w + self.alpha * trace.hebb)
        return functional.cross_entropy(functional.linear(hidden, self._output), moment.targets, reduction="none")

    def write(self, moment: Moment, trace: Trace) -> Trace:
        """The trace after an experience."""
        x = normalised(moment.hidden)[0]
        together = x.T @ self._directions[moment.targets]
        facts = torch.cat((x.new_tensor([1.0, moment.reward, moment.surprise]), x.mean(0)))
        modulation = torch.tanh(self.v @ facts)
        if self.retroactive:
            eligibility = (1 - self.eta) * trace.eligibility + self.eta * together
            return Trace((trace.hebb + modulation * eligibility).clamp(-CLIP, CLIP), eligibility)
        return Trace((trace.hebb + modulation * self.eta * together).clamp(-CLIP, CLIP), trace.eligibility)

    def roll(self, episode: Sequence[Moment], stop: threading.Event) -> Trace:
        """The trace that an episode leaves. Raises Interrupted."""
        trace = self.reset()
        with torch.no_grad():
            for moment in episode:
                look(stop)
                trace = self.write(moment, trace)
        return trace


def train(
    layer: Plastic, episodes: Sequence[Sequence[Moment]], stop: threading.Event, *, passes: int, rate: float
) -> list[float]:
    """Learn the layer's parameters; the mean loss (nats per token) of each pass.

    Raises:
        Interrupted: `stop` was set.
    """
    optimizer = torch.optim.Adam(layer.parameters(), lr=rate)
    losses = []
    for _ in range(passes):
        nats, tokens = 0.0, 0
        for episode in episodes:
            trace = layer.reset()
            for begin in range(0, len(episode), WINDOW):
                window = episode[begin : begin + WINDOW]
                size = sum(len(moment.targets) for moment in window)
                total = torch.zeros(())
                for moment in window:
                    look(stop)
                    total = total + layer.nll(moment, trace).sum()
                    trace = layer.write(moment, trace)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(total / size)
                trace = trace.cut()
                if layer.alpha.grad is not None:
                    layer.alpha.grad /= len(layer.alpha)  # else it rules the norm: each connection sums over the day
                nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
                optimizer.step()
                with torch.no_grad():
                    layer.eta.clamp_(0.0, 1.0)
                nats, tokens = nats + float(total.detach()), tokens + size
        losses.append(nats / max(1, tokens))
    return losses

"""Plastic gains of attention: Backpropamine (Miconi et al., 2002.10585) with one plastic connection for each head.

Over a sleep's experiences in order, for layer l and head h (all but M elementwise, [layers, heads]):

    g = clip(w + alpha * Hebb)                       what acts on the attention scores, as in `models/attention.py`
    C_lh = mean_t sum_j a_lh(t, j) s_j               the Hebbian term, after the experience
    M = tanh(v . [1, reward, surprise])              the neuromodulator
    E <- (1 - eta) E + eta C,   Hebb <- clip(Hebb + M E)

What comes in is the satisfaction s_j of a memory's token j (less the centre), what comes out is the weight a_lh(t, j)
that the head gives it before token t of what the person wrote: C is their product. It and the surprise (nats per token)
are taken under standard attention, so they are given, and backpropagation through the trace is exact.

Each experience is first predicted, then written into the trace; w, alpha, v and eta are learned by backpropagation
through that, truncated to the experiences of an optimizer step. Since dL/dg_i is all that a trace can tell the network,
the network's graph is freed prompt by prompt: sum_i <dL_i/dg_i, g_i> has the same gradient. The bounds of g are not
differentiated through. w and alpha begin at zero, so g does, whatever the trace; Hebb and E are zero when a sleep
begins. What the trace is at its end is stored and frozen. Ablation: `zeroed`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from npllm.models.attention import Bias, Gains
from npllm.sleep import checkpoint
from npllm.sleep.attention import OnStep, Recipe, Remembered, answer_nll, bias_of, weighed_tokens
from npllm.sleep.backpropamine import CLIP, ETA, Trace
from npllm.sleep.checkpoint import Position
from npllm.sleep.interruption import look


@dataclass(frozen=True, slots=True)
class Moment:
    """One experience: C [L, H], its reward in [-1, 1], its surprise in nats per token."""

    attended: torch.Tensor
    reward: float
    surprise: float


class PlasticGains(nn.Module):
    """w, alpha [L, H], v [3], eta.

    Args:
        start: whose parts are learned on, or else whose values are w.
    """

    def __init__(self, start: Gains, max_gain: float) -> None:
        super().__init__()
        values = start.values.detach()
        self.w = nn.Parameter(values.clone())
        self.alpha = nn.Parameter(torch.zeros_like(values))
        self.v = nn.Parameter(values.new_tensor([0.5, 0.5, 0.0]))
        self.eta = nn.Parameter(values.new_tensor(ETA))
        self._most = max_gain
        own = dict(self.named_parameters())
        if all(name in start.parts and start.parts[name].shape == one.shape for name, one in own.items()):
            self.set(start.parts)
        self.project()

    def set(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the parameters from what has their names."""
        for name, parameter in self.named_parameters():
            parameter.data.copy_(tensors[name])

    def reset(self) -> Trace:
        """The trace when a sleep begins."""
        return Trace(torch.zeros_like(self.w.data), torch.zeros_like(self.w.data))

    def gains(self, trace: Trace) -> torch.Tensor:
        """w + alpha * Hebb [L, H], without bounds."""
        return self.w + self.alpha * trace.hebb

    def bounded(self, gains: torch.Tensor) -> torch.Tensor:
        """What acts; nothing flows back."""
        return gains.detach().clamp(-self._most, self._most)

    def write(self, moment: Moment, trace: Trace) -> Trace:
        """The trace after an experience."""
        facts = self.v.new_tensor([1.0, moment.reward, moment.surprise])
        eligibility = (1 - self.eta) * trace.eligibility + self.eta * moment.attended
        return Trace((trace.hebb + torch.tanh(self.v @ facts) * eligibility).clamp(-CLIP, CLIP), eligibility)

    @torch.no_grad()
    def roll(self, episode: Sequence[Moment], stop: threading.Event) -> Trace:
        """The trace that an episode leaves. Raises Interrupted."""
        trace = self.reset()
        for moment in episode:
            look(stop)
            trace = self.write(moment, trace)
        return trace

    @torch.no_grad()
    def project(self) -> None:
        """Back within the bounds."""
        self.eta.clamp_(0.0, 1.0)
        for parameter in (self.w, self.alpha):
            parameter.clamp_(-self._most, self._most)


@torch.no_grad()
def observe(model: Any, prompt: Remembered, centre: float, shape: tuple[int, int]) -> Moment:
    """What an experience leaves to learn from, under standard attention."""
    first, device = prompt.sample.loss_start - 1, next(model.parameters()).device
    none = bias_of(Gains(torch.zeros(shape, device=device), centre), prompt)
    attended = torch.zeros(shape, device=device)

    def watch(layer: int, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor, scale: float) -> None:
        keys = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = scale * query[:, :, first:-1] @ keys.transpose(-1, -2) + mask[:, :, first:-1]
        weights = scores.float().softmax(-1)  # [1, H, T, K]
        attended[layer] = (weights @ none.satisfaction[0]).mean(-1)[0]

    nll = answer_nll(model, prompt, Bias(none.gains, none.satisfaction, watch))
    return Moment(attended, prompt.reward, float(nll.mean()))


def learn(
    model: Any,
    prompts: Sequence[Remembered],
    start: Gains,
    recipe: Recipe,
    *,
    stop: threading.Event,
    activate: Callable[[str], None] = lambda _: None,
    file: Path | None = None,
    key: str = "",
    on_step: OnStep = lambda *_: None,
) -> tuple[Gains, Position]:
    """As `npllm.sleep.attention.learn`, for plastic gains; `recipe.batch` experiences are backpropagated through.

    Args:
        prompts: in the order in which they were lived through.

    Returns: the gains at the end of the trace, with their parts: w, alpha, v, eta, and hebb.

    Raises:
        Interrupted: the person is back; at most the step under way is lost.
    """
    layer = PlasticGains(start, recipe.max_gain)
    rate = recipe.learning_rate
    optimizer = torch.optim.Adam([{"params": [layer.w, layer.alpha, layer.v]}], lr=rate)
    optimizer.add_param_group({"params": [layer.eta], "lr": rate * ETA})  # it is small, and so are its steps
    shape = (int(start.values.shape[0]), int(start.values.shape[1]))
    a_pass = math.ceil(len(prompts) / recipe.batch)
    position = Position(total=a_pass * recipe.epochs, samples=len(prompts))
    trace, lived = layer.reset(), list[Moment]()
    if file is not None and (kept := checkpoint.read(file, key)) is not None:
        tensors, position = kept
        tensors = {name: tensor.to(start.values.device) for name, tensor in tensors.items()}
        trace, lived = _restored(layer, optimizer, tensors, position, prompts)
    began, before = time.monotonic(), position.seconds
    while position.step < position.total and position.seconds < recipe.budget_s:
        begin = position.step % a_pass * recipe.batch
        if begin == 0:
            trace = layer.reset()
        window = prompts[begin : begin + recipe.batch]
        for one in prompts[len(lived) : begin + recipe.batch]:
            look(stop)
            activate(one.context)
            lived.append(observe(model, one, start.centre, shape))
        loss, trace = _step(model, window, lived[begin:], layer, trace, start, optimizer, stop, activate)
        position.step += 1
        position.tokens += sum(len(one.sample.ids) for one in window)
        position.seconds = before + time.monotonic() - began
        if file is not None:
            checkpoint.write(file, _state(layer, optimizer, trace, lived), position, key)
        on_step(position.step, position.total, loss)
    hebb = layer.roll(lived, stop).hebb
    parts = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    values = layer.bounded(layer.gains(Trace(hebb, hebb)))
    return Gains(values, start.centre, parts | {"hebb": hebb}), position


def zeroed(gains: Gains) -> Gains | None:
    """The ablation: the gains as if the day had left no trace; None where they are not plastic."""
    if "hebb" not in gains.parts:
        return None
    return Gains(gains.parts["w"], gains.centre)


def _step(
    model: Any,
    window: Sequence[Remembered],
    lived: Sequence[Moment],
    layer: PlasticGains,
    trace: Trace,
    start: Gains,
    optimizer: torch.optim.Optimizer,
    stop: threading.Event,
    activate: Callable[[str], None],
) -> tuple[float, Trace]:
    """One optimizer step; nats per answer token, and the trace after the window."""
    tokens, total = weighed_tokens(window), 0.0
    through = start.values.new_zeros(())
    for one, moment in zip(window, lived, strict=False):
        look(stop)
        activate(one.context)
        gains = layer.gains(trace)
        leaf = layer.bounded(gains).requires_grad_(True)
        nll = answer_nll(model, one, bias_of(replace(start, values=leaf), one))
        loss = one.sample.weight * nll.sum() / tokens
        (slope,) = torch.autograd.grad(loss, leaf)
        through = through + (slope * gains).sum()
        total += float(loss.detach())
        trace = layer.write(moment, trace)
    for parameter in layer.parameters():  # also what a window of one experience does not reach
        parameter.grad = torch.zeros_like(parameter)
    torch.autograd.backward(through)
    optimizer.step()
    layer.project()
    return total, trace.cut()


def _state(
    layer: PlasticGains, optimizer: torch.optim.Optimizer, trace: Trace, lived: Sequence[Moment]
) -> dict[str, torch.Tensor]:
    """What `_restored` goes on with."""
    state = {"hebb": trace.hebb, "eligibility": trace.eligibility}
    for name, parameter in layer.named_parameters():
        state[name] = parameter
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{name}.{moment}"] = optimizer.state[parameter][moment]
    state["attended"] = torch.stack([one.attended for one in lived])
    state["surprise"] = torch.tensor([one.surprise for one in lived], dtype=torch.float64)
    return state


def _restored(
    layer: PlasticGains,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, torch.Tensor],
    position: Position,
    prompts: Sequence[Remembered],
) -> tuple[Trace, list[Moment]]:
    """The trace and what was lived through; parameters and optimizer are set."""
    layer.set(state)
    for name, parameter in layer.named_parameters():
        moments = {moment: state[f"{name}.{moment}"] for moment in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {**moments, "step": torch.tensor(float(position.step))}
    found = zip(state["attended"], prompts, state["surprise"].tolist(), strict=False)
    lived = [Moment(attended, one.reward, surprise) for attended, one, surprise in found]
    return Trace(state["hebb"], state["eligibility"]), lived

"""Memory aware synapses: the importance is the one of the equation, and what matters is held."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from npllm.sleep import mas
from npllm.sleep.interruption import Interrupted
from npllm.sleep.mas import Importance, Penalty, Sums
from npllm.sleep.objectives import Sample
from npllm.types import ModelError

VOCABULARY, HIDDEN = 7, 3
SAMPLES = [Sample((1, 2, 3, 4), 2), Sample((2, 5, 1), 1), Sample((6, 3, 3, 0, 2), 3)]
QUIET = threading.Event()


class Words(nn.Module):
    """A bigram model: logits = W e[token]; e is frozen."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.embedding = nn.Parameter(torch.randn(VOCABULARY, HIDDEN, generator=generator), requires_grad=False)
        self.output = nn.Parameter(torch.randn(VOCABULARY, HIDDEN, generator=generator))
        self.idle = nn.Parameter(torch.ones(2))
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids: torch.Tensor, use_cache: bool, logits_to_keep: int) -> Any:
        assert not use_cache
        hidden = self.dropout(self.embedding[input_ids])
        return SimpleNamespace(logits=(hidden @ self.output.T)[:, -logits_to_keep:])


def by_hand(model: Words) -> torch.Tensor:
    """Omega of `output` from the softmax's own derivative: for one position
    d/dW_u sum_v p_v (log p_v)^2 = 2 (p_u log p_u - p_u sum_v p_v log p_v) h, with the outer p held fixed."""
    total = torch.zeros(VOCABULARY, HIDDEN)
    for sample in SAMPLES:
        gradient = torch.zeros(VOCABULARY, HIDDEN)
        positions = range(sample.loss_start - 1, len(sample.ids) - 1)
        for position in positions:
            hidden = model.embedding[sample.ids[position]]
            p = torch.softmax(model.output.detach() @ hidden, 0)
            entropy = -(p * p.log()).sum()
            gradient += torch.outer(2 * p * (p.log() + entropy), hidden) / len(positions)
        total += gradient.abs()
    return total / total.mean()


def test_the_importance_is_the_mean_of_absolute_gradients_example_by_example() -> None:
    model = Words().train()
    omega = mas.estimate(model, SAMPLES, stop=QUIET)
    assert model.training, "left as it was, though estimated without dropout"
    assert omega.keys() == {"output", "idle"}, "what is frozen has none"
    assert torch.allclose(omega["output"], by_hand(model), atol=1e-5)
    assert torch.equal(omega["idle"], torch.zeros(2)), "nothing depends on it: free to move"
    assert model.output.grad is None


def test_tokens_that_never_come_do_not_make_up_the_importance() -> None:
    model = Words()
    with torch.no_grad():
        model.embedding[:, 0] = 1.0
        model.output[0] = torch.tensor([-30.0, 0.0, 0.0])  # log p near -30 everywhere
    rows = mas.estimate(model, SAMPLES, stop=QUIET)["output"].sum(dim=1)
    assert rows[0] < 1e-6 * rows.sum()


def test_an_interrupted_estimate_goes_on_to_the_same_result() -> None:
    class SecondLook(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks == 3

    model, sums = Words(), Sums()
    with pytest.raises(Interrupted):
        mas.estimate(model, SAMPLES, stop=SecondLook(), sums=sums)
    assert sums.examples == 2
    resumed = mas.estimate(model, SAMPLES, stop=QUIET, sums=sums)
    whole = mas.estimate(model, SAMPLES, stop=QUIET)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_over_the_sleeps_it_is_a_running_mean_in_which_the_newest_keeps_its_say() -> None:
    def one(value: float) -> dict[str, torch.Tensor]:
        return {"w": torch.full((2,), value)}

    kept = mas.accumulate(None, one(4.0))
    kept = mas.accumulate(kept, one(1.0))
    kept = mas.accumulate(kept, one(1.0))
    assert kept.sleeps == 3
    assert torch.allclose(kept.omega["w"], torch.tensor(2.0)), "the mean of 4, 1 and 1"
    for _ in range(40):
        kept = mas.accumulate(kept, one(5.0))
    assert torch.allclose(kept.omega["w"], torch.tensor(5.0), atol=0.01), "neither a growing sum nor a frozen mean"
    assert mas.accumulate(kept, {"w": torch.ones(3)}).sleeps == 1, "another shape: it begins anew"


def test_the_penalty_is_the_equation_and_its_gradient() -> None:
    theta = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    omega, anchor = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.0, 1.0, 1.0])
    theta.grad = torch.ones(3)
    penalty = Penalty(0.5, Importance({"w": omega, "gone": torch.ones(1)}), {"w": anchor}, rate=1e-3)
    value = penalty.add_gradient({"w": theta})
    expected = 0.5 * (omega * (theta - anchor) ** 2).sum()
    assert value == pytest.approx(float(expected.detach()))
    (gradient,) = torch.autograd.grad(expected, theta)
    assert torch.allclose(theta.grad, 1.0 + gradient)


def test_gradient_descent_on_the_penalty_never_jumps_over_its_anchor() -> None:
    rate = 0.1
    theta = nn.Parameter(torch.tensor([5.0, -5.0]))
    penalty = Penalty(2.0, Importance({"w": torch.tensor([1e6, 0.5])}), {"w": torch.zeros(2)}, rate=rate)
    optimizer = torch.optim.SGD([theta], lr=rate)
    sizes = []
    for _ in range(5):
        optimizer.zero_grad()
        penalty.add_gradient({"w": theta})
        optimizer.step()
        sizes.append(float(theta.detach().abs().max()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 2.0


def test_what_the_first_task_needs_is_kept_while_the_second_is_learned() -> None:
    """Least squares with more weights than the first task uses: with the penalty both fit, without it the first is
    lost."""

    def square(model: Any, sample: Sample) -> torch.Tensor:
        return (model.weight[0, : len(sample.ids)] * torch.tensor(sample.ids)).sum() ** 2

    def after(weight: float) -> tuple[float, float]:
        model = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))  # the first task: x1 + 2 x2
        omega = mas.estimate(model, [Sample((1, 0), 1), Sample((0, 1), 1)], stop=QUIET, norm=square)
        parameters = dict(model.named_parameters())
        penalty = Penalty(weight, Importance(omega), {"weight": model.weight}, rate=0.05)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        second = torch.tensor([1.0, 1.0, 1.0, 1.0])
        for _ in range(300):
            optimizer.zero_grad()
            (model(second) - 7.0).square().sum().backward()
            penalty.add_gradient(parameters)
            optimizer.step()
        first = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
        lost = (model(first).flatten() - torch.tensor([1.0, 2.0])).square().sum()
        return float(lost.detach()), float((model(second) - 7.0).abs().detach())

    (lost_free, left_free), (lost_held, left_held) = after(0.0), after(1.0)
    assert left_free < 0.01
    assert left_held < 0.01, "the weights that did not matter learn the second task"
    assert lost_free > 1.0
    assert lost_held < 0.05


def test_it_is_kept_in_a_file_and_a_damaged_one_says_so(tmp_path: Path) -> None:
    file = tmp_path / mas.IMPORTANCE
    kept = Importance({"a.weight": torch.rand(2, 3)}, 4)
    mas.save(kept, file)
    found = mas.load(file)
    assert found.sleeps == 4
    assert torch.equal(found.omega["a.weight"], kept.omega["a.weight"])
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ModelError, match="measures anew"):
        mas.load(file)

"""Distillation on general code: it is the divergence from the base, and training with it stays nearer to the base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import kl_div

from npllm.sleep import lora
from npllm.sleep.distillation import Distillation
from npllm.sleep.lora import Shape
from npllm.sleep.objectives import Denominators
from tests.unit.test_sleep_trainer import RECIPE, Bench

OUTPUT, INSIDE = Shape(8, 16, False, "output"), Shape(8, 16, False)


def disturbed(model: Path, folder: Path, shape: Shape) -> Bench:
    """A bench whose adapter does something."""
    bench = Bench(model, folder, replace(RECIPE, shape=shape))
    for number, parameter in enumerate(lora.trainable(bench.adapted).values()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))
    return bench


def term(bench: Bench, weight: float = 1.0, mu: float = 0.5, on_output: bool | None = None) -> Distillation:
    alone = lora.after_the_cache(bench.adapted)
    alone = alone if on_output is None else on_output
    return Distillation(weight, mu, frozenset(), 0, on_output=alone, stop=bench.stop)


@pytest.mark.parametrize("shape", [OUTPUT, INSIDE])
def test_it_is_the_divergence_from_the_base(tiny_model: Path, tmp_path: Path, shape: Shape) -> None:
    bench = disturbed(tiny_model, tmp_path, shape)
    (sample,) = bench.samples[:1]
    ids = torch.tensor([sample.ids])
    with torch.no_grad():
        q = torch.log_softmax(bench.adapted(ids).logits[0, :-1], dim=-1)
        with bench.adapted.disable_adapter():
            p = torch.log_softmax(bench.adapted(ids).logits[0, :-1], dim=-1)
    each = kl_div(q, p, reduction="none", log_target=True).sum(dim=-1)
    answer, prompt = each[sample.loss_start - 1 :].mean(), each[: sample.loss_start - 1].mean()
    found = term(bench, weight=3.0)
    batch = found.collate([sample], torch.device("cpu"))
    loss = found.loss(bench.adapted, batch, found.denominators([sample]))
    assert float(loss.detach()) == pytest.approx(3.0 * float(answer + 0.5 * prompt), rel=1e-4)
    half = found.loss(bench.adapted, batch, found.shared([sample], 2.0))
    assert float(half.detach()) == pytest.approx(float(loss.detach()) / 2), "another step has none, or two"
    torch.autograd.backward(loss)
    assert all(parameter.grad is not None for parameter in lora.trainable(bench.adapted).values())
    assert bench.base.digest() == bench.digest


@pytest.mark.parametrize("shape", [OUTPUT, INSIDE])
def test_an_adapter_that_does_nothing_costs_nothing_and_is_not_moved(
    tiny_model: Path, tmp_path: Path, shape: Shape
) -> None:
    bench = Bench(tiny_model, tmp_path, replace(RECIPE, shape=shape))
    found = term(bench)
    loss = found.loss(bench.adapted, found.collate(bench.samples[:2], torch.device("cpu")), Denominators(1.0, 1.0))
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-4)
    gradients = torch.autograd.grad(loss, list(lora.trainable(bench.adapted).values()))
    assert all(float(gradient.abs().max()) < 1e-4 for gradient in gradients)


def test_on_the_output_layer_it_needs_no_second_forward_and_can_be_cut_in_pieces(
    tiny_model: Path, tmp_path: Path
) -> None:
    bench = disturbed(tiny_model, tmp_path, OUTPUT)
    parameters = list(lora.trainable(bench.adapted).values())
    samples = sorted(bench.samples, key=lambda sample: len(sample.ids))[:3]
    one, two = term(bench), term(bench, on_output=False)
    batch, denominators = one.collate(samples, torch.device("cpu")), one.denominators(samples)
    forwards: list[int] = []
    handle = bench.adapted.get_input_embeddings().register_forward_hook(lambda *_: forwards.append(1))
    first = one.loss(bench.adapted, batch, denominators)
    assert len(forwards) == 1
    second = two.loss(bench.adapted, batch, denominators)
    assert len(forwards) == 3
    handle.remove()
    assert float(first.detach()) == pytest.approx(float(second.detach()), rel=1e-4)
    wanted = torch.autograd.grad(first, parameters)
    for gradient, expected in zip(torch.autograd.grad(second, parameters), wanted, strict=True):
        assert torch.allclose(gradient, expected, atol=1e-5)
    for positions in (7, batch.ids.shape[1] - 1, 1000):
        found = [torch.zeros_like(parameter) for parameter in parameters]
        for part in one.parts(bench.adapted, batch, denominators, positions):
            for gradient, more in zip(found, torch.autograd.grad(part, parameters), strict=True):
                gradient.add_(more)
        for gradient, expected in zip(found, wanted, strict=True):
            assert torch.allclose(gradient, expected, atol=1e-5)
    plain = bench.adapted(batch.ids).logits
    assert plain.shape[0] == len(samples), "nothing of it stays in the model"


@pytest.mark.parametrize("shape", [OUTPUT, INSIDE])
def test_what_is_rehearsed_is_displaced_less_and_the_rest_is_still_learned(
    tiny_model: Path, tmp_path: Path, shape: Shape
) -> None:
    def trained(weight: float) -> tuple[float, float]:
        folder = tmp_path / str(weight)
        folder.mkdir()
        bench = Bench(tiny_model, folder, replace(RECIPE, shape=shape, kl_weight=weight), inner=0)
        bench.rehearsed, bench.samples = bench.samples[:8], bench.samples[8:]
        before = bench.nats()
        bench.trainer().run(600.0)
        assert bench.base.digest() == bench.digest
        found = term(bench)
        batch = found.collate(bench.rehearsed, torch.device("cpu"))
        with torch.no_grad():
            away = float(found.loss(bench.adapted, batch, found.denominators(bench.rehearsed)))
        return away, bench.nats() / before

    free, alone = trained(0.0)
    held, beside = trained(20.0)
    assert held < 0.5 * free
    assert max(alone, beside) < 0.99

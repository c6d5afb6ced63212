"""The bare loop must do the very work that the sleep's own training does, or the comparison says nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from npllm.models.base import Base
from npllm.sleep import bare, lora
from npllm.sleep.lora import Shape
from npllm.sleep.objectives import Nll, Sample
from npllm.sleep.trainer import Recipe, Trainer


def test_it_learns_what_the_trainer_learns_from_the_same_steps(tiny_model: Path, tmp_path: Path) -> None:
    samples = [Sample(tuple(range(10 + k, 40 + k)), 12) for k in range(8)]
    # A constant rate without clipping, as the bare loop has: warm-up and decay are the trainer's own.
    recipe = Recipe(Shape(4, 8, False), learning_rate=1e-3, batch_tokens=64, epochs=1, warmup=0.0, floor=1.0, clip=1e9)
    left = []
    for way in ("trainer", "bare"):
        base = Base.load(str(tiny_model), device="cpu", threads=1)
        adapted = lora.attach(base.model, recipe.shape, seed=0)
        if way == "trainer":
            trainer = Trainer(
                adapted,
                samples,
                [],
                recipe,
                control=frozenset(),
                pad=0,
                file=tmp_path / "state.safetensors",
                stop=threading.Event(),
            )
            assert trainer.run(3600.0).position.tokens == sum(len(sample.ids) for sample in samples)
        else:
            adapted.eval()
            assert bare.tokens_per_s(adapted, samples, recipe, Nll(recipe.mu, frozenset(), 0)) > 0
        left.append({name: tensor.clone() for name, tensor in lora.weights(adapted).items()})
    ours, alone = left
    assert ours.keys() == alone.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-2, atol=1e-4)
    assert any(float(tensor.abs().max()) > 0 for name, tensor in alone.items() if "lora_B" in name)

"""The gains of attention are learned by gradient, alone, within their bounds, and exactly resumable."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from npllm.models import attention as mechanism
from npllm.models.attention import Gains
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, PromptParts, choose
from npllm.sleep import attention
from npllm.sleep.attention import Recipe, Remembered
from npllm.sleep.interruption import Interrupted
from npllm.sleep.objectives import Sample
from npllm.types import Snippet, new_id
from tests.tiny import PRACTICE

RECIPE = Recipe(learning_rate=0.1, batch=4, epochs=3)


@pytest.fixture
def base(practised_model: Path) -> Base:
    base = Base.load(str(practised_model), device="cpu", threads=1)
    mechanism.prepare(base.model)
    return base


def prompts(base: Base, *, satisfied: float = 1.0) -> list[Remembered]:
    """Lines of `PRACTICE`, each with the whole text as a memory that paid and noise as one that did not."""
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    lines = PRACTICE.splitlines(keepends=True)
    useful = Snippet("shapes.py", PRACTICE, 0.9, new_id(), satisfied)
    noise = Snippet("x.py", "zz = [9, 9, 9]\nqq = {7: 7}\n" * 3, 0.8, new_id(), -satisfied)
    made = []
    for index in (1, 5, 8, 9):
        answer = builder.encode_middle(lines[index].rstrip("\n"))
        prompt = builder.build(
            PromptParts("a.py", "".join(lines[:index]), "\n", (useful, noise)), reserve=64, snippet_budget=200
        )
        assert len(prompt.spans) == 2
        made.append(Remembered(Sample((*prompt.ids, *answer), len(prompt.ids)), prompt.spans, f"c{index}"))
    return made * 3


def start(base: Base) -> Gains:
    return Gains.none(mechanism.shape_of(base.model), 0.0)


def learned(base: Base, made: list[Remembered], recipe: Recipe = RECIPE, **options: Any) -> tuple[Gains, Any]:
    options.setdefault("stop", threading.Event())
    return attention.learn(base.model, made, start(base), recipe, **options)


def test_what_was_written_becomes_likelier_and_nothing_else_moves(base: Base) -> None:
    made = prompts(base)
    digest = base.digest()
    acted: list[str] = []
    gains, position = learned(base, made, activate=acted.append)
    assert position.step == position.total == 9
    assert set(acted) == {"c1", "c5", "c8", "c9"}
    before = sum(attention.nats(base.model, one, None) for one in made)
    assert sum(attention.nats(base.model, one, start(base)) for one in made) == pytest.approx(before)
    assert sum(attention.nats(base.model, one, gains) for one in made) < before
    assert base.digest() == digest
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_the_first_step_follows_the_gradient_of_the_equation(base: Base) -> None:
    """Adam's first step is the gradient's sign; that is held to a finite difference."""
    made = prompts(base)[:4]
    gains, _ = learned(base, made, Recipe(learning_rate=0.1, batch=4, epochs=1))
    zero = start(base)

    def cost(layer: int, head: int, value: float) -> float:
        values = zero.values.clone()
        values[layer, head] = value
        return sum(attention.nats(base.model, one, Gains(values, 0.0)) for one in made)

    for layer, head in ((0, 0), (1, 2)):
        slope = (cost(layer, head, 0.05) - cost(layer, head, -0.05)) / 0.1
        assert abs(slope) > 1e-3
        assert gains.values[layer, head].item() == pytest.approx(-0.1 if slope > 0 else 0.1, abs=1e-3)


def test_gains_stay_within_their_bounds(base: Base) -> None:
    gains, _ = learned(base, prompts(base), Recipe(learning_rate=1.0, max_gain=0.25, batch=4))
    assert gains.values.abs().max().item() == pytest.approx(0.25)


class Count:
    """A stop that is set after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("looks", [0, 2, 9, 22])
def test_an_interrupted_learning_ends_as_an_uninterrupted_one(base: Base, tmp_path: Path, looks: int) -> None:
    made = prompts(base)
    whole, _ = learned(base, made)
    file = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted):
        learned(base, made, stop=Count(looks), file=file, key="k")
    assert file.exists() == (looks >= 4)
    gains, position = learned(base, made, file=file, key="k")
    assert torch.equal(gains.values, whole.values)
    assert position.step == 9


def test_another_training_s_checkpoint_is_not_gone_on_with(base: Base, tmp_path: Path) -> None:
    made = prompts(base)
    file = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted):
        learned(base, made, stop=Count(9), file=file, key="another")
    steps: list[int] = []
    learned(base, made, file=file, key="k", on_step=lambda step, *_: steps.append(step))
    assert steps == list(range(1, 10))


def test_the_centre_is_the_mean_of_what_stood_in_the_prompts(base: Base) -> None:
    assert attention.centre_of(prompts(base)) == pytest.approx(0.0)
    assert attention.centre_of([]) == 0.0

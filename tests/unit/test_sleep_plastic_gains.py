"""Plastic gains follow their equations, are learned through the episode, start as standard attention, and resume."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from npllm.models import attention as mechanism
from npllm.models.attention import Gains, acting
from npllm.models.base import Base
from npllm.sleep import attention, plastic_gains
from npllm.sleep.attention import Recipe, Remembered
from npllm.sleep.backpropamine import CLIP
from npllm.sleep.interruption import Interrupted
from npllm.sleep.plastic_gains import Moment, PlasticGains
from tests.unit.test_sleep_attention import Count, prompts

RECIPE = Recipe(learning_rate=0.1, batch=4, epochs=3)
NEVER = threading.Event()
SHAPE = (2, 3)


@pytest.fixture
def base(practised_model: Path) -> Base:
    base = Base.load(str(practised_model), device="cpu", threads=1)
    mechanism.prepare(base.model)
    return base


def rewarded(base: Base) -> list[Remembered]:
    """Twelve prompts with a satisfying and an unsatisfying memory, of which most were rewarded."""
    return [replace(one, reward=(1.0, 0.5, -0.25)[index % 3]) for index, one in enumerate(prompts(base))]


def start(base: Base) -> Gains:
    return Gains.none(mechanism.shape_of(base.model), 0.0)


def learned(base: Base, made: list[Remembered], recipe: Recipe = RECIPE, **options: Any) -> tuple[Gains, Any]:
    options.setdefault("stop", NEVER)
    options.setdefault("start", start(base))
    begin = options.pop("start")
    return plastic_gains.learn(base.model, made, begin, recipe, **options)


def cost(base: Base, made: list[Remembered], gains: Gains) -> float:
    return sum(attention.nats(base.model, one, gains) for one in made)


def random_moments(count: int) -> list[Moment]:
    chance = torch.Generator().manual_seed(3)
    return [Moment(torch.randn(SHAPE, generator=chance), 0.5, 1.5) for _ in range(count)]


def test_the_trace_follows_the_rule_within_its_bounds_and_begins_anew() -> None:
    layer = PlasticGains(Gains.none(SHAPE, 0.0), 2.0)
    first, second = random_moments(2)
    trace = layer.roll([first], NEVER)
    modulation = torch.tanh(torch.tensor(0.5 + 0.5 * 0.5))
    torch.testing.assert_close(trace.eligibility, 0.01 * first.attended)
    torch.testing.assert_close(trace.hebb, modulation * 0.01 * first.attended)
    both = layer.roll([first, second], NEVER)
    eligibility = 0.99 * 0.01 * first.attended + 0.01 * second.attended
    torch.testing.assert_close(both.hebb, trace.hebb + modulation * eligibility)
    assert float(layer.roll([first] * 2000, NEVER).hebb.abs().max()) == CLIP
    assert torch.equal(layer.roll([first], NEVER).hebb, trace.hebb), "nothing of an earlier sleep is left"
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        layer.roll([first], stop)


def test_what_a_head_attended_to_is_its_weights_times_the_satisfaction(base: Base) -> None:
    """Against the weights that transformers' own eager attention gives."""
    one = prompts(base)[1]
    seen = plastic_gains.observe(base.model, one, 0.0, mechanism.shape_of(base.model))
    assert seen.surprise == pytest.approx(
        attention.nats(base.model, one, None) / (len(one.sample.ids) - one.sample.loss_start), rel=1e-4
    )
    felt = torch.tensor(start(base).felt(len(one.sample.ids), one.spans))
    base.model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = base.model(torch.tensor([one.sample.ids]), output_attentions=True).attentions
    wanted = [(layer[0, :, one.sample.loss_start - 1 : -1] @ felt).mean(-1) for layer in weights]
    torch.testing.assert_close(seen.attended, torch.stack(wanted), atol=1e-4, rtol=1e-3)
    assert seen.attended.abs().max() > 0.01


def test_a_rewarded_memory_raises_the_gains_and_an_unrewarded_one_lowers_them(base: Base) -> None:
    one = prompts(base)[1]
    liked = replace(one, spans=(replace(one.spans[0], satisfaction=1.0),))
    layer = PlasticGains(start(base), 2.0)
    layer.alpha.data.fill_(1.0)
    layer.v.data.copy_(torch.tensor([0.0, 1.0, 0.0]))
    shape = mechanism.shape_of(base.model)

    def gains(reward: float) -> torch.Tensor:
        moment = plastic_gains.observe(base.model, replace(liked, reward=reward), 0.0, shape)
        return layer.gains(layer.roll([moment] * 5, NEVER)).detach()

    assert bool((gains(1.0) > 0).all())
    torch.testing.assert_close(gains(-1.0), -gains(1.0))
    assert not gains(0.0).any()


def test_before_anything_is_learned_it_is_exactly_standard_attention(base: Base) -> None:
    made = rewarded(base)
    gains, _ = learned(base, made, Recipe(learning_rate=0.0, batch=4, epochs=1))
    assert gains.parts["hebb"].abs().max() > 0, "a trace there is"
    assert not gains.values.any()
    ids = torch.tensor([made[0].sample.ids])
    with torch.no_grad():
        standard = base.model(ids).logits
        with acting(attention.bias_of(gains, made[0])):
            assert torch.equal(base.model(ids).logits, standard)


@pytest.mark.parametrize("name", ["w", "alpha", "v", "eta"])
def test_each_parameter_s_gradient_is_that_of_the_episode(base: Base, name: str) -> None:
    """One step over the whole episode, against a finite difference of its cost, all of a parameter moved alike."""
    made = rewarded(base)[:4]
    begin = Gains(torch.full(mechanism.shape_of(base.model), 0.1), 0.0)
    layer = PlasticGains(begin, 10.0)
    layer.alpha.data.fill_(2.0)
    layer.eta.data.fill_(0.5)
    lived = [plastic_gains.observe(base.model, one, 0.0, mechanism.shape_of(base.model)) for one in made]
    parameter = dict(layer.named_parameters())[name]

    def episode() -> float:
        total, trace = 0.0, layer.reset()
        with torch.no_grad():
            for one, moment in zip(made, lived, strict=True):
                total += one.sample.weight * cost(base, [one], Gains(layer.gains(trace), 0.0))
                trace = layer.write(moment, trace)
        return total / attention.weighed_tokens(made)

    own, width = parameter.data.clone(), 0.02
    parameter.data.copy_(own + width)
    above = episode()
    parameter.data.copy_(own - width)
    slope = (above - episode()) / (2 * width)
    parameter.data.copy_(own)
    still = torch.optim.SGD(layer.parameters(), lr=0.0)
    plastic_gains._step(base.model, made, lived, layer, layer.reset(), begin, still, NEVER, lambda _: None)
    assert parameter.grad is not None
    assert abs(slope) > 1e-4
    assert parameter.grad.sum().item() == pytest.approx(slope, rel=0.05)


def test_what_was_written_becomes_likelier_through_all_parts_and_nothing_else_moves(base: Base) -> None:
    made = rewarded(base)
    digest = base.digest()
    acted: list[str] = []
    gains, position = learned(base, made, activate=acted.append)
    assert position.step == position.total == 9
    assert set(acted) == {"c1", "c5", "c8", "c9"}
    assert cost(base, made, gains) < cost(base, made, start(base))
    fresh = PlasticGains(start(base), RECIPE.max_gain)
    for name, parameter in fresh.named_parameters():
        assert not torch.equal(gains.parts[name], parameter), name
    torch.testing.assert_close(gains.values, gains.parts["w"] + gains.parts["alpha"] * gains.parts["hebb"])
    without = plastic_gains.zeroed(gains)
    assert without is not None
    assert torch.equal(without.values, gains.parts["w"])
    assert plastic_gains.zeroed(Gains(gains.values, 0.0)) is None
    assert base.digest() == digest
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_each_pass_begins_with_an_empty_trace(base: Base) -> None:
    """Where nothing moves, the second pass costs what the first did, window by window, and the trace acts in both."""
    zeros = torch.zeros(mechanism.shape_of(base.model))
    parts = {"w": zeros, "alpha": zeros + 2.0, "v": torch.tensor([2.0, 0.0, 0.0]), "eta": torch.tensor(0.5)}
    made, losses = rewarded(base), list[float]()
    learned(
        base,
        made,
        Recipe(learning_rate=0.0, batch=4, epochs=2),
        start=Gains(zeros, 0.0, parts),
        on_step=lambda _step, _total, loss: losses.append(loss),
    )
    assert losses[3:] == losses[:3]
    assert cost(base, made[4:8], start(base)) / attention.weighed_tokens(made[4:8]) != pytest.approx(
        losses[1], rel=1e-3
    )


def test_the_order_of_the_day_counts(base: Base) -> None:
    made = rewarded(base)
    recipe = Recipe(learning_rate=0.0, batch=4, epochs=1)
    one, _ = learned(base, made, recipe)
    other, _ = learned(base, made[::-1], recipe)
    assert not torch.allclose(one.parts["hebb"], other.parts["hebb"], rtol=1e-3)


def test_the_next_sleep_learns_on_from_all_but_the_trace(base: Base) -> None:
    made = rewarded(base)
    first, _ = learned(base, made)
    second, _ = learned(base, made[:4], Recipe(learning_rate=0.0, batch=4, epochs=1), start=first)
    for name in ("w", "alpha", "v", "eta"):
        torch.testing.assert_close(second.parts[name], first.parts[name])
    seen = [plastic_gains.observe(base.model, one, 0.0, mechanism.shape_of(base.model)) for one in made[:4]]
    expected = PlasticGains(first, RECIPE.max_gain).roll(seen, NEVER)
    torch.testing.assert_close(second.parts["hebb"], expected.hebb)


def test_gains_stay_within_their_bounds(base: Base) -> None:
    gains, _ = learned(base, rewarded(base), Recipe(learning_rate=1.0, max_gain=0.25, batch=4))
    assert gains.values.abs().max().item() == pytest.approx(0.25)
    assert gains.parts["w"].abs().max() <= 0.25
    assert 0 <= float(gains.parts["eta"]) <= 1


@pytest.mark.parametrize("looks", [0, 2, 9, 22, 39])
def test_an_interrupted_learning_ends_as_an_uninterrupted_one(base: Base, tmp_path: Path, looks: int) -> None:
    made = rewarded(base)[:11]
    whole, _ = learned(base, made)
    file = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted):
        learned(base, made, stop=Count(looks), file=file, key="k")
    assert file.exists() == (looks >= 8)
    gains, position = learned(base, made, file=file, key="k")
    assert torch.equal(gains.values, whole.values)
    assert all(torch.equal(gains.parts[name], whole.parts[name]) for name in whole.parts)
    assert position.step == 9


def test_a_window_of_one_experience_can_be_learned_and_resumed(base: Base, tmp_path: Path) -> None:
    made, recipe = rewarded(base)[:1], Recipe(learning_rate=0.1, epochs=3)
    whole, _ = learned(base, made, recipe)
    file = tmp_path / "state.safetensors"
    with pytest.raises(Interrupted):
        learned(base, made, recipe, stop=Count(2), file=file, key="k")
    gains, _ = learned(base, made, recipe, file=file, key="k")
    assert torch.equal(gains.values, whole.values)


def test_the_parts_are_stored_and_gains_without_any_are_stored_as_ever(base: Base, tmp_path: Path) -> None:
    import hashlib

    import safetensors.torch

    gains, _ = learned(base, rewarded(base), Recipe(learning_rate=0.1, batch=4, epochs=1))
    file = tmp_path / mechanism.WEIGHTS
    mechanism.write(file, gains)
    found = mechanism.read(tmp_path, hashlib.sha256(file.read_bytes()).hexdigest(), mechanism.shape_of(base.model))
    assert torch.equal(found.values, gains.values)
    assert set(found.parts) == {"w", "alpha", "v", "eta", "hebb"}
    assert all(torch.equal(found.parts[name], gains.parts[name]) for name in found.parts)
    plain, _ = attention.learn(base.model, prompts(base), found, RECIPE, stop=NEVER)
    mechanism.write(file, plain)
    wanted = {"gains": plain.values, "centre": torch.tensor(plain.centre)}
    assert file.read_bytes() == safetensors.torch.save(wanted)

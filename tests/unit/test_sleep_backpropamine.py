"""The plastic layer: it solves what fixed weights cannot, its trace follows the rule, the neuromodulator rules it."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from npllm.sleep.backpropamine import CLIP, Moment, Plastic, Trace, train
from npllm.sleep.interruption import Interrupted

WIDTH, WORDS, PAIRS = 24, 40, 6
NEVER = threading.Event()


def output() -> torch.Tensor:
    return torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(1))


def associations(count: int, seed: int) -> list[list[Moment]]:
    """Episodes: random states and random words in pairs, shown once, then asked for once; no two episodes alike."""
    chance = torch.Generator().manual_seed(seed)
    episodes = []
    for _ in range(count):
        states = torch.randn(PAIRS, 1, WIDTH, generator=chance)
        words = torch.randint(WORDS, (PAIRS, 1), generator=chance)
        shown = [Moment(states[i], words[i], 1.0, 3.0) for i in range(PAIRS)]
        episodes.append(shown + [shown[i] for i in torch.randperm(PAIRS, generator=chance).tolist()])
    return episodes


def asked(layer: Plastic, episodes: list[list[Moment]], *, zeroed: bool = False) -> float:
    """Nats per word when the pairs are asked for, having been shown once."""
    total = 0.0
    with torch.no_grad():
        for episode in episodes:
            trace = layer.roll(episode[:PAIRS], NEVER)
            trace = layer.reset() if zeroed else trace
            total += sum(float(layer.nll(moment, trace).sum()) for moment in episode[PAIRS:])
    return total / len(episodes) / PAIRS


@pytest.mark.parametrize("retroactive", [True, False])
def test_what_was_shown_once_is_known_which_fixed_weights_cannot(retroactive: bool) -> None:
    layer = Plastic(output(), retroactive=retroactive)
    unseen = associations(30, seed=2)
    train(layer, associations(150, seed=3), NEVER, passes=4, rate=1e-2)
    chance = math.log(WORDS)  # the best that anything can do which has not seen the pairs
    assert asked(layer, unseen) < 0.6 * chance, "pairs of an episode that it has never met"
    assert asked(layer, unseen, zeroed=True) > chance, "the same weights without the day's trace know nothing"


def test_the_trace_follows_the_rule_and_stays_within_its_bounds() -> None:
    layer = Plastic(output())
    moment = associations(1, seed=4)[0][0]
    with torch.no_grad():
        trace = layer.write(moment, layer.reset())
        x = moment.hidden / moment.hidden.pow(2).mean(-1, keepdim=True).sqrt()
        word = output()[moment.targets]
        y = word / word.pow(2).mean(-1, keepdim=True).sqrt()
        eligibility = 0.01 * x.T @ y
        facts = torch.cat((torch.tensor([1.0, moment.reward, moment.surprise]), x.mean(0)))
        torch.testing.assert_close(trace.eligibility, eligibility)
        torch.testing.assert_close(trace.hebb, torch.tanh(layer.v @ facts) * eligibility)
        later = layer.write(moment, trace)
        torch.testing.assert_close(later.eligibility, 0.99 * eligibility + eligibility)
        for _ in range(500):
            trace = layer.write(moment, trace)
    assert float(trace.hebb.abs().max()) == CLIP


def test_without_modulation_nothing_is_written_and_the_reward_modulates() -> None:
    layer = Plastic(output())
    good = associations(1, seed=5)[0][0]
    bad = Moment(good.hidden, good.targets, -1.0, good.surprise)
    with torch.no_grad():
        layer.v.zero_()
        assert float(layer.write(good, layer.reset()).hebb.abs().max()) == 0.0
        layer.v[1] = 1.0
        torch.testing.assert_close(layer.write(good, layer.reset()).hebb, -layer.write(bad, layer.reset()).hebb)


def test_at_first_the_layer_does_next_to_nothing() -> None:
    layer = Plastic(output())
    moment = associations(1, seed=6)[0][0]
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(moment.hidden @ output().T, moment.targets)
        torch.testing.assert_close(layer.nll(moment, layer.reset()).mean(), plain, atol=0.3, rtol=0.0)


def test_the_output_layer_stays_as_it_is_and_the_same_seed_gives_the_same_bits() -> None:
    weights = output()
    made = []
    for _ in range(2):
        layer = Plastic(weights, seed=7)
        train(layer, associations(5, seed=8), NEVER, passes=2, rate=1e-2)
        made.append(layer)
    assert torch.equal(weights, output())
    assert all(torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True))


def test_it_hears_at_once_that_the_person_is_back() -> None:
    stop = threading.Event()
    stop.set()
    layer = Plastic(output())
    with pytest.raises(Interrupted):
        train(layer, associations(1, seed=9), stop, passes=1, rate=1e-2)
    with pytest.raises(Interrupted):
        layer.roll(associations(1, seed=9)[0], stop)
    assert isinstance(layer.reset(), Trace)

"""Which of the drawn experiences are replayed, and that their weights undo the bias of the drawing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy
import pytest

from npllm.memory.replay import Drawn
from npllm.sleep.replay import ALPHA, beta, choose, importance, priority
from npllm.types import Decision, Experience
from tests.fixtures_sleep import experience


def draw(pool: list[Experience], masses: list[float], seed: int) -> list[Drawn]:
    """All of them in the order of their keys, as the database does it."""
    chance = numpy.random.default_rng(seed)
    keys = chance.exponential(size=len(pool)) / numpy.array(masses)
    order = numpy.argsort(keys)
    return [Drawn(pool[i], 0.0, masses[i], float(keys[i]), 0, len(pool)) for i in order]


@pytest.mark.parametrize("count", [5, 40, 80])
def test_importance_weights_undo_the_bias_of_the_drawing(count: int) -> None:
    """What a replay learns on average is the mean over all, however unequal the priorities: at beta = 1, exactly."""
    pool = [experience(i, path=f"f{i}.py") for i in range(80)]
    surprise = [0.2 + i / 20 for i in range(80)]
    masses = [priority(item, s) ** ALPHA for item, s in zip(pool, surprise, strict=True)]
    value = {item.id: s for item, s in zip(pool, surprise, strict=True)}
    truth = sum(surprise) / 80
    plain, weighed = [], []
    for seed in range(300):
        chosen, weights = choose(draw(pool, masses, seed), count, exponent=1.0)
        assert len(chosen) == count
        assert sum(weights.values()) / count == pytest.approx(1.0)
        plain.append(sum(value[item.id] for item in chosen) / count)
        weighed.append(sum(value[item.id] * weights[item.id] for item in chosen) / count)
    if count < 80:
        assert numpy.mean(plain) > 1.02 * truth, "what surprises is replayed more often"
    assert numpy.mean(weighed) == pytest.approx(truth, rel=0.02 if count > 5 else 0.06)


def test_without_priorities_and_when_all_is_drawn_every_weight_is_one() -> None:
    pool = [experience(i, path=f"f{i}.py") for i in range(30)]
    alike = draw(pool, [1.0] * 30, 0)
    assert set(importance(alike[:10], alike[10].key, 1.0).values()) == {1.0}
    every = draw(pool, [float(i + 1) for i in range(30)], 0)
    assert set(importance(every, math.inf, 1.0).values()) == {1.0}


def test_the_weights_are_the_papers_where_few_are_drawn_of_many() -> None:
    pool = [experience(i) for i in range(1000)]
    masses = [1.0 + (i % 7) for i in range(1000)]
    drawn = draw(pool, masses, 1)
    weights = importance(drawn[:10], drawn[10].key, 0.5)
    papers = {item.experience.id: (1000 * item.mass / sum(masses)) ** -0.5 for item in drawn[:10]}
    mean = sum(papers.values()) / 10
    for id, weight in weights.items():
        assert weight == pytest.approx(papers[id] / mean, rel=0.05)


def test_beta_grows_to_one() -> None:
    assert [round(beta(n), 2) for n in (0, 1, 5, 10, 400)] == [0.4, 0.46, 0.7, 1.0, 1.0]


def test_priority_is_surprise_by_decision_by_satisfaction() -> None:
    known = experience(relevance=0.5)
    assert priority(known, 2.0) == pytest.approx(2.01 * 0.75)
    assert priority(known, 0.0) > 0, "what is known by heart comes again some day"
    assert priority(replace(known, decision=Decision.LOW), 2.0) == pytest.approx(priority(known, 2.0) / 2)
    assert priority(replace(known, decision=Decision.DISCARD), 2.0) > 0, "it is the suggestion that was discarded"
    assert priority(replace(known, emotional=1.0), 2.0) == pytest.approx(2.01)
    assert priority(replace(known, emotional=-1.0), 2.0) == priority(known, 2.0)


def test_no_file_and_no_session_rules() -> None:
    busy = [experience(i, path="busy.py") for i in range(200)]
    quiet = [experience(i, path=f"quiet{i % 9}.py") for i in range(200, 290)]
    drawn = [Drawn(item, 1.0, 1.0, (n + 1) / 1000, 0, 290) for n, item in enumerate([*busy, *quiet])]
    chosen, _ = choose(drawn, 50, exponent=0.4)
    assert len(chosen) == 50
    assert sum(item.place.path == "busy.py" for item in chosen) == 10, "twice its even share of ten files"
    night = [
        replace(item, experience=experience(n, path=f"{n}.py"), session=n // 200 * n) for n, item in enumerate(drawn)
    ]
    chosen, _ = choose(night, 50, exponent=0.4)
    assert sum(item.place.path in {f"{n}.py" for n in range(200)} for item in chosen) == 5, "a session rules neither"
    only, _ = choose(drawn[:200], 50, exponent=0.4)
    assert len(only) == 50, "where there is nothing else, it may"

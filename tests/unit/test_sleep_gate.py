"""The gate: better on what was not seen, nothing forgotten, or not published; and how sure."""

from __future__ import annotations

import math

import numpy
import pytest

from npllm.sleep.gate import (
    MIN_OLD,
    Old,
    Scored,
    best_key,
    best_of,
    bytes_key,
    forgotten,
    general_marks,
    interval,
    judge,
    marks,
    same_ones,
    tokens_key,
    watched,
)
from npllm.sleep.report import SliceKind
from npllm.types import new_id


def texts(gains: list[float], *, files: int = 20) -> list[Scored]:
    return [Scored(f"f{i % files}", 10, 10.0, 10.0 * (1 - gain)) for i, gain in enumerate(gains)]


def old(gain: float, *, name: str = "v1", count: int = 20, best: float | None = None) -> Old:
    return Old(name, "2026-03-02", tuple(texts([gain] * count)), best)


def test_better_is_published_with_its_gain() -> None:
    word = judge(texts([0.1] * 20), min_held_out=4)
    assert word.passed
    assert word.gain == pytest.approx(0.1)
    assert (word.nll_before, word.nll_after) == (pytest.approx(1.0), pytest.approx(0.9))


@pytest.mark.parametrize("gain", [0.0, -0.05])
def test_not_better_is_not_published(gain: float) -> None:
    word = judge(texts([gain] * 20), min_held_out=4)
    assert not word.passed
    assert "not likelier" in word.reason


def test_too_few_texts_never_pass() -> None:
    word = judge(texts([0.9] * 3), min_held_out=4)
    assert not word.passed
    assert "3 held-out texts, 4 are needed" in word.reason


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_numbers_that_are_none_never_pass(wrong: float) -> None:
    broken = [Scored("f", 10, 1.0, wrong)] * 9
    assert not judge(broken, min_held_out=4).passed
    assert not judge(texts([0.1] * 20), min_held_out=4, old=[Old("v", "", tuple(broken))]).passed
    assert not judge(texts([0.1] * 20), min_held_out=4, general=broken).passed


def test_long_texts_count_by_their_length() -> None:
    word = judge([Scored("a", 1, 1.0, 2.0), Scored("b", 99, 99.0, 90.0)] * 20, min_held_out=4)
    assert word.passed
    assert word.gain == pytest.approx(0.08)


def test_the_interval_holds_the_gain_and_narrows_with_evidence() -> None:
    few, many = texts([0.3, -0.1] * 6, files=6), texts([0.3, -0.1] * 200, files=100)
    (low, high), (lower, higher) = interval(few), interval(many)
    assert low < 0.1 < high
    assert lower < 0.1 < higher
    assert higher - lower < high - low
    assert interval(few) == interval(few)


def test_one_lucky_file_is_no_evidence() -> None:
    lucky = [Scored("lucky", 10, 10.0, 2.0)] * 50 + [Scored(f"f{i}", 10, 10.0, 10.5) for i in range(10)]
    word = judge(lucky, min_held_out=4)
    assert word.gain > 0.5
    assert word.gain_low < 0
    assert not word.passed
    assert "cannot tell from chance" in word.reason


def test_how_often_an_adapter_of_no_use_and_one_of_some_use_pass() -> None:
    """With 40 texts whose changes spread as they did in the demo: the bound that the gate's words promise."""
    chance = numpy.random.default_rng(7)

    def passes(gain: float) -> float:
        days = [texts(list(chance.normal(gain, 0.08, 40)), files=14) for _ in range(200)]
        return sum(judge(day, min_held_out=30).passed for day in days) / len(days)

    assert passes(0.0) < 0.18
    assert passes(0.03) > 0.75
    assert passes(-0.02) < 0.02


def test_what_gains_on_the_new_but_forgets_the_old_is_rejected_with_that_reason() -> None:
    new = texts([0.1] * 20)
    assert judge(new, min_held_out=4, old=[old(0.0), old(-0.01, name="v2")]).passed
    word = judge(new, min_held_out=4, old=[old(-0.01), old(-0.05, name="v2")])
    assert not word.passed
    assert "gains 10.0% on the new texts, but forgets: older ones cost 3.0% more than at their best" in word.reason
    assert [(part.kind, part.name, round(part.gain, 3)) for part in word.slices] == [
        (SliceKind.NEW, "new", 0.1),
        (SliceKind.OLD, "v1", -0.01),
        (SliceKind.OLD, "v2", -0.05),
    ]
    assert judge(new, min_held_out=4, max_forgetting=0.05, old=[old(-0.01), old(-0.05, name="v2")]).passed


def test_forgetting_is_counted_from_the_best_that_there_was() -> None:
    """A little in each sleep is much in all: the version in use has lost 1.5 % already."""
    new = texts([0.1] * 20)
    assert judge(new, min_held_out=4, old=[old(-0.01)]).passed
    word = judge(new, min_held_out=4, old=[old(-0.01, best=1.0 / 1.015)])
    assert not word.passed
    assert word.slices[1].nll_best == pytest.approx(1.0 / 1.015)
    assert judge(new, min_held_out=4, old=[old(-0.01, best=1.2)]).passed, "the version in use is the best now"


def test_a_few_old_texts_cannot_stop_all_learning() -> None:
    assert judge(texts([0.1] * 20), min_held_out=4, old=[old(-0.2, count=3)]).passed


def test_general_code_may_lose_little() -> None:
    new = texts([0.1] * 20)
    assert judge(new, min_held_out=4, general=texts([-0.009] * 60)).passed
    word = judge(new, min_held_out=4, general=texts([-0.02] * 60))
    assert not word.passed
    assert "general code costs 2.0% more" in word.reason
    assert word.slices[-1].kind is SliceKind.GENERAL


def test_what_general_code_loses_a_little_at_a_time_is_counted_from_its_best() -> None:
    """0.6 % in each of five sleeps: from the version in use each would pass."""
    new, best, passed = texts([0.1] * 20), None, []
    for sleep in range(5):
        before = 10.0 * 1.006**sleep
        general = [Scored(f"g{number % 20}", 10, before, before * 1.006) for number in range(60)]
        word = judge(new, min_held_out=4, general=general, general_best=best)
        best = general_marks(general, best, 64)[best_key("general")]
        passed.append(word.passed)
        assert best == pytest.approx(1.0)
    assert passed == [True, False, False, False, False]
    assert "general code costs 3.0% more than at its best" in word.reason
    better = general_marks(texts([0.2] * 60), 1.0, 64)
    assert better == {best_key("general"): pytest.approx(0.8), bytes_key("general"): 600.0, tokens_key("general"): 64.0}
    assert general_marks([], 1.0, 64) == {}


def test_a_best_counts_for_the_same_texts_read_within_as_many_tokens() -> None:
    """Else a setting that makes all texts dearer would let nothing be published again."""
    first, second = marks("v1", texts([0.1] * 20), 1024), marks("v1", texts([0.2] * 20), 1024)
    assert best_of([first, second], "v1", 200, 1024) == pytest.approx(0.8)
    assert best_of([first, second], "v1", 200, 512) is None
    assert best_of([first, second], "v1", 190, 1024) is None and best_of([first], "v2", 200, 1024) is None
    before = {name: value for name, value in first.items() if name != tokens_key("v1")}
    assert best_of([before], "v1", 200, 512) == pytest.approx(0.9), "older versions do not say"


def test_one_slice_that_surely_loses_too_much_is_not_traded_for_the_others() -> None:
    new, others = texts([0.1] * 20), [old(0.03, name=f"v{number}") for number in range(2, 6)]
    assert forgotten(judge(new, min_held_out=4, old=[old(-0.06), *others]).slices[1:]) < 0.02
    word = judge(new, min_held_out=4, old=[old(-0.06), *others])
    assert not word.passed
    assert "forgets those of 2026-03-02: they cost more than in use (96% interval 6.0% to 6.0%" in word.reason
    unsure = Old("v1", "", tuple(texts([-0.30, 0.18] * 10)))
    assert judge(new, min_held_out=4, old=[unsure, *others]).passed, "chance alone may have done that"
    chance = numpy.random.default_rng(3)
    refused = 0
    for _ in range(100):
        slices = [Old(str(n), "", tuple(texts(list(chance.normal(0.005, 0.15, 20))))) for n in range(5)]
        word = judge(new, min_held_out=4, max_forgetting=0.02, old=slices)
        refused += "forgets those of" in word.reason
    assert refused <= 15, "what forgets nothing mostly passes, however many slices there are"
    few = old(-0.06, count=MIN_OLD - 1)
    assert judge(new, min_held_out=4, old=[few, *others]).passed
    in_use = [old(0.0, best=1 / 1.1), *[old(0.03, name=one.name, best=1.3) for one in others]]
    assert judge(new, min_held_out=4, max_forgetting=0.05, old=in_use).passed, (
        "what was lost before does not count twice"
    )


def test_the_newest_slices_are_always_watched_and_the_others_in_turn() -> None:
    slices = list(range(40))
    seen = {one for seed in range(60) for one in watched(slices, str(seed))}
    assert all(watched(slices, str(seed))[:3] == [0, 1, 2] for seed in range(5))
    assert all(len(set(watched(slices, str(seed)))) == 5 for seed in range(5))
    assert len(seen) > 30
    assert watched([1, 2], "s") == [1, 2]


def test_of_a_slice_always_the_same_texts_are_judged() -> None:
    ids = [new_id() for _ in range(50)]
    assert same_ones(ids, 20) == same_ones(ids[::-1], 20)
    assert set(same_ones(ids, 10)) < set(same_ones(ids, 20))

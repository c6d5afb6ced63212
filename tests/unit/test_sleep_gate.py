"""The gate: better on what was not seen, or not published; and how sure."""

from __future__ import annotations

import math

import pytest

from npllm.sleep.gate import Scored, interval, judge


def texts(gains: list[float], *, files: int = 20) -> list[Scored]:
    return [Scored(f"f{i % files}", 10, 10.0, 10.0 * (1 - gain)) for i, gain in enumerate(gains)]


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


def test_numbers_that_are_none_never_pass() -> None:
    assert not judge([Scored("f", 10, 1.0, math.nan)] * 9, min_held_out=4).passed


def test_long_texts_count_by_their_length() -> None:
    word = judge([Scored("a", 1, 1.0, 2.0), Scored("b", 99, 99.0, 90.0)] * 4, min_held_out=4)
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
    low, _ = interval(lucky)
    assert judge(lucky, min_held_out=4).gain > 0.5
    assert low < 0

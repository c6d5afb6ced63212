"""Emoji, English and Portuguese; rewards and replay decisions."""

from __future__ import annotations

import pytest

from npllm.config import FeedbackConfig
from npllm.feedback.emotional import EMOJI, PHRASES, interpret
from npllm.feedback.reward import decide, integrate, relevance, survival
from npllm.types import Decision


@pytest.mark.parametrize(
    ("emoji", "comment", "low", "high"),
    [
        ("👍", "", 0.8, 1.0),
        ("👍🏽", "", 0.8, 1.0),
        ("❤️", "", 0.8, 1.0),
        ("🎯", "", 0.9, 1.0),
        ("👎", "", -1.0, -0.5),
        ("😡", "", -1.0, -0.9),
        ("❌", "", -1.0, -0.5),
        ("🤷‍♀️", "", -0.4, 0.0),
        ("", "LGTM", 0.8, 1.0),
        ("", "does not work", -1.0, -0.5),
        ("", "it doesn’t work at all", -1.0, -0.5),
        ("", "not bad", 0.1, 1.0),
        ("", "not good", -1.0, -0.5),
        ("", "Ótimo, obrigado!", 0.8, 1.0),
        ("", "isso não funciona", -1.0, -0.5),
        ("", "não está certo", -1.0, -0.4),
        ("", "péssimo", -1.0, -0.9),
        ("", "exatamente", 0.9, 1.0),
        ("", "I am delighted with how readable this has become", 0.5, 1.0),
        ("", "what a disappointing disaster", -1.0, -0.3),
        ("", "the loop is on line three", 0.0, 0.0),
        ("👎", "great idea, bad timing", -0.5, 0.5),
    ],
)
def test_what_is_said_is_understood(emoji, comment, low, high):
    feeling = interpret(emoji, comment)
    assert low <= feeling.reward <= high
    assert all(0 <= value <= 1 for value in (feeling.satisfaction, feeling.confidence, feeling.frustration))


def test_the_tables_are_as_large_as_they_should_be():
    assert len(EMOJI) >= 60
    assert len(PHRASES) >= 100


def test_seventy_to_thirty_and_the_implicit_alone():
    config = FeedbackConfig()
    assert integrate(1.0, -1.0, config) == pytest.approx(0.4)
    assert integrate(-0.25, None, config) == -0.25


def test_the_replay_decision():
    config = FeedbackConfig()
    assert decide(relevance(1.0), 0.0, config) is Decision.KEEP
    assert decide(relevance(-0.25), 0.0, config) is Decision.LOW
    assert decide(relevance(-0.5), 0.0, config) is Decision.DISCARD
    assert decide(relevance(0.9), 0.9, config) is Decision.AVOID


def test_survival_counts_tokens_not_spaces():
    assert survival("f(a,b)", "f( a, b )") == 1.0
    assert survival("alpha", "beta") == 0.0
    assert survival("", "anything") == 1.0

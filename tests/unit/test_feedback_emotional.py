"""Emoji, English and Portuguese; rewards and replay decisions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.config import FeedbackConfig
from npllm.feedback.emotional import interpret
from npllm.feedback.lexicon import ALONE, EMOJI, PHRASES, SIGNS
from npllm.feedback.reward import decide, integrate, relevance
from npllm.feedback.survival import survival
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
        ("", ":thumbsup:", 0.8, 1.0),
        ("", "+1", 0.8, 1.0),
        ("", ":(", -0.5, -0.2),
        ("🙂", "almost", 0.1, 0.6),
        ("😕", "not what I want", -0.8, -0.4),
        ("", "close enough", 0.0, 0.5),
        ("", "could be better", -0.4, -0.1),
        ("", "no problem", 0.8, 1.0),
        ("", "does not compile", -0.8, -0.5),
        ("", "can you close the file, on the right side", 0.0, 0.0),
        ("", "right", 0.85, 1.0),
        ("", "I don't like it", -0.8, -0.4),
        ("", "isso não é legal", -0.8, -0.4),
        ("", "nada mal", 0.8, 1.0),
        ("", "show!", 0.8, 1.0),
        ("", "coloca isso no final", 0.0, 0.0),
        ("", "deu erro", -0.8, -0.5),
        ("", "não gostei, tá errado", -0.8, -0.5),
        ("", "top demais", 0.9, 1.0),
        ("", "", 0.0, 0.0),
        ("not an emoji", "", 0.0, 0.0),
    ],
)
def test_what_is_said_is_understood(emoji, comment, low, high):
    feeling = interpret(emoji, comment)
    assert low <= feeling.reward <= high
    assert all(0 <= value <= 1 for value in (feeling.satisfaction, feeling.confidence, feeling.frustration))


@pytest.mark.parametrize(("weaker", "stronger"), [
    ("um pouco confuso", "confuso"), ("wrong", "VERY WRONG"), ("ruim", "muito ruim!"), ("😕", "😕😕😕"), ("👎", "😡"),
])  # fmt: skip
def test_intensity(weaker, stronger):
    assert interpret("", stronger).frustration > interpret("", weaker).frustration > 0


@pytest.mark.parametrize("said", ["👎", "wrong", "não funciona", "errado", "not what I wanted", "isn't right"])
def test_disagreement_alone_is_not_enough_to_avoid_something_for_good(said):
    assert 0 < interpret("", said).frustration < FeedbackConfig().avoid_frustration


@pytest.mark.parametrize("said", ["😡", "wrong again", "useless", "never again", "péssimo", "nunca mais", "que lixo"])
def test_anger_and_weariness_are(said):
    assert interpret("", said).frustration >= FeedbackConfig().avoid_frustration


@given(st.text(max_size=60), st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_anything_may_be_said(emoji, comment):
    feeling = interpret(emoji, comment)
    assert -1 <= feeling.reward <= 1
    assert all(0 <= value <= 1 for value in (feeling.satisfaction, feeling.confidence, feeling.frustration))


def test_the_tables_say_one_thing_each():
    assert not set(PHRASES) & set(ALONE)
    for glad, sure, sad in (*EMOJI.values(), *PHRASES.values(), *ALONE.values()):
        assert 0 <= glad <= 1 and 0 <= sure <= 1 and 0 <= sad <= 1
    assert all(symbol in EMOJI for symbol in SIGNS.values())
    assert all(phrase == phrase.lower() and phrase.isascii() for phrase in (*PHRASES, *ALONE))


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

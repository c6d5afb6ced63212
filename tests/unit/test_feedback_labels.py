"""What a classifier's labels mean, and what a text means by their probabilities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npllm.feedback import labels
from npllm.feedback.emotional import interpret

GO_EMOTIONS = (
    "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval "
    "disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief "
    "remorse sadness surprise neutral"
).split()


@pytest.mark.parametrize(
    "names",
    [
        ("negative", "neutral", "positive"),
        ("NEG", "NEU", "POS"),
        ("negativo", "neutro", "positivo"),
        ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
        ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"),
        GO_EMOTIONS,
    ],
)
def test_labels_of_well_known_classifiers_are_understood(names):
    assert labels.unknown(names) == []


def test_labels_without_a_meaning_are_named():
    assert labels.unknown(["LABEL_0", "positive", "LABEL_1"]) == ["LABEL_0", "LABEL_1"]


def test_a_sure_label_is_felt_strongly_and_a_residue_is_noise():
    satisfaction, _, frustration = labels.feeling({"positive": 0.93, "neutral": 0.03, "negative": 0.04})
    assert satisfaction > 0.9 and frustration == 0.0
    satisfaction, _, frustration = labels.feeling({"positive": 0.05, "neutral": 0.05, "negative": 0.9})
    assert satisfaction == 0.0 and frustration == pytest.approx(0.72)


def test_mixed_feelings_stay_mixed_and_nothing_in_particular_is_nothing():
    satisfaction, _, frustration = labels.feeling({"positive": 0.5, "negative": 0.5})
    assert satisfaction > 0.3 and frustration > 0.3
    assert -0.3 < interpret("", "", (satisfaction, 0.0, frustration)).reward < 0.3
    assert labels.feeling({"positive": 0.3, "neutral": 0.6, "negative": 0.1}) is None
    assert labels.feeling({"LABEL_0": 0.9, "positive": 0.1}) is None
    assert labels.feeling({}) is None


def test_stars_rise():
    rewards = []
    for number in range(1, 6):
        found = labels.feeling({f"{number} star{'s' if number > 1 else ''}": 1.0})
        rewards.append(0.0 if found is None else interpret("", "", found).reward)
    assert rewards == sorted(rewards) and rewards[0] == -1.0 and rewards[-1] == 1.0


@given(st.dictionaries(st.sampled_from([*GO_EMOTIONS, "odd"]), st.floats(0, 1), max_size=28))
def test_feelings_stay_in_bounds_whatever_is_said(probabilities):
    found = labels.feeling(probabilities)
    if found is not None:
        assert all(0.0 <= value <= 1.0 for value in found)
        assert -1.0 <= interpret("👎", "", found).reward <= 1.0


def test_an_emoji_counts_beside_what_the_classifier_says():
    alone = interpret("", "whatever this is", (0.0, 0.0, 0.5))
    angry = interpret("😡", "whatever this is", (0.0, 0.0, 0.5))
    assert angry.frustration > alone.frustration == 0.5

"""From an outcome to what is learned: what the person wrote in the end is kept, whatever the reward says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from npllm.config import FeedbackConfig
from npllm.feedback import reward
from npllm.feedback.emotional import interpret
from npllm.feedback.experience import experience
from npllm.feedback.survival import survival
from npllm.types import Decision, Feedback, Outcome, OutcomeKind, Place, Suggestion, new_id

K = OutcomeKind
CONFIG = FeedbackConfig()
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SUGGESTION = Suggestion(
    new_id(), Place("file:///w/a.py", "a.py", "python", "/w", 4), "compute(1)", "x = ", "\n", "language:python", "f",
    (), (), -1.0, 1.0, NOW,
)  # fmt: skip


def outcome(kind: OutcomeKind, final_text: str, survived: float = 0.0, revision: int = 0) -> Outcome:
    base = reward.base(kind, survived)
    weight = reward.weight(base, survived * reward.size(SUGGESTION.text))
    return Outcome(
        new_id(), SUGGESTION.id, kind, SUGGESTION.text, final_text, survived, base * weight, NOW, revision,
        weight=weight,
    )  # fmt: skip


def said(emoji: str, comment: str = "") -> Feedback:
    feeling = interpret(emoji, comment)
    return Feedback(
        new_id(), SUGGESTION.id, emoji, comment, feeling.satisfaction, feeling.confidence, feeling.frustration,
        feeling.reward, NOW,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "final_text", "survived", "emoji", "decision"),
    [
        (K.ACCEPTED, "compute(1)", 1.0, "", Decision.KEEP),
        (K.ACCEPTED, "compute(1)", 1.0, "👍", Decision.KEEP),
        (K.EDITED, "compute(2)", 0.9, "", Decision.KEEP),
        (K.EDITED, "other(2)", 0.3, "👎", Decision.LOW),
        (K.PARTIALLY_ACCEPTED, "compute[2]", 0.3, "", Decision.LOW),
        (K.REJECTED, "other()", 0.0, "", Decision.LOW),
        (K.REJECTED, "other()", 0.0, "😡", Decision.AVOID),
        (K.DISMISSED, "other()", 0.0, "", Decision.LOW),
        (K.DELETED, "other()", 0.0, "", Decision.DISCARD),
        (K.UNSEEN, "other()", 0.0, "", Decision.LOW),
    ],
)
def test_what_was_written_is_learned_and_the_decision_is_about_the_suggestion(
    kind, final_text, survived, emoji, decision
):
    made = experience(SUGGESTION, outcome(kind, final_text, survived), said(emoji) if emoji else None, CONFIG)
    assert made is not None
    assert (made.id, made.final_text, made.decision) == (SUGGESTION.id, final_text, decision)
    assert -1 <= made.reward <= 1 and 0 <= made.relevance <= 1


def test_rewards_are_ordered_as_people_would_order_the_outcomes():
    rewards = [
        reward.ACCEPTED,
        reward.base(K.EDITED, 0.9),
        reward.base(K.EDITED, 0.3),
        reward.IGNORED,
        reward.DISMISSED,
        reward.REJECTED,
        reward.DELETED,
    ]
    assert rewards == sorted(rewards, reverse=True)
    assert reward.base(K.EDITED, 0.0) == pytest.approx(0.3)
    assert reward.base(K.EDITED, 1.0) == pytest.approx(0.8)
    assert reward.base(K.UNSEEN, 0.0) == reward.base(K.SUPERSEDED, 0.0) == 0.0


def test_short_safe_text_does_not_win():
    """Four characters that are always taken, against a line that is taken six times of ten."""

    def worth(characters: int, taken: float) -> float:
        good = reward.ACCEPTED * reward.weight(reward.ACCEPTED, characters)
        return taken * good + (1 - taken) * reward.REJECTED

    assert worth(40, 0.6) > worth(4, 1.0)
    assert worth(40, 0.6) < worth(40, 1.0)
    weights = [reward.weight(1.0, characters) for characters in range(200)]
    assert weights == sorted(set(weights)) and weights[0] == 0.25 and weights[-1] < 1.0
    assert weights[60] > 0.98  # it saturates: longer is not better for ever
    assert reward.weight(-0.25, 3) == reward.weight(0.0, 3) == 1.0

    def part(taken: int, size: int) -> float:
        base = reward.base(K.PARTIALLY_ACCEPTED, taken / size)
        return base * reward.weight(base, taken)

    short = reward.ACCEPTED * reward.weight(reward.ACCEPTED, 4)
    assert part(40, 200) > short > part(4, 40) > 0


def test_frustration_avoids_even_what_was_accepted():
    made = experience(SUGGESTION, outcome(K.ACCEPTED, "compute(1)", 1.0), said("😡"), CONFIG)
    assert made is not None and made.decision is Decision.AVOID
    assert made.reward == pytest.approx(0.7 * reward.weight(1.0, 10) + 0.3 * -1.0)


def test_where_nothing_was_written_and_nothing_said_there_is_nothing_to_learn():
    for kind in (K.IGNORED, K.UNSEEN, K.REJECTED, K.DISMISSED):
        assert experience(SUGGESTION, outcome(kind, " "), None, CONFIG) is None
    assert experience(SUGGESTION, outcome(K.SUPERSEDED, "x"), said("👍"), CONFIG) is None
    assert experience(SUGGESTION, outcome(K.IGNORED, ""), said("👎"), CONFIG) is not None
    assert experience(SUGGESTION, outcome(K.DELETED, ""), None, CONFIG) is not None


def test_a_text_that_is_gone_replaces_the_one_that_was_told_before():
    made = experience(SUGGESTION, outcome(K.REJECTED, "", revision=1), None, CONFIG)
    assert made is not None and made.final_text == ""


def test_the_weights_and_thresholds_are_the_person_s():
    half = replace(CONFIG, implicit_weight=0.5, emotional_weight=0.5)
    assert reward.integrate(1.0, 0.0, half) == pytest.approx(0.5)
    assert reward.integrate(1.0, 0.5, replace(CONFIG, implicit_weight=0.0, emotional_weight=0.0)) == 0.0
    assert reward.decide(0.5, 0.6, replace(CONFIG, avoid_frustration=0.6)) is Decision.AVOID
    assert reward.decide(0.5, 0.0, replace(CONFIG, keep_above=0.4)) is Decision.KEEP
    assert reward.decide(0.5, 0.0, replace(CONFIG, discard_below=0.6)) is Decision.DISCARD


@pytest.mark.parametrize(
    ("suggested", "final", "share"),
    [
        ("f(a,b)", "f( a,\n    b )", 1.0),
        ("self.comp", "self.compute()", 1.0),
        ("a + b", "a + c", 2 / 3),
        ("alpha", "", 0.0),
        ("  ", "x", 1.0),
        ("x = f(1)\r\ny", "x = f(1)\ny", 1.0),
        ("f(a)", "await f(a)", 1.0),
    ],
)
def test_survival(suggested, final, share):
    assert survival(suggested, final) == pytest.approx(share)


def test_survival_looks_no_further_than_it_must():
    assert survival("compute(1)", "z " * 1_000_000 + "compute(1)") == 0.0

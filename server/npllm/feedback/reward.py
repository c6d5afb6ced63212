"""Rewards: r = 0.7 * implicit + 0.3 * emotional, and the replay decision that follows from it.

What is good about a suggestion is weighted by n, the characters of it that survive (white space aside), so that short
safe text does not win; what is bad about one is not:

    implicit = base(outcome) * w(n),   w(n) = 1 - (1 - w0) * exp(-n / n0),   w0 = 1/4, n0 = 16      where base > 0
    implicit = base(outcome)                                                                        elsewhere

The decision is about the suggestion. What the person wrote in the end is learned whatever it says.
"""

from __future__ import annotations

import math

from npllm.config import FeedbackConfig
from npllm.types import Decision, OutcomeKind

ACCEPTED = 1.0
TYPED_OUT = 0.5  # right, but written by hand: no keystroke was saved
DELETED = -0.5
REJECTED = -0.25
DISMISSED = -0.2
IGNORED = -0.1
DELETED_BELOW = 0.2  # survival under which an accepted text counts as deleted
REPLACED_BELOW = 0.5  # the same where most of it was replaced in one go
LEAST_WEIGHT = 0.25  # w0: of a text without characters
CHARACTERS = 16.0  # n0: by so many the weight comes nearer to 1 by a factor of e


def weight(base_reward: float, characters: float) -> float:
    """w(n), for what is good; 1 for what is not.

    Args:
        base_reward: as `base` says.
        characters: of the suggestion that survive, white space aside.
    """
    if base_reward <= 0.0:
        return 1.0
    return 1.0 - (1.0 - LEAST_WEIGHT) * math.exp(-max(0.0, characters) / CHARACTERS)


def size(text: str) -> int:
    """Characters, white space aside."""
    return len("".join(text.split()))


def base(kind: OutcomeKind, survived: float) -> float:
    """The implicit reward of an outcome before it is weighted, in [-1, 1].

    Args:
        survived: share of the suggestion that survives (accepted, edited) or was taken (partially accepted).
    """
    if kind is OutcomeKind.EDITED:
        return 0.3 + 0.5 * survived
    if kind is OutcomeKind.PARTIALLY_ACCEPTED:
        return math.sqrt(max(0.0, survived))  # forty characters of a long text are worth more than all of a short one
    return {
        OutcomeKind.ACCEPTED: ACCEPTED,
        OutcomeKind.DELETED: DELETED,
        OutcomeKind.REJECTED: REJECTED,
        OutcomeKind.DISMISSED: DISMISSED,
        OutcomeKind.IGNORED: IGNORED,
    }.get(kind, 0.0)


def integrate(implicit_reward: float, emotional: float | None, config: FeedbackConfig) -> float:
    """r = w_i * implicit + w_e * emotional, weights summing to 1; without an emotional signal implicit alone."""
    if emotional is None:
        return implicit_reward
    total = config.implicit_weight + config.emotional_weight
    if total == 0:
        return 0.0
    return (config.implicit_weight * implicit_reward + config.emotional_weight * emotional) / total


def relevance(reward: float) -> float:
    """How much the suggestion is worth replaying, [0, 1]: (r + 1) / 2."""
    return min(1.0, max(0.0, (reward + 1.0) / 2.0))


def decide(relevant: float, frustration: float, config: FeedbackConfig) -> Decision:
    """Keep, keep at low priority, discard or avoid."""
    if frustration >= config.avoid_frustration:
        return Decision.AVOID
    if relevant > config.keep_above:
        return Decision.KEEP
    return Decision.DISCARD if relevant < config.discard_below else Decision.LOW

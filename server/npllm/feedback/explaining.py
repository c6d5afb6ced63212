"""How a reward came about, in words: the same arithmetic as `reward`, step by step."""

from __future__ import annotations

from npllm.config import FeedbackConfig
from npllm.feedback import reward
from npllm.feedback.detail import INSERTED, TYPED_OUT
from npllm.types import Experience, Feedback, Outcome, OutcomeKind

_MEANING = {
    OutcomeKind.ACCEPTED: "taken by a key, and all of it stands",
    OutcomeKind.REJECTED: "something else was written there",
    OutcomeKind.DISMISSED: "sent away by Escape",
    OutcomeKind.IGNORED: "seen and left alone",
    OutcomeKind.UNSEEN: "never on screen long enough: no label",
    OutcomeKind.SUPERSEDED: "the next suggestion took its place: no label",
}


def implicit(outcome: Outcome) -> str:
    """How the implicit reward follows from an outcome."""
    share = f"{outcome.survival:.0%}"
    base, meaning = f"{outcome.implicit / outcome.weight:+.2f}", _MEANING.get(outcome.kind, "")
    match outcome.kind:
        case OutcomeKind.EDITED:
            base, meaning = f"(0.3 + 0.5 x {outcome.survival:.2f})", f"accepted, {share} survives"
        case OutcomeKind.PARTIALLY_ACCEPTED:
            meaning = f"{share} of it was taken and survives"
        case OutcomeKind.DELETED if reward.DELETED_BELOW <= outcome.survival < reward.REPLACED_BELOW:
            meaning = f"accepted, then replaced in one go by something else: {share} survives"
        case OutcomeKind.DELETED:
            meaning = f"accepted, then removed: {share} survives, less than 20 %"
        case OutcomeKind.ACCEPTED if outcome.detail == TYPED_OUT:
            meaning = "right, but written out by hand: nothing was saved"
        case OutcomeKind.ACCEPTED if outcome.detail == INSERTED:
            meaning = "right, but put there by other means: nothing was saved"
    if outcome.weight == 1.0:  # what is not good is not weighted, nor was anything in earlier versions
        equation = f"{base.strip('()')} = " if outcome.kind is OutcomeKind.EDITED else ""
        return f"{equation}{outcome.implicit:+.2f} ({meaning})"
    characters = outcome.survival * reward.size(outcome.suggested)
    weighed = f"w = {outcome.weight:.2f} for {characters:.0f} characters that survive"
    return f"{base} x {outcome.weight:.2f} = {outcome.implicit:+.2f} ({meaning}; {weighed})"


def emotional(given: Feedback) -> str:
    """How the emotional reward follows from what was said."""
    glad = max(given.satisfaction, given.confidence)
    how = (
        f"satisfaction {given.satisfaction:.2f}, confidence {given.confidence:.2f}, frustration {given.frustration:.2f}"
    )
    if given.frustration and glad:
        return f"({glad:.2f} - {given.frustration:.2f}) / 2 = {given.reward:+.2f} (mixed; {how})"
    return f"{given.reward:+.2f} ({how})"


def total(of: Experience, frustration: float, config: FeedbackConfig) -> list[str]:
    """The reward, the relevance and the decision; in the settings as they are now.

    Says so where the settings have changed since it was computed.
    """
    parts = reward.integrate(of.implicit, of.emotional, config)
    if of.emotional is None:
        sum_ = f"r = {of.reward:+.2f}, the implicit reward alone: nothing was said"
    else:
        whole = config.implicit_weight + config.emotional_weight or 1.0
        weights = config.implicit_weight / whole, config.emotional_weight / whole
        sum_ = f"r = {weights[0]:.2g} x {of.implicit:+.2f} + {weights[1]:.2g} x {of.emotional:+.2f} = {of.reward:+.2f}"
    lines = [sum_, f"relevance = (r + 1) / 2 = {of.relevance:.2f}", f"decision: {of.decision.value}"]
    if frustration >= config.avoid_frustration:
        lines[-1] += f", since frustration {frustration:.2f} reaches {config.avoid_frustration:g}"
    else:
        lines[-1] += f" (keep above {config.keep_above:g}, discard below {config.discard_below:g}, low between)"
    if abs(parts - of.reward) > 0.005:
        lines.append(f"(computed with other weights; with those of today r = {parts:+.2f})")
    return lines

"""An experience: a suggestion, what became of it, what was said about it, and what the person ended up with."""

from __future__ import annotations

from npllm.config import FeedbackConfig
from npllm.feedback import reward
from npllm.types import Experience, Feedback, Outcome, OutcomeKind, Suggestion


def experience(
    suggestion: Suggestion, outcome: Outcome, feedback: Feedback | None, config: FeedbackConfig
) -> Experience | None:
    """The experience, as far as is known now; None where there is nothing to learn.

    There is nothing to learn from a suggestion that another one continued (unless it is to be avoided), nor where
    nothing was written and nothing was said. A suggestion that was never seen gets no label (reward 0), but what was
    written is learned.
    """
    frustration = feedback.frustration if feedback else 0.0
    if outcome.kind is OutcomeKind.SUPERSEDED and frustration < config.avoid_frustration:
        return None
    empty = not outcome.final_text.strip()
    # What was told of it before may have had a text that is gone now: then the empty one replaces it.
    first = outcome.revision == 0 or outcome.kind in (OutcomeKind.IGNORED, OutcomeKind.UNSEEN)
    if empty and first and feedback is None and outcome.kind is not OutcomeKind.DELETED:
        return None
    emotional = feedback.reward if feedback else None
    total = reward.integrate(outcome.implicit, emotional, config)
    relevant = reward.relevance(total)
    return Experience(
        id=suggestion.id,
        place=suggestion.place,
        prefix=suggestion.prefix,
        suffix=suggestion.suffix,
        context=suggestion.context,
        suggested=suggestion.text,
        final_text=outcome.final_text,
        outcome=outcome.kind,
        implicit=outcome.implicit,
        emotional=emotional,
        reward=total,
        relevance=relevant,
        decision=reward.decide(relevant, frustration, config),
        created_at=suggestion.created_at,
        revision=outcome.revision,
        contexts=suggestion.contexts,
    )

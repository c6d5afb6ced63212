"""When to be silent: an interruption costs. Which suggestions are held back, for how long nobody is asked, how long a
request waits for the next key.

Knows no LSP, no weights and no storage; time (seconds, monotonic) and chance (a number in [0, 1)) are passed in.
"""

from __future__ import annotations

import enum
import statistics
from collections import OrderedDict, deque
from dataclasses import dataclass
from uuid import UUID

from npllm.config import PacingConfig
from npllm.feedback.chance import Chance, Traits
from npllm.types import Outcome, OutcomeKind

REFUSED = (OutcomeKind.REJECTED, OutcomeKind.DISMISSED)
TAKEN = (OutcomeKind.ACCEPTED, OutcomeKind.PARTIALLY_ACCEPTED, OutcomeKind.EDITED, OutcomeKind.DELETED)
NO_LABEL = (OutcomeKind.UNSEEN, OutcomeKind.SUPERSEDED)
LONGEST_QUIET_S = 900.0
REMEMBERED = 500  # suggestions whose outcome is still to come, or that are held back
BURST_S = 0.6  # longer between two keys is a pause
GAPS = 24  # between keys, the last so many
FEWEST_GAPS = 8


class Silence(enum.StrEnum):
    """Why nothing is shown."""

    UNLIKELY = "unlikely"  # to be taken
    QUIET = "quiet"  # after refusals
    SNOOZED = "snoozed"  # the person wishes so for a while
    LANGUAGE = "language"  # the person wishes so in this language
    COMMENT = "comment"  # and in comments


@dataclass(frozen=True, slots=True)
class Verdict:
    """About one suggestion.

    Attributes:
        chance: that it is taken; None while too little is known.
        show: whether it may be shown.
        audited: it is shown although the chance is too small.
    """

    chance: float | None
    show: bool
    audited: bool


class Pacer:
    """One per server; everything is called from one thread."""

    def __init__(self, config: PacingConfig) -> None:
        self.config = config
        self.chance = Chance()
        self.refusals = 0  # in a row
        self.quiet_until = 0.0
        self.snoozed_until = 0.0
        self._open: OrderedDict[UUID, Traits] = OrderedDict()
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._key_at = float("-inf")

    # -- one suggestion -------------------------------------------------------------------------------

    def weigh(self, id: UUID, of: Traits) -> Verdict:
        """Whether a suggestion with these traits may be shown. Which ones are audited is drawn by its id."""
        config = self.config
        of = self.chance.with_lately(of)
        self._open[id] = of
        while len(self._open) > REMEMBERED:
            self._open.popitem(last=False)
        if not config.enabled or self.chance.outcomes < config.min_outcomes:
            return Verdict(None, True, False)
        chance = self.chance.estimate(of)
        likely = chance >= config.threshold
        audited = not likely and drawn(id) < config.audit_share
        return Verdict(chance, likely or audited, audited)

    def outcome(self, outcome: Outcome, now: float) -> None:
        """What became of a suggestion; the first word that is a label counts."""
        if outcome.kind in NO_LABEL or (of := self._open.pop(outcome.suggestion_id, None)) is None:
            return
        taken = outcome.kind in TAKEN
        self.chance.count(of, taken)
        if taken:
            self.refusals, self.quiet_until = 0, 0.0
        elif outcome.kind in REFUSED:
            self.refusals += 1
            if self.config.enabled and 0 < self.config.quiet_after <= self.refusals:
                self.quiet_until = now + self._quiet_s()

    def _quiet_s(self) -> float:
        doublings = min(self.refusals - self.config.quiet_after, 16)
        return min(LONGEST_QUIET_S, self.config.quiet_s * 2.0**doublings)

    # -- none at all ----------------------------------------------------------------------------------

    def quiet(self, now: float) -> bool:
        """Whether it is quiet after refusals."""
        return self.config.enabled and now < self.quiet_until

    def snooze(self, seconds: float, now: float) -> None:
        """The person wishes for silence, for so long; 0 ends it."""
        self.snoozed_until = now + seconds
        if seconds <= 0:
            self.refusals, self.quiet_until = 0, 0.0

    # -- typing ---------------------------------------------------------------------------------------

    def key(self, now: float) -> None:
        """The person typed a character."""
        gap, self._key_at = now - self._key_at, now
        if gap < BURST_S:
            self._gaps.append(gap)

    def wait(self, now: float) -> float:
        """How long a request waits for the next key (seconds): as long as this person mostly takes to press one.

        Nothing until the rhythm is known, and nothing where the person has paused anyway.
        """
        most = self.config.debounce_ms / 1000
        if not self.config.enabled or most == 0 or len(self._gaps) < FEWEST_GAPS:
            return 0.0
        usual = statistics.quantiles(self._gaps, n=5)[-1]  # four of five keys come sooner
        return max(0.0, min(most, usual - (now - self._key_at)))


def drawn(id: UUID) -> float:
    """A number in [0, 1), by chance but always the same for an id: the last bits of a UUIDv7 (others may count up)."""
    bits = 32
    return (id.int & ((1 << bits) - 1)) / (1 << bits)


def languages(text: str) -> frozenset[str]:
    """The languages of a setting such as "markdown, plaintext"."""
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())

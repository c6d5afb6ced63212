"""The gate's word on a cerebellum, which serves in two ways: alone, and with its say in what the base writes.

Knows nothing of how the figures came about (`gate` judges each way by itself, `saying` asks about the second).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from npllm.sleep.gate import Judgement

MOST_WORSE = 0.005  # that the held-out texts may cost more beside the base, where it is shown to be better alone
MOST_WORSE_ALONE = 0.02  # that they may cost more by itself, where it is shown to be better beside the base


@dataclass(frozen=True, slots=True)
class Verdict:
    """What held-out texts say.

    Attributes:
        alone: the gate's word on what it predicts by itself.
        lives: whether the plastic layer serves: only if it beats both none and its own trace zeroed.
        nll: nats per byte, "plain" without the layer, and with it "plastic" and "zeroed".
        beside: the gate's word on what the base writes with its say, against what it writes now; None: it has none.
        share: of the say, and `base`, the fingerprint of the base beside which it was found.
        way: how far it goes of what it learned (`ways`).
        marks: for the next sleeps' gates (`gate.marks`).
    """

    alone: Judgement
    lives: bool
    nll: Mapping[str, float]
    beside: Judgement | None = None
    share: float = 0.0
    base: str = ""
    way: float = 1.0
    marks: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Shown to be better in one of the two ways in which it serves, not much worse in the other, and in neither has
        anything been lost of what was there."""
        if self.beside is None:
            return self.alone.passed
        if self.beside.harm or self.alone.harm:
            return False
        if self.alone.passed:
            return self.beside.gain >= -MOST_WORSE
        return self.beside.passed and self.alone.gain >= -MOST_WORSE_ALONE and math.isfinite(self.alone.nll_after)

    @property
    def reason(self) -> str:
        """Why it is published, or not."""
        if self.beside is None:
            return self.alone.reason
        if self.beside.harm:
            return f"Beside the base it {self.beside.harm}; what is in use stays."
        if self.alone.harm:
            return f"By itself it {self.alone.harm}; what is in use stays."
        if self.alone.passed == self.passed:
            return self.alone.reason
        if self.passed:
            return "Beside the base the held-out texts are likelier than before."
        return f"Alone it is better; beside the base: {self.beside.reason}"

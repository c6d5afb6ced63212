"""Turns what happens in one context into progress messages: where we are, how far, how long yet."""

from __future__ import annotations

import time
from collections.abc import Callable

from npllm.sleep.details import Curve
from npllm.sleep.protocol import Message, Phase, Progress

# At which share of a context's work each phase begins; measured on the starter, only the bar depends on it.
_BEGINS = {Phase.PREPARING: 0.0, Phase.LEARNING: 0.06, Phase.JUDGING: 0.86, Phase.PUBLISHING: 0.98}
_ENDS = {Phase.PREPARING: 0.06, Phase.LEARNING: 0.86, Phase.JUDGING: 0.98, Phase.PUBLISHING: 1.0}
_EVERY_S = 0.2


class Meter:
    """One context's.

    Args:
        tell: gets the messages; callable from any thread.
        before: share of the whole sleep that was done before this context.
        share: share of the whole sleep that this context is.
        curve: where the steps of learning are kept for the report.
    """

    def __init__(
        self, tell: Callable[[Message], None], context: str, before: float, share: float, curve: Curve | None = None
    ) -> None:
        self._tell = tell
        self._context = context
        self._before = before
        self._share = share
        self._curve = curve
        self._said_at = 0.0
        self._phase = Phase.PREPARING
        self._phase_began = (time.monotonic(), 0)

    def phase(self, phase: Phase) -> None:
        """A phase begins."""
        self._phase = phase
        self._phase_began = (time.monotonic(), -1)
        self._say(0, 0, None, None)

    def step(self, step: int, total: int, loss: float | None = None, tokens_per_s: float | None = None) -> None:
        """`step` of `total` is done. Told at most five times a second, and the last one always."""
        if self._curve is not None and self._phase is Phase.LEARNING and loss is not None:
            self._curve.add(step, loss, tokens_per_s or 0.0)
        now = time.monotonic()
        if self._phase_began[1] < 0:  # where this sleep took it up
            self._phase_began = (now, step)
        if step < total and now - self._said_at < _EVERY_S:
            return
        self._said_at = now
        self._say(step, total, loss, tokens_per_s)

    def _say(self, step: int, total: int, loss: float | None, tokens_per_s: float | None) -> None:
        begin, end = _BEGINS[self._phase], _ENDS[self._phase]
        within = begin + (end - begin) * (step / total if total else 0.0)
        self._tell(
            Progress(
                phase=self._phase,
                context=self._context,
                step=step,
                total=total,
                share=min(1.0, self._before + self._share * within),
                loss=loss,
                tokens_per_s=tokens_per_s,
                seconds_left=self._left(step, total, within),
            )
        )

    def _left(self, step: int, total: int, within: float) -> float | None:
        """From the pace in this phase to the end of the sleep."""
        began, first = self._phase_began
        if total == 0 or step <= first or first < 0:
            return None
        begin, end = _BEGINS[self._phase], _ENDS[self._phase]
        per_share = (time.monotonic() - began) / ((end - begin) * (step - first) / total)
        rest_of_context = 1.0 - within
        others = (1.0 - self._before - self._share) / self._share if self._share > 0 else 0.0
        return max(0.0, per_share * (rest_of_context + others))

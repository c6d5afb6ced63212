"""How far a training run is, and what follows from it: the row length and the learning rate.

Progress runs from 0 to 1, by time (a budget of minutes, of which earlier runs have used some) or by steps. By steps a
run that is killed and resumed repeats the uninterrupted one exactly; by time it ends when it must.
"""

from __future__ import annotations

from dataclasses import dataclass

from npllm.starter.presets import Optimisation, Phase


@dataclass(frozen=True)
class Budget:
    """What a whole training may use: exactly one of the two."""

    seconds: float | None = None
    steps: int | None = None

    @property
    def total(self) -> float:
        """The whole of it, in its own unit."""
        return float(self.steps if self.steps is not None else self.seconds or 0.0)

    def progress(self, seconds: float, steps: int) -> float:
        """The used fraction, at most 1."""
        if self.steps is not None:
            return min(1.0, steps / self.steps)
        if self.seconds is None:
            raise ValueError("a budget needs seconds or steps")
        return min(1.0, seconds / self.seconds)

    def shortened(self, seconds: float, steps: int, decay_from: float) -> Budget:
        """The budget in which the decay begins now, if it would begin later otherwise."""
        if self.progress(seconds, steps) >= decay_from:
            return self
        if self.steps is not None:
            return Budget(steps=max(steps + 1, round(steps / decay_from)))
        return Budget(seconds=seconds / decay_from)


def phase_at(progress: float, phases: tuple[Phase, ...]) -> int:
    """The index of the phase that is on at `progress`."""
    for number, phase in enumerate(phases):
        if progress < phase.until:
            return number
    return len(phases) - 1


def rate_at(progress: float, step: int, optimisation: Optimisation) -> float:
    """The factor on the learning rates: warm-up by steps, then 1, then linear to 0 at the budget's end."""
    warm = min(1.0, (step + 1) / optimisation.warmup_steps)
    fall = (1.0 - progress) / (1.0 - optimisation.decay_from)
    return min(warm, 1.0, fall)

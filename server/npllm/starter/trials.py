"""What each preset reached when it was built: the facts from which a card says which one ships, and why.

One `result.json` beside each run's checkpoint, written when a build ends.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from npllm.starter.curve import Curve
from npllm.starter.figures import Figures
from npllm.starter.paths import WorkFolder
from npllm.starter.presets import Preset, Role, Shape


@dataclass(frozen=True)
class Trial:
    """A finished build. `prefix_only` and `fim_spm` are bits per UTF-8 byte of the first group of held-out packages,
    `rest_of_line` a share of 1; `trained_on` says in words what did the work."""

    preset: str
    role: Role
    parameters: int
    tokens: int
    minutes: float
    trained_on: str
    prefix_only: float
    fim_spm: float
    rest_of_line: float


def trial_of(preset: Preset, curve: Curve, figures: Figures) -> Trial:
    """The facts of a build that has just been evaluated."""
    score = figures.groups[0].model
    return Trial(
        preset.name,
        preset.role,
        parameters(preset.shape),
        curve.tokens,
        curve.minutes,
        curve.trained_on,
        score.prefix_only or 0.0,
        score.fim_spm or 0.0,
        score.rest_of_line or 0.0,
    )


def parameters(shape: Shape) -> int:
    """How many parameters a Llama of this shape has."""
    width = shape.hidden // shape.heads
    attention = 2 * shape.hidden**2 + 2 * shape.hidden * width * shape.kv_heads
    layer = attention + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    return shape.vocabulary * shape.hidden + shape.layers * layer + shape.hidden


def write_trial(work: WorkFolder, trial: Trial) -> None:
    """Keep the facts of a build beside its run."""
    work.run.mkdir(parents=True, exist_ok=True)
    (work.run / "result.json").write_text(json.dumps(asdict(trial), indent=1) + "\n", encoding="utf-8")


def read_trials(root: Path) -> tuple[Trial, ...]:
    """All builds that were finished in a work folder, by preset."""
    found = sorted(root.glob("*/run/result.json"))
    return tuple(Trial(**json.loads(path.read_text(encoding="utf-8"))) for path in found)

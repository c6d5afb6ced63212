"""The ablation table, as Markdown and as JSON, with each target said to be reached or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npllm.evaluation.ablation import figures
from npllm.evaluation.ablation.arms import (
    ASLEEP_PLACEBO,
    AWAKE,
    BASE,
    LEARNS,
    PLACEBO,
    SHIPPED,
    SHIPPED_PLACEBO,
    Arm,
)
from npllm.evaluation.ablation.figures import Figure, Figures
from npllm.evaluation.ablation.life import Lived
from npllm.evaluation.sources import EvaluationError

BEGIN, END = "<!-- ablation: written by `npllm eval replay --ablate --write` -->", "<!-- end of the ablation -->"
NONE = "–"


@dataclass
class Project:
    """What is known of one project.

    Attributes:
        arms: all, in order (the base first), with those that are missing or left out.
        days, seeds: that were wanted.
        found: finished cells, by arm, then by (seed, day).
        swapped: by seed, the cell of the other base.
        failures: by arm, what went wrong.
        told: a sentence about the history.
    """

    name: str
    arms: Sequence[Arm]
    days: int
    seeds: Sequence[int]
    found: Mapping[str, dict[tuple[int, int], Lived]]
    swapped: Mapping[int, Lived] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    told: str = ""

    @property
    def wanted(self) -> int:
        """Cells of an arm."""
        return self.days * len(self.seeds)

    def figures(self, arm: Arm) -> Figures:
        """An arm's."""
        before = self.found.get(arm.before) if arm.before else None
        return figures.figures(self.found.get(arm.name, {}), self.found.get(BASE, {}), before, self.days)

    @property
    def beyond(self) -> Figure | None:
        """What the arm that must reach the targets forgets beyond the last one that never sleeps."""
        arm, still, base = (self.found.get(name, {}) for name in (judged(self.arms).name, AWAKE, BASE))
        return figures.beyond(arm, still, base, self.days)

    @property
    def displaced(self) -> Figure | None:
        """How much less likely general code is under that arm than under the last one that never sleeps."""
        arm, still = (self.found.get(name, {}) for name in (judged(self.arms).name, AWAKE))
        return figures.displaced(arm, still, self.days)


@dataclass(frozen=True, slots=True)
class Target:
    """One target: `reached` None = not measured."""

    text: str
    found: str
    reached: bool | None


def judged(arms: Sequence[Arm]) -> Arm:
    """The arm that must reach the targets: this version as it ships, where that is run, else the last that is."""
    present = [arm for arm in arms if arm.runs and not arm.shuffled]
    return next((arm for arm in present if arm.name == SHIPPED), present[-1])


def targets(project: Project, speed: float | None) -> list[Target]:
    """All targets on one project.

    Args:
        speed: the sleep's tokens a second, as a share of a bare training loop's.
    """
    made, base = project.figures(judged(project.arms)), project.figures(project.arms[0])
    whole = bool(project.found.get(SHIPPED) and project.found.get(SHIPPED_PLACEBO))
    honest = [arm for arm in reversed(project.arms) if not arm.shuffled]
    small = made.cerebellum or next((one for arm in honest if (one := project.figures(arm).cerebellum)), None)
    rate, before = made.again, base.again
    share = rate.value / before.value if rate and before and before.value > 0 else None
    return [
        _target(f"next lines at least 20 % likelier (nats) after {project.days} sleeps", made.gain_last, 0.20),
        _target("exact lines at least 1.75 times the frozen base's", made.exact_times_last, 1.75, _times),
        _target("at most 2 % of the gain on older slices forgotten", made.forgetting, 0.02, most=True),
        _target("the same, beyond what an arm loses that never sleeps", project.beyond, 0.02, most=True),
        _target("general code at most 1 % less likely", made.general, 0.01, most=True),
        _target("the same, than under the arm that never sleeps", project.displaced, 0.01, most=True),
        _placebo(
            project,
            "shuffled feedback worse, by an interval without zero",
            *((SHIPPED, SHIPPED_PLACEBO) if whole else (LEARNS, PLACEBO)),
        ),
        _placebo(project, "the same, where it is shuffled for the sleep alone", SHIPPED, ASLEEP_PLACEBO),
        Target(
            "rejected suggestions made again at most a tenth as often",
            NONE if share is None else f"{share:.2f} times as often",
            None if share is None else share <= 0.1,
        ),
        _target("the cerebellum alone ahead of the frozen base", small, 0.0),
        Target(
            "the sleep's tokens per second at least 0.85 of a bare loop's",
            NONE if speed is None else f"{speed:.2f}",
            None if speed is None else speed >= 0.85,
        ),
    ]


def _placebo(project: Project, text: str, real: str, shuffled: str) -> Target:
    found = project.found
    figure = figures.difference(found.get(real, {}), found.get(shuffled, {}), found.get(BASE, {}))
    return Target(text, _percent(figure), None if figure is None else figure.low > 0)


def as_markdown(projects: Sequence[Project], command: str, speed: float | None, facts: Sequence[str]) -> str:
    """The tables, the targets and how to read them."""
    parts = [f"`{command}`", "", *(f"- {fact}" for fact in facts)]
    for project in projects:
        parts += ["", f"### {project.name}", "", project.told, ""]
        parts += _learning(project)
        parts += ["", *_cost(project)]
        recovered = _recovered(project)
        if recovered is not None:
            parts += ["", f"Another base, after one sleep: {_percent(recovered)} of the gain recovered."]
        parts += ["", f"Targets (arm *{judged(project.arms).name}*):", ""]
        for target in targets(project, speed):
            said = {True: "reached", False: "not reached", None: "not measured"}[target.reached]
            parts.append(f"- {target.text}: {target.found}, **{said}**")
        for name, why in project.failures.items():
            parts.append(f"- *{name}* failed: {why}")
    return "\n".join(parts) + "\n"


def as_json(projects: Sequence[Project], command: str, speed: float | None) -> dict[str, Any]:
    """The same as JSON values, with both intervals of every figure."""
    return {
        "command": command,
        "speed_of_bare_loop": speed,
        "projects": [
            {
                "name": project.name,
                "about": project.told,
                "days": project.days,
                "seeds": list(project.seeds),
                "arms": {
                    arm.name: {
                        "settings": dict(arm.settings),
                        "missing": list(arm.missing),
                        "left_out": arm.left_out,
                        "compared_with": arm.before,
                        **dataclasses.asdict(project.figures(arm)),
                    }
                    for arm in project.arms
                },
                "recovered": _plain(_recovered(project)),
                "targets": [dataclasses.asdict(target) for target in targets(project, speed)],
                "failures": dict(project.failures),
            }
            for project in projects
        ],
    }


def write_between(file: Path, text: str) -> None:
    """Put the table between the two marks of a page.

    Raises:
        EvaluationError: the page has no such marks, or cannot be written.
    """
    try:
        page = file.read_text(encoding="utf-8")
        head, begin, rest = page.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not begin or not end:
            raise EvaluationError(f"{file} has no place for the table: a line {BEGIN} and, below it, a line {END}.")
        temporary = file.with_name(file.name + ".new")
        temporary.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{tail}", encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise EvaluationError(f"{file} cannot be written: {error}.") from error


def _learning(project: Project) -> list[str]:
    heads = ["arm", "days", "bits per byte", "gain", "against the arm before", "exact lines", "times the base's"]
    heads += ["forgetting", "backward transfer", "general code", "rejected, made again"]
    rows = []
    for arm in project.arms:
        if not arm.runs:
            why = "not in this version" if arm.missing else "**not run**"
            rows.append([arm.name, why, *[""] * (len(heads) - 2)])
            continue
        made = project.figures(arm)
        rows.append(
            [
                arm.name,
                _cells(project, arm, made),
                _plainly(made.bits_per_byte, "{:.3f}"),
                _percent(made.gain) if arm.name != BASE else "",
                _percent(made.step) if arm.before not in (None, BASE) else "",
                _plainly(made.exact, "{:.1%}"),
                _times(made.exact_times) if arm.name != BASE else "",
                _percent(made.forgetting) if arm.name != BASE else "",
                _percent(made.backward) if arm.name != BASE else "",
                _percent(made.general) if arm.name != BASE else "",
                _plainly(made.again, "{:.0%}"),
            ]
        )
        if made.cerebellum is not None:
            rows.append([f"{arm.name}: its cerebellum alone", "", "", _percent(made.cerebellum), *[""] * 7])
    return _table(heads, rows)


def _cost(project: Project) -> list[str]:
    heads = ("arm", "latency p50 / p95", "minutes a sleep", "tokens/s", "published", "rejected by the gate")
    rows = []
    for arm in project.arms:
        made = project.figures(arm)
        if not arm.runs or made.latency_p50_ms is None:
            continue
        rows.append(
            [
                arm.name,
                f"{made.latency_p50_ms:.0f} / {made.latency_p95_ms:.0f} ms",
                f"{made.sleep_minutes:.1f}" if made.sleep_minutes is not None else "",
                f"{made.tokens_per_s:.0f}" if made.tokens_per_s is not None else "",
                str(made.published) if arm.sleeps else "",
                str(made.rejected) if arm.sleeps else "",
            ]
        )
    return _table(heads, rows)


def _cells(project: Project, arm: Arm, made: Figures) -> str:
    if arm.name in project.failures:
        return f"failed, {made.cells} of {project.wanted}"
    return str(made.cells) if made.cells == project.wanted else f"**unfinished, {made.cells} of {project.wanted}**"


def _recovered(project: Project) -> Figure | None:
    found = project.found
    return figures.recovered(found.get(LEARNS, {}), found.get(BASE, {}), project.swapped, project.days)


def _target(text: str, figure: Figure | None, bound: float, show: Any = None, *, most: bool = False) -> Target:
    if figure is None:
        return Target(text, NONE, None)
    reached = figure.value <= bound if most else figure.value >= bound
    return Target(text, (show or _percent)(figure), reached)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _percent(figure: Figure | None) -> str:
    return NONE if figure is None else f"{figure.value:+.1%} [{figure.low:+.1%}, {figure.high:+.1%}]"


def _times(figure: Figure | None) -> str:
    return NONE if figure is None else f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def _plainly(figure: Figure | None, form: str) -> str:
    return NONE if figure is None else form.format(figure.value)


def _plain(figure: Figure | None) -> dict[str, float] | None:
    return None if figure is None else dataclasses.asdict(figure)

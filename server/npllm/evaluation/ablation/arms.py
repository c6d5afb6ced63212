"""The arms: settings over one engine, each one mechanism more than the arm before, and beside them variants.

A mechanism is known by its settings alone. An arm whose settings this version does not have, or does not accept, is not
run and is named as missing, so that it comes alive with the mechanism. What an arm does not name is switched off.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from npllm.config import SECTIONS, Config, merge_leniently

Settings = Mapping[str, Any]  # "section.key" -> value
BASE = "base"
LEARNS = "+ replay"  # the arm that the placebo is the placebo of, and that is carried over to another base
PLACEBO = "placebo: shuffled feedback"
AWAKE = "+ refusals kept in mind"  # the last arm that never sleeps, with which what ships is compared
SHIPPED = "as shipped"  # this version's own defaults
SHIPPED_PLACEBO = "placebo: as shipped"
ASLEEP_PLACEBO = "placebo in sleep alone: as shipped"
QUICK = (BASE, "+ retrieval", "+ continuations", AWAKE, "+ LoRA", LEARNS, PLACEBO, SHIPPED)

#: Everything that an arm can switch on, switched off. Keys that this version does not have are left out.
OFF: Settings = {
    "memory.enabled": False,
    "memory.continuations": False,
    "memory.index": "off",
    "feedback.avoid_refused": False,
    "adapters.enabled": False,
    "sleep.replay": "off",
    "sleep.general_share": 0.0,
    "sleep.mas_lambda": 0.0,
    "sleep.dpo_weight": 0.0,
    "sleep.kto_weight": 0.0,
    "cerebellum.enabled": False,
    "cerebellum.plastic": False,
    "sleep.families": "language",
    "modulator.policy": "rules",
    "attention.enabled": False,
}
#: How replay is switched off in a version that draws old experiences in one way only.
NOTHING_OLD: Settings = {"sleep.new_share": 1.0}


class Shuffled(StrEnum):
    """What changes places among a day's experiences, and for how long (see `placebo`)."""

    NOTHING = ""
    ASLEEP = "text and feedback, for the sleep alone"
    FOR_GOOD = "text and feedback, for good"


@dataclass(frozen=True, slots=True)
class Step:
    """What an arm adds to the one before. Of several ways to say it, the first that this version knows is taken."""

    name: str
    ways: tuple[Settings, ...]
    sleeps: bool = True
    aside: bool = False  # a variant of the step before, on which nothing is built
    shuffled: Shuffled = Shuffled.NOTHING


STEPS: tuple[Step, ...] = (
    Step("+ retrieval", ({"memory.enabled": True},), sleeps=False),
    Step("+ continuations", ({"memory.continuations": True},), sleeps=False),
    Step("index of the project's code", ({"memory.index": "identifiers+meaning"},), sleeps=False, aside=True),
    Step(AWAKE, ({"feedback.avoid_refused": True},), sleeps=False),
    Step("+ LoRA", ({"adapters.enabled": True},)),
    Step("replay, uniform", ({"sleep.replay": "uniform"},), aside=True),
    Step(LEARNS, ({"sleep.replay": "prioritised"}, {"sleep.new_share": 0.7})),
    Step(PLACEBO, ({},), aside=True, shuffled=Shuffled.FOR_GOOD),
    Step("+ general code rehearsed", ({"sleep.general_share": 0.15},)),
    Step("+ MAS", ({"sleep.mas_lambda": 0.01},)),
    Step("+ preferences", ({"sleep.dpo_weight": 0.1, "sleep.kto_weight": 0.1}, {"sleep.dpo_weight": 0.1})),
    Step("+ cerebellum", ({"cerebellum.enabled": True},)),
    Step("+ Backpropamine", ({"cerebellum.plastic": True},)),
    Step("+ adapters for every context", ({"sleep.families": "all"},)),
    Step("+ modulator (PPO)", ({"modulator.policy": "learned"},)),
    Step("+ attention", ({"attention.enabled": True},)),
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of serving and sleeping.

    Attributes:
        settings: all switches.
        before: the arm with which it is compared; None for the base.
        missing: settings that this version does not have; then it is not run.
        shuffled: what changes places, and for how long.
        left_out: not run here, though this version has it; the table says so.
    """

    name: str
    settings: Settings
    sleeps: bool
    before: str | None
    missing: tuple[str, ...] = ()
    shuffled: Shuffled = Shuffled.NOTHING
    left_out: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is lived."""
        return not self.missing and not self.left_out


def arms() -> list[Arm]:
    """All arms, in the table's order."""
    off = dict(OFF)
    if not known({"sleep.replay": "off"}):
        off |= NOTHING_OLD
    present = {key: value for key, value in off.items() if known({key: value})}
    made = [Arm(BASE, present, False, None)]
    before = BASE
    for step in STEPS:
        way = next((way for way in step.ways if known(way)), None)
        if way is None:
            made.append(Arm(step.name, {}, step.sleeps, None, missing=tuple(step.ways[0])))
            continue
        settings = present | {key: _on(key, value, off.get(key)) for key, value in way.items()}
        made.append(Arm(step.name, settings, step.sleeps, before, shuffled=step.shuffled))
        if not step.aside:
            present, before = settings, step.name
    return [
        *made,
        Arm(SHIPPED, {}, True, AWAKE),
        Arm(SHIPPED_PLACEBO, {}, True, SHIPPED, shuffled=Shuffled.FOR_GOOD),
        Arm(ASLEEP_PLACEBO, {}, True, SHIPPED, shuffled=Shuffled.ASLEEP),
    ]


def known(settings: Settings) -> bool:
    """Whether this version has these settings and accepts the values."""
    return not merge_leniently(Config(home=Path()), nested(settings), source="an arm")[1]


def nested(settings: Settings) -> dict[str, dict[str, Any]]:
    """ "section.key" -> value, as a settings file has it."""
    made: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        made.setdefault(section, {})[key] = value
    return made


def _on(name: str, value: Any, off: Any) -> Any:
    """The value that switches a mechanism on: the version's own default where that is on, else ours."""
    section, _, key = name.partition(".")
    default = getattr(SECTIONS[section](), key)
    hints = typing.get_type_hints(SECTIONS[section])
    return default if hints[key] is float and off is not None and default != off else value

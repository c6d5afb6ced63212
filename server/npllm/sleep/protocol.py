"""What the child says to its parent: one JSON object a line on its standard output, typed at both ends.

Knows nothing of processes. A line that is no message raises `NotAMessage`; the parent logs it and goes on, since
a library may print what it likes.
"""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from typing import Any

from npllm.sleep.report import Report


class Phase(enum.StrEnum):
    """Where a sleep is, in this order; the middle three are gone through for each context."""

    GATHERING = "gathering"
    PREPARING = "preparing"
    LEARNING = "learning"
    JUDGING = "judging"
    PUBLISHING = "publishing"


class Ending(enum.StrEnum):
    """How a sleep ended. The value of `exit_code` is the child's exit status."""

    DONE = "done"
    INTERRUPTED = "interrupted"  # a checkpoint waits for the next sleep
    NOTHING = "nothing to do"
    HELD = "somebody else holds the trainer's lock"  # whether there is something to do was not looked at
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES[self]

    @classmethod
    def of_exit_code(cls, code: int) -> Ending:
        """What an exit status means; unknown ones (a crash, a kill) are failures."""
        return next((ending for ending, known in _EXIT_CODES.items() if known == code), cls.FAILED)


_EXIT_CODES = {Ending.DONE: 0, Ending.FAILED: 1, Ending.INTERRUPTED: 3, Ending.NOTHING: 4, Ending.HELD: 5}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the child is.

    Attributes:
        step, total: optimizer steps while learning, else items; total 0 where there is nothing to count.
        share: of the whole sleep, 0 to 1.
        loss: nats per token over the last steps; None outside learning.
        seconds_left: until the end of the sleep, as far as can be told.
    """

    phase: Phase
    context: str = ""
    step: int = 0
    total: int = 0
    share: float = 0.0
    loss: float | None = None
    tokens_per_s: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last line of a sleep that went as it should; `report` where something was consolidated."""

    ending: Ending
    summary: str
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The last line of a sleep that failed: one sentence with cause and mend."""

    reason: str


Message = Progress | Finished | Failed


class NotAMessage(ValueError):
    """A line on the child's standard output that is no message."""


def encode(message: Message) -> str:
    """One line, without its end."""
    if isinstance(message, Progress):
        return json.dumps(
            {
                "kind": "progress",
                "phase": message.phase.value,
                "context": message.context,
                "step": message.step,
                "total": message.total,
                "share": round(message.share, 4),
                "loss": _finite(message.loss),
                "tokens_per_s": _finite(message.tokens_per_s),
                "seconds_left": _finite(message.seconds_left),
            }
        )
    if isinstance(message, Finished):
        report = message.report.to_json() if message.report else None
        return json.dumps(
            {"kind": "finished", "ending": message.ending.value, "summary": message.summary, "report": report}
        )
    return json.dumps({"kind": "failed", "reason": message.reason})


def decode(line: str) -> Message:
    """The message on a line.

    Raises:
        NotAMessage: it is none.
    """
    try:
        data: Any = json.loads(line)
        kind = data["kind"]
        if kind == "progress":
            return Progress(
                phase=Phase(data["phase"]),
                context=str(data["context"]),
                step=int(data["step"]),
                total=int(data["total"]),
                share=float(data["share"]),
                loss=_number(data["loss"]),
                tokens_per_s=_number(data["tokens_per_s"]),
                seconds_left=_number(data["seconds_left"]),
            )
        if kind == "finished":
            report = Report.from_json(data["report"]) if data["report"] else None
            return Finished(Ending(data["ending"]), str(data["summary"]), report)
        if kind == "failed":
            return Failed(str(data["reason"]))
    except (ValueError, KeyError, TypeError) as error:
        raise NotAMessage(f"{line[:200]!r}: {error}") from error
    raise NotAMessage(f"{line[:200]!r}: unknown kind")


def _finite(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)

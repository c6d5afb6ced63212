"""What a sleep did, for the table `consolidations`, the log and a reader: plain values and one text.

Gains are relative: 0.1 means that the held-out text of the person costs a tenth fewer nats than before.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

LEVEL = 0.8  # of the intervals: better with 90 % confidence is an interval above zero


class Verdict(enum.StrEnum):
    """What became of one context."""

    PUBLISHED = "published"
    REJECTED = "rejected"  # the gate said no; kept, with the reason
    WAITING = "waiting"  # too little to learn from and judge by; stays new


class SliceKind(enum.StrEnum):
    """Which texts a version was judged on."""

    NEW = "new"  # held out of what this sleep learned
    OLD = "old"  # held out by an earlier sleep, and never learned since
    GENERAL = "general"  # code that is nobody's: what the base could do before it knew the person


@dataclass(frozen=True, slots=True)
class SliceReport:
    """How the texts of one slice fared.

    Attributes:
        name: "new", "general", or the id of the version whose sleep held the texts out.
        date: for an old slice the day of that sleep (ISO 8601), else empty.
        nll_before, nll_after: nats per UTF-8 byte, under the version in use and the new one.
        nll_best: the lowest that any version of this lineage had on the same texts; nll_before where that is not known.
        gain, gain_low, gain_high: (before - after) / before, and its `LEVEL` bootstrap interval.
    """

    kind: SliceKind
    name: str
    date: str = ""
    texts: int = 0
    files: int = 0
    nll_before: float = 0.0
    nll_after: float = 0.0
    nll_best: float = 0.0
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0


@dataclass(frozen=True, slots=True)
class ContextReport:
    """One context's part of a sleep.

    Attributes:
        nll_before, nll_after: nats per UTF-8 byte of the held-out text, under the version in use and the new one;
            `nll_zeroed` under plastic gains of attention with their trace zeroed (None: there are none).
        gain, gain_low, gain_high: (before - after) / before, and its `LEVEL` bootstrap interval.
        seconds: spent on this context, over all the sleeps that it took.
        slices: the new texts, each older slice, general code.
        notes: what the gate could not look at, and why.
    """

    context: str
    verdict: Verdict
    reason: str
    version: str = ""  # id of the adapter version
    parent: str = ""
    new: int = 0  # experiences learned from
    old: int = 0  # of earlier days, replayed
    files: int = 0
    passages: int = 0  # of the project's files
    project_files: int = 0
    rehearsed: int = 0  # passages of general code
    held_out: int = 0
    held_out_files: int = 0
    nll_before: float = 0.0
    nll_after: float = 0.0
    nll_zeroed: float | None = None
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    steps: int = 0
    epochs: float = 0.0
    tokens: int = 0
    tokens_per_s: float = 0.0
    seconds: float = 0.0
    slices: tuple[SliceReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One sentence."""
        if self.verdict is Verdict.WAITING:
            return f"{self.context}: {self.reason}"
        before, after = self.nll_before / math.log(2), self.nll_after / math.log(2)
        learned = f"{self.new} new and {self.old} old experiences in {self.files} files{self._beside}"
        judged = f"{self.held_out} held-out texts in {self.held_out_files} files went from {before:.3f} to {after:.3f}"
        interval = f"{LEVEL:.0%} interval {-self.gain_high:+.1%} to {-self.gain_low:+.1%}"
        return (
            f"{self.context}: {self.verdict.value}. Learned from {learned}; {judged} bits per byte "
            f"({-self.gain:+.1%}, {interval}), in {self.seconds:.0f} s. {' '.join((self.reason, *self.notes))}"
            f"{self._zeroed}"
        )

    @property
    def _zeroed(self) -> str:
        if self.nll_zeroed is None:
            return ""
        return f" With the trace zeroed they cost {self.nll_zeroed / math.log(2):.3f}."

    @property
    def _beside(self) -> str:
        beside = f" and from {self.passages} passages of {self.project_files} project files" if self.passages else ""
        beside += f" and rehearsed {self.rehearsed} passages of general code" if self.rehearsed else ""
        return beside + (f" ({self.epochs:.0%} of it, in the time given)" if 0 < self.epochs < 0.995 else "")


@dataclass(frozen=True, slots=True)
class CerebellumReport:
    """The cerebellum's part of a sleep. Without a version it has not learned, and `reason` says why.

    Attributes:
        nll_before, nll_after: nats per UTF-8 byte of the held-out text, under what was in use and what would serve now;
            `nll_plain` without the plastic layer, `nll_plastic` with it, `nll_zeroed` with its trace zeroed (None:
            there is none).
        gain, gain_low, gain_high: (before - after) / before, and its `LEVEL` bootstrap interval.
        plastic: whether the plastic layer serves.
        threshold: the least confidence of a reflex, None: no reflexes; of `judged_lines` unseen lines `answered` were
            as sure, `right` of them exactly what was written.
        share: of its prediction that is mixed into the base's.
        way: how far it goes of what it learned.
        beside_before, beside_after: nats per byte of the held-out text as the base writes it, with the say of what was
            in use and with that of the new version; `beside_low` and `beside_high` the interval of the gain. None: it
            has no say.
        slices: older slices, as the base writes with its say; where it has none, as it predicts them alone.
        patterns: frequent ones that it now knows.
        seconds: spent in this part of the sleep.
    """

    reason: str
    version: str = ""
    parent: str = ""
    published: bool = False
    new: int = 0
    old: int = 0
    passages: int = 0
    held_out: int = 0
    nll_before: float = 0.0
    nll_after: float = 0.0
    gain: float = 0.0
    gain_low: float = 0.0
    gain_high: float = 0.0
    nll_plain: float = 0.0
    nll_plastic: float | None = None
    nll_zeroed: float | None = None
    plastic: bool = False
    threshold: float | None = None
    judged_lines: int = 0
    answered: int = 0
    right: int = 0
    share: float = 0.0
    way: float = 1.0
    beside_before: float | None = None
    beside_after: float | None = None
    beside_low: float | None = None
    beside_high: float | None = None
    slices: tuple[SliceReport, ...] = ()
    patterns: int = 0
    steps: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """One or two sentences."""
        if not self.version:
            return f"cerebellum: {self.reason}"
        before, after = self.nll_before / math.log(2), self.nll_after / math.log(2)
        layer = "with" if self.plastic else "without"
        reason = self.reason if self.way == 1 else f"It goes {self.way:.0%} of the way it learned. {self.reason}"
        return (
            f"cerebellum: {self.verdict.value}. Learned from {self.new} new and {self.old} "
            f"old experiences and {self.passages} passages; {self.held_out} held-out texts went from {before:.3f} to "
            f"{after:.3f} bits per byte ({-self.gain:+.1%}, {LEVEL:.0%} interval {-self.gain_high:+.1%} to "
            f"{-self.gain_low:+.1%}), {layer} its plastic layer, in {self.seconds:.0f} s. {reason} {self.reflexes} "
            f"{self.say} It knows {self.patterns} frequent patterns."
        )

    @property
    def verdict(self) -> Verdict:
        """What became of it."""
        if not self.version:
            return Verdict.WAITING
        return Verdict.PUBLISHED if self.published else Verdict.REJECTED

    @property
    def reflexes(self) -> str:
        """One sentence: from which confidence on it answers alone, and what that was worth."""
        if self.threshold is None:
            return f"No reflexes: among {self.judged_lines} unseen lines it was not sure and right often enough."
        return (
            f"Reflexes from a confidence of {self.threshold:.2f} on ({self.right} of {self.answered} right, among "
            f"{self.judged_lines} unseen lines)."
        )

    @property
    def say(self) -> str:
        """One or two sentences: what it has to say in what the base writes, and what that was worth."""
        told = ""
        if self.beside_before and self.beside_after is not None:
            before, after = self.beside_before / math.log(2), self.beside_after / math.log(2)
            low, high = -(self.beside_high or 0.0), -(self.beside_low or 0.0)
            told = (
                f"Beside the base they went from {before:.3f} to {after:.3f} ({after / before - 1:+.1%}, {low:+.1%} to "
                f"{high:+.1%}). "
            )
        if not self.published:
            return told + "The base writes as before."
        if not self.share:
            return told + "The base writes without it."
        return told + f"In what the base writes it has {self.share:.0%} of the say."


@dataclass(frozen=True, slots=True)
class Report:
    """A whole sleep; `cerebellum` None: its part was switched off, or not reached."""

    base: str  # name
    base_fingerprint: str
    contexts: tuple[ContextReport, ...] = ()
    cerebellum: CerebellumReport | None = None
    seconds: float = 0.0
    parts: int = 1  # 1 + how often it was interrupted
    policy: str = ""  # what became of the modulator's policy, in a sentence
    problem: str = ""  # why it failed or was given up

    @property
    def empty(self) -> bool:
        """Whether no part of the sleep has learned, or says why it has not."""
        return not (self.contexts or self.policy or (self.cerebellum and self.cerebellum.version))

    @property
    def text(self) -> str:
        """One sentence a context."""
        lines = ["Nothing was consolidated."] if self.empty else [part.text for part in self.contexts]
        lines += [self.cerebellum.text] if self.cerebellum else []
        return "\n".join([*lines, *(line for line in (self.policy, self.problem) if line)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """The report in JSON values; unknown keys are left out.

        Raises:
            ValueError, TypeError: they are no report.
        """
        values = _known(cls, data)
        values["contexts"] = tuple(
            ContextReport(
                **{
                    **_known(ContextReport, part),
                    "verdict": Verdict(part["verdict"]),
                    "slices": _slices(part),
                    "notes": tuple(part.get("notes", ())),
                }
            )
            for part in data.get("contexts", ())
        )
        if data.get("cerebellum"):
            small = data["cerebellum"]
            values["cerebellum"] = CerebellumReport(**{**_known(CerebellumReport, small), "slices": _slices(small)})
        return cls(**values)


def _slices(part: Mapping[str, Any]) -> tuple[SliceReport, ...]:
    return tuple(
        SliceReport(**{**_known(SliceReport, item), "kind": SliceKind(item["kind"])}) for item in part.get("slices", ())
    )


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {key: value for key, value in data.items() if key in names}

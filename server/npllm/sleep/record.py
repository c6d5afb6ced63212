"""What a report shows beside the numbers in the table: the loss as it fell, a few lines before and after, the files.

Plain values. Unlike `report` it quotes the person's code and names files, so it lies in the data folder, for the user
alone, and never in the database. Every quotation says of which experience and file it is, so that it can be forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from npllm.sleep.report import Report

File = tuple[str, str]  # a project's folder, and a path relative to it


@dataclass(frozen=True, slots=True)
class Point:
    """One optimizer step: nats per token over the last steps, and seconds of training until then."""

    step: int
    loss: float
    tokens_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Quote:
    """A held-out text, and how the version in use before and the new one would have completed it (greedily).

    Attributes:
        id: of the experience.
        above: the last lines before the cursor.
        wrote: what the person ended up with.
    """

    id: str
    project: str
    path: str
    above: str
    wrote: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was learned from: so many texts of it, and so many passages."""

    project: str
    path: str
    texts: int = 0
    passages: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    """One context's."""

    context: str
    curve: tuple[Point, ...] = ()
    quotes: tuple[Quote, ...] = ()
    sources: tuple[Source, ...] = ()

    def without(self, files: Collection[File], ids: Collection[str]) -> Details:
        """The same without what quotes or names one of these files, or quotes one of these experiences."""
        return replace(
            self,
            quotes=tuple(one for one in self.quotes if (one.project, one.path) not in files and one.id not in ids),
            sources=tuple(one for one in self.sources if (one.project, one.path) not in files),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Details:
        """What `asdict` made. Raises ValueError, TypeError, KeyError: it is something else."""
        return cls(
            context=str(data["context"]),
            curve=tuple(Point(**one) for one in data["curve"]),
            quotes=tuple(Quote(**one) for one in data["quotes"]),
            sources=tuple(Source(**one) for one in data["sources"]),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A whole sleep, as its page shows it.

    Attributes:
        id: of the consolidation.
        run: of the sleeping process that ended it; another one than `id` where it had been interrupted before. None:
            not known.
    """

    id: UUID
    started_at: datetime
    ended_at: datetime
    report: Report
    details: tuple[Details, ...] = ()
    run: UUID | None = None

    def details_of(self, context: str) -> Details:
        """Those of a context; empty ones where there are none."""
        return next((one for one in self.details if one.context == context), Details(context))

    @property
    def text(self) -> str:
        """As plain text: what was learned, lines before and after, the files."""
        lines = [
            f"Sleep {self.id}, {self.started_at:%Y-%m-%d %H:%M} UTC, base {self.report.base}: "
            f"{self.report.seconds:.0f} s in {self.report.parts} part{'s' if self.report.parts != 1 else ''}.",
            "",
            self.report.text,
        ]
        for one in self.details:
            for quote in one.quotes:
                lines += ["", f"{quote.path} ({one.context}), drawn by chance:", *_indented("    ", quote.above)]
                lines += _indented("  you wrote | ", quote.wrote) + _indented("  before    | ", quote.before)
                lines += _indented("  now       | ", quote.after)
            if one.sources:
                lines += ["", f"Learned from ({one.context}):"]
                lines += [f"  {found.path}: {what_of(found)}" for found in one.sources]
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "id": str(self.id),
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat(),
            "report": self.report.to_json(),
            "details": [asdict(one) for one in self.details],
            "run": str(self.run) if self.run else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """What `to_json` made. Raises ValueError, TypeError, KeyError: it is something else."""
        return cls(
            id=UUID(data["id"]),
            started_at=datetime.fromisoformat(data["started_at"]),
            ended_at=datetime.fromisoformat(data["ended_at"]),
            report=Report.from_json(data["report"]),
            details=tuple(Details.from_json(one) for one in data["details"]),
            run=UUID(data["run"]) if data.get("run") else None,
        )


def what_of(source: Source) -> str:
    """How much of a file was learned, e.g. "3 texts, 12 passages"."""
    counted = ((source.texts, "text"), (source.passages, "passage"))
    return ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for count, name in counted if count)


def _indented(lead: str, text: str) -> list[str]:
    lines = text.splitlines() or ["(nothing)"]
    return [f"{lead}{line}" for line in lines]

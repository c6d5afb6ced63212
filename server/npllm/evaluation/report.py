"""The report of one or several days: a table for the terminal, Markdown, and JSON with every line.

Says what was measured and how, and what the numbers do not show.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from npllm.evaluation import metrics
from npllm.evaluation.day import Day
from npllm.evaluation.measure import COLUMNS
from npllm.evaluation.metrics import Interval, LineResult, Summary
from npllm.evaluation.sources import EvaluationError

NAMES = tuple(column.name for column in COLUMNS)
COMPARED = ((NAMES[1], NAMES[0]), (NAMES[2], NAMES[1]), (NAMES[2], NAMES[0]))
LABELS = {
    "exact": "exact line match",
    "similarity": "edit similarity",
    "saved": "characters saved",
    "bits_per_byte": "bits per UTF-8 byte of the true line",
}
WIDE = 120  # columns of a terminal from which the table shows the intervals, too
NOTES = (
    "Held-out lines were written neither in the morning nor seen in it: half follow the morning's in the same files, "
    "half lie in files that the morning never opened. They are written down nowhere.",
    "Memory knows the morning, the older release's files, which lie on disk, and the document around the cursor; the "
    "adapter learns from the morning and those files. A line that stands in either, somewhere, is left out of 'lines "
    "that stood nowhere before'.",
    "So that every line is measured, each suggestion is shown however unsure the base is and ends with its "
    "line; retrieval is waited for, so the latencies of the columns with memory include it.",
    "[low, high]: 95 % bootstrap interval over files; differences are paired.",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One column minus another, per metric."""

    later: str
    earlier: str
    metrics: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Report:
    """Numbers of one or several days (seeds).

    Attributes:
        fresh: bits per byte over the lines that stood nowhere before, per column.
        by_seed: bits per byte per seed and column.
    """

    days: tuple[Day, ...]
    columns: Mapping[str, Summary]
    differences: tuple[Difference, ...]
    fresh: Mapping[str, Interval]
    seen_share: float
    by_seed: Mapping[int, Mapping[str, float]]

    @property
    def learned(self) -> bool:
        """Whether every sleep published something."""
        return all(day.sleep.published for day in self.days)


def build(days: Sequence[Day]) -> Report:
    """Summarise days; several are pooled, and resampled by file within seed.

    Raises:
        EvaluationError: no days.
    """
    if not days:
        raise EvaluationError("There is nothing to report.")
    pooled: dict[str, list[LineResult]] = {name: [line for day in days for line in day.columns[name]] for name in NAMES}
    fresh = {name: [line for line in lines if not line.seen] for name, lines in pooled.items()}
    base = pooled[NAMES[0]]
    return Report(
        days=tuple(days),
        columns={name: metrics.summarise(lines) for name, lines in pooled.items()},
        differences=tuple(
            Difference(
                later,
                earlier,
                {
                    name: metrics.difference(pooled[later], pooled[earlier], statistic)
                    for name, statistic in metrics.STATISTICS.items()
                },
            )
            for later, earlier in COMPARED
        ),
        fresh={name: metrics.bootstrap(lines, metrics.bits_per_byte) for name, lines in fresh.items() if lines},
        seen_share=sum(line.seen for line in base) / len(base),
        by_seed={
            day.seed: {name: metrics.overall(day.columns[name], metrics.bits_per_byte) for name in NAMES}
            for day in days
        },
    )


def as_json(report: Report) -> dict[str, Any]:
    """Everything, in JSON's types: settings, morning, sleep, every held-out line."""
    return {
        "format": 1,
        "notes": list(NOTES),
        "columns": {name: dataclasses.asdict(summary) for name, summary in report.columns.items()},
        "differences": [dataclasses.asdict(difference) for difference in report.differences],
        "stood_nowhere_before": {name: dataclasses.asdict(value) for name, value in report.fresh.items()},
        "seen_share": report.seen_share,
        "by_seed": {str(seed): dict(values) for seed, values in report.by_seed.items()},
        "days": [dataclasses.asdict(day) for day in report.days],
    }


def print_to(console: Console, report: Report) -> None:
    """The table and what belongs to it."""
    first = report.days[0]
    summary = report.columns[NAMES[0]]
    table = Table(
        title=f"{first.project} {first.old} -> {first.new}: {summary.lines} held-out lines in "
        f"{summary.files} files, seed {', '.join(str(day.seed) for day in report.days)}",
        title_justify="left",
    )
    table.add_column("")
    for name in NAMES:
        table.add_column(name, justify="right")
    narrow = console.width < WIDE
    for label, *cells in _rows(report):
        table.add_row(label, *(cell.split(" [")[0] if narrow else cell for cell in cells))
    console.print(table)
    for line in [*_difference_lines(report), *_story(report), *NOTES]:
        console.print(Text(line))


def as_markdown(report: Report) -> str:
    """The same as Markdown."""
    first = report.days[0]
    summary = report.columns[NAMES[0]]
    out = [
        f"### {first.project} {first.old} -> {first.new}",
        "",
        f"{summary.lines} held-out lines in {summary.files} files, "
        f"seed {', '.join(str(day.seed) for day in report.days)}.",
        "",
        "| | " + " | ".join(NAMES) + " |",
        "|---|" + "---:|" * len(NAMES),
    ]
    out += ["| " + " | ".join(row) + " |" for row in _rows(report)]
    out += ["", *(f"- {line}" for line in [*_difference_lines(report), *_story(report), *NOTES]), ""]
    return "\n".join(out)


def _rows(report: Report) -> list[tuple[str, ...]]:
    columns = [report.columns[name] for name in NAMES]
    rows: list[tuple[str, ...]] = []
    for key, label in LABELS.items():
        show = _bits if key == "bits_per_byte" else _share
        rows.append((label, *(show(getattr(column, key)) for column in columns)))
    if report.fresh and report.seen_share > 0:
        label = "  of lines that stood nowhere before"
        rows.append((label, *(_bits(report.fresh[name]) for name in NAMES)))
    rows.append(("lines with a suggestion", *(f"{column.offered:.0%}" for column in columns)))
    rows.append(("remembered pieces in the prompt", *(f"{column.memories:.1f}" for column in columns)))
    rows.append(
        (
            "latency p50 / p95",
            *(f"{column.latency_p50_ms:.0f} / {column.latency_p95_ms:.0f} ms" for column in columns),
        )
    )
    if len(report.by_seed) > 1:
        for seed, values in report.by_seed.items():
            rows.append((f"bits per byte, seed {seed}", *(f"{values[name]:.3f}" for name in NAMES)))
    return rows


def _difference_lines(report: Report) -> list[str]:
    lines = []
    for difference in report.differences:
        bits, exact = difference.metrics["bits_per_byte"], difference.metrics["exact"]
        lines.append(
            f"{difference.later} minus {difference.earlier}: bits per byte {bits.value:+.3f} "
            f"[{bits.low:+.3f}, {bits.high:+.3f}]{_verdict(bits)}; "
            f"exact lines {exact.value:+.1%} [{exact.low:+.1%}, {exact.high:+.1%}]"
            f"{' (did not move)' if exact.value == 0 else ''}"
        )
    return lines


def _verdict(bits: Interval) -> str:
    if bits.low == bits.high == 0:
        return ", the same"
    if bits.high < 0:
        return ", better"
    if bits.low > 0:
        return ", worse"
    return ", within chance"


def _story(report: Report) -> list[str]:
    lines = []
    for day in report.days:
        what = Counter(moment.action for moment in day.moments)
        said = sum(bool(moment.emoji or moment.comment) for moment in day.moments)
        done = ", ".join(f"{count} {action}" for action, count in sorted(what.items()))
        lines.append(f"Seed {day.seed}, the morning: {len(day.moments)} lines ({done}; {said} times feedback).")
        made = "; ".join(
            f"{context} {state}{f' ({reason})' if reason else ''}" for context, state, reason, _ in day.sleep.versions
        )
        small = ""
        if day.sleep.cerebellum is not None:
            published, why = day.sleep.cerebellum
            small = f"; the cerebellum {'published' if published else 'rejected'} ({why})"
        lines.append(f"Seed {day.seed}, the sleep: {day.sleep.seconds:.0f} s; {made or 'no adapter was made'}{small}.")
    return lines


def _share(interval: Interval) -> str:
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _bits(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

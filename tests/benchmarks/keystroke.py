"""What following suggestions costs at each keystroke, in a long file: `python -m tests.benchmarks.keystroke`.

Everything that one key press sets off beside the editor's own bookkeeping (`Document.apply`, which is timed in the same
run): the tracker with 50 suggestions followed, the watch for undos, the rhythm, a look at git's log where something is
removed. Prints milliseconds of CPU time (other programs do not count), median and 95th percentile, and the share of the
bookkeeping. Then what a save costs where accepted texts were edited, first and when nothing has changed since, and
what a formatter costs that sends all lines anew.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lsprotocol import types as lsp

from npllm.assist.repository import Repositories
from npllm.config import FeedbackConfig, PacingConfig
from npllm.feedback.frustration import Signs
from npllm.feedback.implicit import ImplicitFeedback
from npllm.feedback.pacing import Pacer
from npllm.feedback.tracking import Change
from npllm.lsp.documents import Document, Edit
from npllm.types import Place, Suggestion, new_id

URI = "file:///w/a.py"
FOLLOWED = 50
SAVED = 40  # accepted and edited texts in a document that is saved
BLOCK = "".join(f"    total_{letter} = combine(first[{letter}], second[{letter}])\n" for letter in "abcdefgh").strip()
HERE = str(Path(__file__).resolve().parents[2])  # a repository, where it is one


class Desk:
    """A document of many lines with suggestions along it, and all that listens to its changes."""

    def __init__(self, lines: int) -> None:
        text = "".join(f"value_{number} = compute({number})\n" for number in range(lines))
        self.document = Document(URI, "python", text)
        self.tracker = ImplicitFeedback(FeedbackConfig())
        self.signs, self.pacer, self.repositories = Signs(), Pacer(PacingConfig()), Repositories()
        for line in range(0, lines, max(1, lines // FOLLOWED)):
            self.offer(text, self.document.offset(lsp.Position(line, 8)), "compute(1)")
        self.repositories.holds(HERE)

    def offer(self, text: str, offset: int, suggested: str) -> None:
        """A suggestion is on screen."""
        place = Place(URI, "a.py", "python", HERE, offset)
        made = Suggestion(
            new_id(), place, suggested, text[max(0, offset - 6000) : offset], text[offset : offset + 2000],
            "language:python", "f", (), (), -1.0, 1.0, datetime.now(UTC),
        )  # fmt: skip
        self.tracker.shown(made, time.monotonic(), until_commit=True)

    def change(self, line: int, start: int, end: int, new: str) -> tuple[float, float]:
        """Seconds of CPU time for the bookkeeping, and for what listens."""
        where = lsp.Range(lsp.Position(line, start), lsp.Position(line, end))
        began = time.thread_time()
        edit = self.document.apply(lsp.TextDocumentContentChangePartial(range=where, text=new))
        kept = time.thread_time()
        self._listen(edit)
        return kept - began, time.thread_time() - kept

    def _listen(self, edit: Edit) -> None:
        now = time.monotonic()
        place = Place(URI, "a.py", "python", HERE, edit.start + len(edit.new_text))
        if len(edit.new_text) == 1 and edit.start == edit.end:
            self.pacer.key(now)
        self.signs.changed(place, edit.before, Change(edit.start, edit.end, edit.new_text), now)
        if edit.end - edit.start > 1:
            self.repositories.moved(HERE)
        self.tracker.changed(URI, edit.before, edit.start, edit.end, edit.new_text, now)
        self.tracker.tick(now)


def typing(desk: Desk, line: int, keys: int) -> list[tuple[float, float]]:
    return [desk.change(line, number % 60, number % 60, "a") for number in range(keys)]


def correcting(desk: Desk, line: int, keys: int) -> list[tuple[float, float]]:
    return [
        desk.change(line, 0, 0, "word") if number % 2 == 0 else desk.change(line, 0, 4, "") for number in range(keys)
    ]


def saving(lines: int) -> None:
    """Prints what saves cost, and how often the bookkeeping of one key that is."""
    desk = Desk(lines)
    desk.tracker.close_all(time.monotonic())
    for line in range(lines - 1, 0, -max(1, lines // SAVED)):
        desk.offer(desk.document.text, desk.document.offset(lsp.Position(line, 0)), BLOCK)
        desk.change(line, 0, 0, BLOCK)
        desk.change(line + 3, 10, 10, "x")
    key = statistics.median(kept for kept, _ in typing(desk, 0, 50))
    print(f"saves, {lines} lines, {SAVED} accepted texts of 8 lines, all edited")
    for name in ("at first", "unchanged"):
        began = time.thread_time()
        told = len(desk.tracker.saved(URI, time.monotonic()))
        spent = time.thread_time() - began
        print(f"  {name:<10} {1000 * spent:.3f} ms ({told} told); {spent / key:.2f} of the bookkeeping of a key")


def formatting(lines: int) -> None:
    """Prints what one replacement of all lines costs, and how often the bookkeeping of it that is."""
    desk = Desk(lines)
    text = desk.document.text
    began = time.thread_time()
    edit = desk.document.apply(lsp.TextDocumentContentChangeWholeDocument(text=text.replace("(", "( ")))
    kept = time.thread_time()
    desk.tracker.changed(URI, edit.before, edit.start, edit.end, edit.new_text, time.monotonic())
    spent = time.thread_time() - kept
    print(f"formatter, {lines} lines, {FOLLOWED} suggestions followed")
    print(f"  {'at once':<10} {1000 * spent:.1f} ms; {spent / (kept - began):.2f} of the bookkeeping")


def measure(name: str, lines: int, keys: int, work: Callable[[Desk, int, int], list[tuple[float, float]]]) -> None:
    print(f"{name}, {lines} lines, {FOLLOWED} suggestions followed, {keys} changes")
    for where, line in (("first line", 0), ("middle", lines // 2), ("last line", lines - 1)):
        desk = Desk(lines)
        work(desk, line, 20)
        times = work(desk, line, keys)
        kept, listened = ([1000 * pair[index] for pair in times] for index in (0, 1))
        p95 = statistics.quantiles(listened, n=20)[-1]
        share = statistics.median(listened) / statistics.median(kept)
        said = f"median {statistics.median(listened):.3f} ms, p95 {p95:.3f} ms"
        print(f"  {where:<10} {said}; {share:.2f} of the bookkeeping ({statistics.median(kept):.3f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=500)
    args = parser.parse_args()
    measure("typing", args.lines, args.keys, typing)
    measure("words put in and taken back", args.lines, args.keys, correcting)
    saving(args.lines)
    formatting(args.lines)


if __name__ == "__main__":
    main()

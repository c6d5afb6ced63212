"""What the terminal shows while an evaluation runs: progress bars and short notes, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """One line with a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def step(self, note: str = "") -> None:
        """One more is done."""
        self._progress.update(self._task, advance=1, note=note)

    def set(self, done: float, note: str = "") -> None:
        """So much is done; it never goes back."""
        present = self._progress.tasks[self._progress.task_ids.index(self._task)].completed
        self._progress.update(self._task, completed=max(present, done), note=note)


class Show:
    """Bars and notes."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
        )

    def __enter__(self) -> Show:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """One line above the bars."""
        self._progress.console.print(text, highlight=False, markup=False)

    @contextmanager
    def bar(self, name: str, total: float) -> Iterator[Bar]:
        """A bar while the block runs; it stays when done."""
        task = self._progress.add_task(name, total=total, note="")
        yield Bar(self._progress, task)
        self._progress.update(task, note="")
        self._progress.stop_task(task)

"""What a person does in one scenario, by keys and eyes; each thing done is noted with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.git import git
from tests.e2e.workbench import Workbench

CARET = "‸"  # where the cursor stands at first; at the end of a line


@dataclass(frozen=True, slots=True)
class Scenario:
    """A file, what is suggested in it, and what the person does. What that says is in tests/streams/outcomes.toml."""

    name: str
    act: Callable[[Person], None]
    file: str
    text: str
    suggestions: Mapping[str, str]  # by what stands on the line before the cursor
    settings: Mapping[str, Any]


class Scenarios(dict[str, Scenario]):
    """All scenarios by name; a decorator adds one."""

    def __call__(
        self,
        suggestions: Mapping[str, str],
        *,
        text: str,
        suffix: str = ".py",
        settings: Mapping[str, Any] | None = None,
    ) -> Callable[[Callable[[Person], None]], Callable[[Person], None]]:
        def add(act: Callable[[Person], None]) -> Callable[[Person], None]:
            name = act.__name__
            self[name] = Scenario(name, act, name + suffix, text, suggestions, settings or {})
            return act

        return add


@dataclass(slots=True)
class Person:
    """Acts in the window."""

    bench: Workbench
    scenario: Scenario
    folder: Path
    notes: list[dict[str, Any]] = field(default_factory=list)

    def begin(self) -> None:
        """Open the file, with the cursor at its place."""
        before, _, _ = self.scenario.text.partition(CARET)
        self.bench.open_file(self.scenario.file)
        self.bench.press("Control+g")
        self.bench.type(str(before.count("\n") + 1))
        self.bench.press("Enter", "End")

    def types(self, text: str, *, delay_ms: int = 60) -> None:
        self._note(f"types {text!r}")
        self.bench.type(text, delay_ms=delay_ms)

    def presses(self, *keys: str) -> None:
        for key in keys:
            self._note(f"presses {key}")
            self.bench.press(key)
            time.sleep(0.25)

    def takes(self, key: str, times: int = 1) -> None:
        """Take so many parts of what is on screen, one after the other."""
        for _ in range(times):
            self.bench.until(lambda: self.bench.ghost() != "", "ghost text", 20)
            before = self.bench.lines()
            self.presses(key)
            self.bench.until(lambda before=before: self.bench.lines() != before, "a part of it in the editor", 20)

    def commands(self, title: str) -> None:
        """Run a command from the palette."""
        self._note(f"runs {title!r}")
        self.bench.palette(title)
        time.sleep(0.5)

    def waits(self, seconds: float) -> None:
        time.sleep(seconds)

    def gets(self, beginning: str, *, looks_s: float = 1.2) -> None:
        """Type the beginning of a line, and look for a while at the suggestion that appears."""
        self.types(beginning)
        self.sees(self.suggested(beginning))
        self.waits(looks_s)

    def suggested(self, beginning: str) -> str:
        """What is suggested behind the beginning of a line."""
        (text,) = (text for before, text in self.scenario.suggestions.items() if before.strip() == beginning.strip())
        return text

    def sees(self, text: str) -> None:
        """Wait for ghost text."""
        first = text.partition("\n")[0]
        self.bench.until(lambda: self.bench.ghost().startswith(first), f"ghost text {first!r}", 20)

    def sees_line(self, text: str) -> None:
        """Wait for text in the editor."""
        self.bench.until(lambda: any(text in line for line in self.bench.lines()), f"{text!r} in the editor", 20)

    def git(self, *arguments: str) -> None:
        """Run git in the project, as in a terminal beside the editor; noted as git's own log of HEAD says it."""
        log = self.folder / ".git" / "logs" / "HEAD"
        before = log.read_text(encoding="utf-8") if log.exists() else ""
        self._note(f"runs git {' '.join(arguments)}")
        git(self.folder, *arguments)
        after = log.read_text(encoding="utf-8") if log.exists() else ""
        for line in after[len(before) :].splitlines():
            self.notes.append({"at": log.stat().st_mtime, "git": line.partition("\t")[2]})

    def program(self, writes: Callable[[str], str]) -> None:
        """Let another program change the file on the disk."""
        file = self.folder / self.scenario.file
        self._note("lets another program change the file")
        file.write_text(writes(file.read_text(encoding="utf-8")), encoding="utf-8")

    def _note(self, what: str) -> None:
        self.notes.append({"at": time.time(), "person": what})

"""A desk: a window, a file in it, and a server with a fresh data folder. A flow is what is done at one."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from npllm.memory.postgres import destroy
from npllm.types import StoreError
from tests.e2e.records import NPLLM
from tests.e2e.workbench import Installation, TooSlow, Workbench

ATTEMPTS = 3  # a browser on a busy machine is sometimes too slow; what is wrong stays wrong

# What comes of a suggestion matters here, not how good it is: every one is shown, and short.
SERVER_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "base": {"threads": 1},
    "completion": {"min_mean_logprob": -1000, "max_new_tokens": 16, "timeout_ms": 30000},
    "feedback": {"min_visible_ms": 0},
    "sleep": {"idle_s": 3600},
}

# Lines that a person might begin; whatever the base is, it goes on with one of them.
BEGINNINGS = ("for index in range(", "return self.", "import ", "print(", "if name == ", "value = ")


@dataclass(frozen=True, slots=True)
class Desk:
    bench: Workbench
    home: Path
    """The server's data folder."""
    project: Path
    """The folder that is open, in no repository."""

    def open(self) -> None:
        """Open the window and wait for the server."""
        self.bench.open()
        self.bench.until(self.awake, "the server to be awake", 240)
        self.bench.to_end()

    def awake(self) -> bool:
        return self.bench.status() == "npllm awake"

    def suggestion(self) -> tuple[str, str]:
        """Type on a new line until there is ghost text; the line so far, and the ghost text."""
        for beginning in BEGINNINGS:
            self.bench.press("Enter")
            self.bench.type(beginning)
            try:
                ghost = self.bench.until(self._settled, f"ghost text behind {beginning!r}", 20)
            except TooSlow:
                self.bench.press("Escape")
                continue
            return beginning, ghost
        raise TooSlow(f"No ghost text behind any of {BEGINNINGS}.")

    def _settled(self) -> str:
        """The ghost text, once the server is done."""
        return self.bench.ghost() if self.awake() else ""


@dataclass(frozen=True, slots=True)
class Play:
    """Plays flows, each at a fresh desk."""

    installation: Installation
    extensions: Path
    slow: list[str]
    """Gets a line for every attempt that was too slow."""

    def __call__(
        self,
        act: Callable[[Desk], None],
        prepare: Callable[[Path], None] = lambda home: None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._desk(prepare, settings or {}) as desk:
                    act(desk)
                    assert not desk.bench.blocked(), "a modal dialog is open"
                return
            except TooSlow as error:
                if attempt == ATTEMPTS:
                    raise
                self.slow.append(f"{act.__name__}, attempt {attempt} of {ATTEMPTS}: {error}")

    @contextmanager
    def _desk(self, prepare: Callable[[Path], None], settings: Mapping[str, Any]) -> Iterator[Desk]:
        # Not pytest's folder: sockets lie below it, and their paths must be short.
        run = Path(tempfile.mkdtemp(prefix="npllm-e2e-"))
        home, file = run / "npllm", run / "project" / "main.py"
        home.mkdir(mode=0o700)
        file.parent.mkdir()
        file.write_text('"""A program."""\n\nimport sys\n', encoding="utf-8")
        prepare(home)
        given = {
            "npllm.server.command": [str(NPLLM), "serve"],
            "npllm.server.env": {"NPLLM_HOME": str(home)},
            "npllm.settings": SERVER_SETTINGS,
            **settings,
        }
        bench = Workbench(self.installation, run / "code", self.extensions, file, given)
        try:
            yield Desk(bench, home, file.parent)
        except BaseException:
            print(f"What was left is in {run}.", file=sys.stderr)
            raise
        finally:
            bench.stop()
            _destroy(home)
        shutil.rmtree(run, ignore_errors=True)


def _destroy(home: Path) -> None:
    """Remove the database, once the last process of the server has let go of it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            destroy(home)
            return
        except StoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def flow(**options: Any) -> Callable[[Callable[[Desk], None]], Callable[[Play], None]]:
    """Make a test of a function that acts at a desk; `options` are those of `Play`."""

    def decorate(act: Callable[[Desk], None]) -> Callable[[Play], None]:
        def test(play: Play) -> None:
            play(act, **options)

        test.__name__, test.__doc__ = act.__name__, act.__doc__
        return pytest.mark.timeout(1800)(pytest.mark.e2e(test))

    return decorate

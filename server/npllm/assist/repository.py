"""What git did in a project, read from its log of HEAD: a commit, or another state under the editor. Runs nothing."""

from __future__ import annotations

import re
import time
from pathlib import Path

RECENT_S = 10.0  # so long after git moved HEAD, a document that changes as a whole was changed by it
FORGET_S = 60.0  # then a project without a repository is looked at again
TAIL = 4096  # bytes; the last line of the log is shorter
_COMMIT = re.compile(r"commit(?: \([^)]*\))?:")


class Repositories:
    """Of the projects that are asked about. Whatever cannot be read counts as no repository."""

    def __init__(self) -> None:
        self._logs: dict[str, tuple[Path | None, float]] = {}  # by project; and when that was found out
        self._seen: dict[str, int] = {}  # when the log was written last, in nanoseconds

    def holds(self, project: str) -> bool:
        """Whether a project lies in a repository with at least one commit."""
        return self._log(project) is not None

    def commits(self) -> list[str]:
        """The projects in which a commit was made since this was asked last."""
        found = []
        for project in list(self._logs):
            at = self._written(project)
            if at is None:
                continue
            before = self._seen.setdefault(project, at)
            self._seen[project] = at
            if at != before and _COMMIT.match(self._action(project)):
                found.append(project)
        return found

    def moved(self, project: str, file: str = "") -> int:
        """When git has just put another state there (checkout, reset, pull ...), in nanoseconds; 0 = it has not.

        A long checkout writes the files first and its log last; until then it holds the index locked.

        Args:
            file: one that git has not written just now is as it was.
        """
        at = self._locked(project) or self._written(project)
        if not at or not _recent(at) or (file and not _written_lately(file)):
            return 0
        return 0 if at == self._written(project) and _COMMIT.match(self._action(project)) else at

    def _log(self, project: str) -> Path | None:
        if not project:
            return None
        known = self._logs.get(project)
        if known is None or (known[0] is None and time.monotonic() - known[1] > FORGET_S):
            known = self._logs[project] = (_find(Path(project)), time.monotonic())
            if known[0] is not None and (at := self._written(project)) is not None:
                self._seen[project] = at
        return known[0]

    def _written(self, project: str) -> int | None:
        log = self._log(project) if project not in self._logs else self._logs[project][0]
        try:
            return None if log is None else log.stat().st_mtime_ns
        except OSError:
            return None

    def _locked(self, project: str) -> int:
        """When git locked the index that it is working on, in nanoseconds; 0 = it is not, or has been for long."""
        log = self._log(project) if project not in self._logs else self._logs[project][0]
        try:
            at = 0 if log is None else (log.parents[1] / "index.lock").stat().st_mtime_ns
        except OSError:
            return 0
        return at if _recent(at) else 0

    def _action(self, project: str) -> str:
        """What the last line says that was done, e.g. "commit: Mend it" or "checkout: moving from a to b"."""
        log = self._logs[project][0]
        try:
            assert log is not None
            with log.open("rb") as stream:
                stream.seek(max(0, log.stat().st_size - TAIL))
                lines = stream.read().decode("utf-8", "replace").rstrip("\n").split("\n")
        except OSError:
            return ""
        return lines[-1].partition("\t")[2]


def _recent(at: int) -> bool:
    return 0 <= time.time() - at / 1e9 <= RECENT_S


def _written_lately(file: str) -> bool:
    """Also where there is no such file (any more)."""
    try:
        return _recent(Path(file).stat().st_mtime_ns)
    except OSError:
        return True


def _find(project: Path) -> Path | None:
    """The log of HEAD of the repository or worktree that a folder lies in."""
    try:
        for folder in (project, *project.parents):
            git = folder / ".git"
            if git.is_file():  # a worktree or submodule names its folder
                name = git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
                git = folder / name
            log = git / "logs" / "HEAD"
            if log.is_file():
                return log
            if git.is_dir():
                return None
    except (OSError, UnicodeDecodeError):
        return None
    return None

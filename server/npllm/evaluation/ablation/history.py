"""Days of a project's history: the states between which each day's lines were written, and who wrote which.

Successive releases of a package, or a git repository whose first-parent commits are gathered into days: all commits of
one calendar date (UTC) belong together, and dates are joined until a day has added enough lines. Knows nothing of
which lines are asked for.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path

from npllm.evaluation import lines, sources
from npllm.evaluation.lines import FileChange
from npllm.evaluation.sources import EvaluationError, Pair, Tree

_BLAMED = re.compile(rb"^([0-9a-f]{40}|[0-9a-f]{64}) \d+ (\d+)")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[^/\\:]+@[^/\\:]+:)")
CLONE_S = 1800.0


@dataclass(frozen=True)
class History:
    """`states[k - 1]` becomes `states[k]` on day k.

    Attributes:
        project: a name for people and folders.
        blame: of a state's number and a path, the commit that wrote each line (from 0); None for releases.
    """

    project: str
    states: tuple[Tree, ...]
    blame: Callable[[int, str], Sequence[str]] | None = field(default=None, compare=False)

    @cached_property
    def changes(self) -> tuple[tuple[FileChange, ...], ...]:
        """What each day adds."""
        return tuple(tuple(lines.changes(Pair(self.project, old, new))) for old, new in pairwise(self.states))

    @property
    def key(self) -> str:
        """Says which history this is; eight hexadecimal digits."""
        told = "\0".join([self.project, *(tree.revision for tree in self.states)])
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def cluster(self, day: int, path: str, number: int) -> str:
        """What the bootstrap resamples: the commit of a line of state `day`, or its file where there are no commits."""
        if self.blame is None:
            return f"{self.project}:{path}"
        commits = self.blame(day, path)
        return f"{self.project}:{commits[min(number, len(commits) - 1)] if commits else path}"


def releases(name: str, versions: Sequence[str], cache: Path, endings: tuple[str, ...]) -> History:
    """Successive releases of a package, oldest first.

    Raises:
        EvaluationError: fewer than two, or one cannot be had.
    """
    if len(versions) < 2:
        raise EvaluationError(f"{name} needs at least two releases, as NAME=OLD,NEW.")
    return History(name, tuple(sources.release(name, version, cache, endings=endings) for version in versions))


def repository(
    where: str,
    cache: Path,
    endings: tuple[str, ...],
    *,
    days: int,
    wanted: int,
    start: str | None = None,
    end: str = "HEAD",
) -> History:
    """The last days of a git repository, or the days between two of its revisions.

    Args:
        where: a folder (its work tree is not touched), or a URL, which is cloned into `cache`.
        wanted: added lines of a day, at least; fewer where the history is short.
        start: the first state; None = as late as `wanted` allows.

    Raises:
        EvaluationError: not a repository, no such revision, or too few commits.
    """
    folder = _cloned(where, cache) if _URL.match(where) else Path(where)
    last = sources.commit_of(folder, end)
    span = [f"{sources.commit_of(folder, start)}..{last}"] if start else [last]
    spans = _units(folder, span, endings)
    cuts = _cuts([added for _, added in spans], days, wanted, whole=start is not None)
    if len(cuts) < days + 1:
        raise EvaluationError(f"{where} has commits on too few dates for {days} days. Ask for fewer with --days.")
    first = sources.commit_of(folder, start) if start else None
    commits = [spans[cut - 1][0] if cut else first or last for cut in cuts]
    trees = tuple(sources.revision(folder, commit, endings=endings) for commit in commits)
    known: dict[tuple[int, str], list[str]] = {}

    def blame(day: int, path: str) -> Sequence[str]:
        if (day, path) not in known:
            known[day, path] = _blame(folder, commits[day], path)
        return known[day, path]

    return History(_name(where), trees, blame)


def _name(where: str) -> str:
    last = where.rstrip("/").rpartition("/")[2] if _URL.match(where) else Path(where).resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last.removesuffix(".git")) or "project"


def _cloned(url: str, cache: Path) -> Path:
    final = cache / f"{_name(url)}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.git"
    if final.is_dir():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(final.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        done = subprocess.run(
            ["git", "clone", "--quiet", "--bare", "--single-branch", "--", url, str(temporary)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=CLONE_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise EvaluationError("git is not installed, and --git needs it.") from error
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"{url} could not be cloned within {CLONE_S / 60:.0f} minutes.") from error
    if done.returncode != 0:
        raise EvaluationError(f"{url} cannot be cloned: {done.stderr.decode(errors='replace').strip()}")
    temporary.replace(final)
    return final


def _units(folder: Path, span: list[str], endings: tuple[str, ...]) -> list[tuple[str, int]]:
    """The last commit of each calendar date, oldest first, and how many lines the date's commits added."""
    arguments = ["log", "--first-parent", "--reverse", "-m", "--numstat", "--format=%x00%H %ct", *span, "--"]
    found: list[tuple[int, str, int]] = []
    for entry in sources.git(folder, *arguments, revision=span[0]).decode(errors="replace").split("\0")[1:]:
        head, *rows = entry.splitlines()
        commit, _, seconds = head.partition(" ")
        counts = [row.split("\t") for row in rows if row.strip()]
        added = sum(int(row[0]) for row in counts if len(row) == 3 and row[0].isdigit() and row[2].endswith(endings))
        found.append((int(seconds) // 86400, commit, added))
    groups = [list(group) for _, group in groupby(found, key=lambda item: item[0])]
    return [(group[-1][1], sum(added for _, _, added in group)) for group in groups]


def _cuts(added: Sequence[int], days: int, wanted: int, *, whole: bool) -> list[int]:
    """How many units have passed at each state: `days` stretches, the last ending at the end.

    From the end backwards each day takes units until it has `wanted` lines; if these do not suffice, or `whole` is set,
    the units are cut into days of about equal size.
    """
    cuts = [len(added)]
    if not whole:
        total = 0
        for index in range(len(added) - 1, 0, -1):
            total += added[index]
            if total >= wanted:
                cuts.append(index)
                total = 0
            if len(cuts) == days + 1:
                return cuts[::-1]
    first = 0 if whole else 1  # without a revision to begin at, the first unit makes the first state
    cuts = [first]
    left, done = sum(added[first:]), 0.0
    for index in range(first, len(added)):
        done += added[index]
        if done >= len(cuts) * left / days and len(cuts) < days:
            cuts.append(index + 1)
    return [*cuts, len(added)] if cuts[-1] < len(added) else cuts


def _blame(folder: Path, commit: str, path: str) -> list[str]:
    said = sources.git(folder, "blame", "--porcelain", commit, "--", path, revision=commit)
    by_line = {int(found[2]): found[1].decode() for line in said.split(b"\n") if (found := _BLAMED.match(line))}
    return [by_line[number] for number in sorted(by_line)]

"""Which records are meant by a path, a project, a time or a text, and which paths are off limits."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from npllm.types import Experience, Feedback, HeldBack, JournalRecord, Outcome, Place, Sign, Suggestion
from npllm.uris import file_path


def names(path: str) -> frozenset[str]:
    """A path as it may be written down: absolute, and with links followed. A URI stays as it is."""
    if "://" in path or path.startswith("untitled:"):
        return frozenset([path])
    absolute = os.path.normpath(Path(path).expanduser().absolute())
    return frozenset([absolute, os.path.realpath(absolute)])


def paths_of(project: str, path: str, uri: str) -> frozenset[str]:
    """Every name of a document: by its project, by its URI, links followed."""
    found = {uri}
    if uri[:5].lower() == "file:":
        found.add(os.path.normpath(file_path(uri)))
    if project:
        found.add(os.path.normpath(Path(project) / path))
    return frozenset(found | {_real(name) for name in found if name.startswith(os.sep)})


def _real(name: str) -> str:
    """A name with links followed; one that no file can have stays as it is."""
    try:
        return os.path.realpath(name)
    except ValueError:
        return name


def covered(paths: Iterable[str], limits: Collection[str]) -> bool:
    """Whether one of `paths` is, or lies below, one of `limits`."""
    return any(path == limit or path.startswith(limit.rstrip("/") + "/") for path in paths for limit in limits)


def off_limits(place: Place, limits: Collection[str]) -> bool:
    """Whether nothing is to be learned from a place."""
    return bool(limits) and covered(paths_of(place.project, place.path, place.uri), limits)


@dataclass(frozen=True, slots=True)
class Selector:
    """What is to be forgotten: all that is given must hold.

    Attributes:
        path: a file or folder (absolute), or the URI of a document that lies in none; "" = any.
        project: a workspace folder; "" = any.
        since: made then or later; None = whenever.
        text: stands in any of its texts; "" = any.
    """

    path: str = ""
    project: str = ""
    since: datetime | None = None
    text: str = ""

    @property
    def limits(self) -> frozenset[str]:
        """The paths that may be put off limits: not where a time or a text narrows what is meant."""
        if self.since is not None or self.text:
            return frozenset()
        return frozenset(name for path in (self.path, self.project) if path for name in names(path))

    def takes_place(self, project: str, path: str, uri: str) -> bool:
        """Whether a document is meant, as far as path and project say."""
        if self.project and not covered(names(project) if project else (), names(self.project)):
            return False
        return not self.path or covered(paths_of(project, path, uri), names(self.path))

    def takes(self, record: JournalRecord) -> bool:
        """Whether a record is meant. Outcomes and feedback, which have no place, by time and text alone."""
        if self.since is not None and record.created_at < self.since:
            return False
        if self.text and not any(self.text in text for text in texts(record)):
            return False
        if isinstance(record, Suggestion | Experience | HeldBack | Sign):
            return self.takes_place(record.place.project, record.place.path, record.place.uri)
        return not self.path and not self.project


def texts(record: JournalRecord) -> tuple[str, ...]:
    """All that a record holds of a person's text."""
    match record:
        case Suggestion():
            return record.text, record.prefix, record.suffix
        case Experience():
            return record.prefix, record.suffix, record.suggested, record.final_text
        case Outcome():
            return record.suggested, record.final_text
        case Feedback():
            return (record.comment,)
        case HeldBack() | Sign():
            return ()

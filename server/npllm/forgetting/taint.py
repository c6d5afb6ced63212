"""Which versions have learned from what is to be forgotten, by their manifests: of adapters, or of any other model.

A manifest's `data` names by id what a version was trained on and what stopped its training; what it was only judged by,
or had no time for, does not count (`models.manifest.learned_ids`). `project_files` names files as [project, path]. A
version whose manifest cannot be read may have learned anything, and counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from npllm.memory.forgetting import Version
from npllm.memory.places import Selector, covered, names
from npllm.models.manifest import learned_ids, read_manifest
from npllm.types import ModelError

FILES = "project_files"
MOST_BYTES = 4_000_000  # of a project's file in which a text is looked for


class Taint:
    """Answers for one act of forgetting."""

    def __init__(self, home: Path, selector: Selector) -> None:
        self._home = home
        self._selector = selector
        self._holds: dict[tuple[str, str], bool] = {}

    def of(self, versions: Sequence[Version], ids: frozenset[UUID]) -> frozenset[UUID]:
        """Ids of the versions that learned from any of these suggestions, or from files that are meant."""
        return frozenset(version.id for version in versions if self._learned(version, ids))

    def usable(self, version: Version) -> bool:
        """Whether a version's files are there: a manifest, and weights, which not all of the older ones keep."""
        return self._data(version) is not None and any((self._home / version.folder).glob("*.safetensors"))

    def _learned(self, version: Version, ids: frozenset[UUID]) -> bool:
        data = self._data(version)
        if data is None:
            return bool(ids) or self._by_files
        if ids and not ids.isdisjoint(learned_ids(data)):
            return True
        return self._by_files and any(self._file(str(project), str(path)) for project, path in data.get(FILES, ()))

    @property
    def _by_files(self) -> bool:
        """A file has no time: where one is given, only experiences are meant."""
        return self._selector.since is None

    def _data(self, version: Version) -> Mapping[str, Any] | None:
        try:
            return read_manifest(self._home / version.folder).data
        except ModelError:
            return None

    def _file(self, project: str, path: str) -> bool:
        key = (project, path)
        if key not in self._holds:
            self._holds[key] = self._meant(project, path) and self._has_text(Path(project) / path)
        return self._holds[key]

    def _meant(self, project: str, path: str) -> bool:
        if Path(project).is_absolute():
            return self._selector.takes_place(project, path, "")
        limits = [limit for given in (self._selector.project, self._selector.path) if given for limit in names(given)]
        return not limits or any(_may_be(limit, project, path) for limit in limits)

    def _has_text(self, file: Path) -> bool:
        """Whether a file holds the text now; what it once held nobody knows."""
        if not self._selector.text:
            return True
        try:
            if file.stat().st_size > MOST_BYTES:
                return False
            return self._selector.text in file.read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            return False


def _may_be(limit: str, project: str, path: str) -> bool:
    """Whether a file of a project that is known by its last name alone (an imported version) may be meant."""
    parts = PurePath(limit).parts
    if project not in parts:
        return False
    start = len(parts) - 1 - parts[::-1].index(project)
    return covered([f"{project}/{path}"], ["/".join(parts[start:])])

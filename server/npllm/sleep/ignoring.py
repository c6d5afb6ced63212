"""What a sleep does not learn from: experiences in files that are to be left alone by now, and were not then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from npllm.ignoring import of_document
from npllm.types import Experience, Place


class Ignoring:
    """The answers for one sleep: each document is looked at once.

    Args:
        listed: `memory.ignore`.
    """

    def __init__(self, listed: Sequence[str]) -> None:
        self._listed = tuple(listed)
        self._known: dict[tuple[str, str, str], bool] = {}

    def leaves_alone(self, place: Place) -> bool:
        """Whether a document is to be left alone."""
        return self._asked(place.project, place.path, place.uri)

    def leaves_alone_file(self, project: str, path: str) -> bool:
        """The same of a project's file, by its path in it."""
        return self._asked(project, path, "")

    def _asked(self, project: str, path: str, uri: str) -> bool:
        document = (project, path, uri)
        if document not in self._known:
            self._known[document] = of_document(*document, self._listed)
        return self._known[document]

    def learnable(self, experiences: Iterable[Experience]) -> list[Experience]:
        """Those in files that may be read, in the same order."""
        return [item for item in experiences if not self.leaves_alone(item.place)]

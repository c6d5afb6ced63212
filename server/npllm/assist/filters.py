"""What is not shown: empty, unsure, already there, once met with anger, or refused in the same surroundings."""

from __future__ import annotations

import re
from collections import OrderedDict
from uuid import UUID

from npllm.config import CompletionConfig
from npllm.memory.secret_shapes import PLACEHOLDER
from npllm.types import OutcomeKind

_SPACE = re.compile(r"\s+")
SHORTEST_AVOIDED = 4  # characters
MOST_REFUSED = 2000
REFUSED = (OutcomeKind.REJECTED, OutcomeKind.DISMISSED, OutcomeKind.DELETED)
SURROUNDINGS = 2  # lines before the cursor, blank ones aside


def worth_showing(text: str, mean_logprob: float, suffix: str, config: CompletionConfig) -> bool:
    """Whether a completion may be offered.

    Args:
        text: the completion.
        mean_logprob: nats per token.
        suffix: the document behind the cursor.
    """
    bare = text.strip()
    if not bare or mean_logprob < config.min_mean_logprob:
        return False
    rest_of_line = suffix.split("\n", 1)[0].strip()
    if rest_of_line and bare == rest_of_line:
        return False
    following = suffix.lstrip("\r\n").split("\n", 1)[0].strip()
    return not (text.startswith("\n") and bare == following)


class Avoided:
    """Texts that were met with anger and are not offered again in their language, and those that were refused.

    What was merely refused (rejected, dismissed, deleted) is not offered again behind the same two lines, in whatever
    file, until it is taken or written there. Compared with white space folded, so that indentation does not hide a
    repetition. A text too short to mean anything by itself (")") is avoided at its own place only, by the completion
    cache.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], set[UUID]] = {}  # and the suggestions that were met so
        self._refused: OrderedDict[tuple[str, str, str], None] = OrderedDict()  # the oldest first

    def add(self, language: str, text: str, id: UUID) -> None:
        """A suggestion was met with anger."""
        folded = _fold(text)
        if len(folded) >= SHORTEST_AVOIDED:
            self._texts.setdefault((language, folded), set()).add(id)

    def withdraw(self, language: str, text: str, id: UUID) -> None:
        """It was not, after all."""
        key = language, _fold(text)
        ids = self._texts.get(key, set())
        ids.discard(id)
        if not ids:
            self._texts.pop(key, None)

    def refuse(self, language: str, prefix: str, text: str) -> None:
        """A suggestion was refused behind `prefix`."""
        key = _surroundings(language, prefix, text)
        self._refused[key] = None
        self._refused.move_to_end(key)
        if len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)

    def take(self, language: str, prefix: str, text: str) -> None:
        """It was taken, or written, there after all."""
        self._refused.pop(_surroundings(language, prefix, text), None)

    def hear(self, language: str, prefix: str, text: str, outcome: OutcomeKind, final_text: str) -> None:
        """What became of a suggestion `text`, and what stood there in the end."""
        if outcome in REFUSED and not _fold(final_text).startswith(
            _fold(first_line(text))
        ):  # else more of it was wrong
            self.refuse(language, prefix, text)
        self.take(language, prefix, final_text)

    def covers(self, language: str, text: str, prefix: str | None = None) -> bool:
        """Whether a text is not to be offered in a language, behind `prefix` where that is given."""
        if prefix is not None and _surroundings(language, prefix, text) in self._refused:
            return True
        return (language, _fold(text)) in self._texts or PLACEHOLDER in text  # learned where a secret stood


def _fold(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _surroundings(language: str, prefix: str, text: str) -> tuple[str, str, str]:
    """A suggestion by its first line, and where it was made."""
    lines = prefix[-1000:].splitlines()  # as much as a `Trace` has
    current = "" if prefix.endswith(("\n", "\r")) or not lines else lines.pop()
    above = [folded for line in reversed(lines) if (folded := _fold(line))][:SURROUNDINGS]
    return language, "\n".join([_fold(current), *above]), _fold(first_line(text))


def first_line(text: str) -> str:
    """The first line in which something stands."""
    return next((line for line in text.splitlines() if line.strip()), "")

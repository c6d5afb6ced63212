"""What is not shown: empty, unsure, already there, or once met with anger."""

from __future__ import annotations

import re

from npllm.config import CompletionConfig
from npllm.memory.secret_shapes import PLACEHOLDER

_SPACE = re.compile(r"\s+")
SHORTEST_AVOIDED = 4  # characters


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
    """Texts that were met with anger and are not offered again in their language.

    Compared with white space folded, so that indentation does not hide a repetition. A text too short to mean
    anything by itself (")") is avoided at its own place only, by the completion cache.
    """

    def __init__(self) -> None:
        self._texts: set[tuple[str, str]] = set()

    def add(self, language: str, text: str) -> None:
        folded = _fold(text)
        if len(folded) >= SHORTEST_AVOIDED:
            self._texts.add((language, folded))

    def covers(self, language: str, text: str) -> bool:
        return (language, _fold(text)) in self._texts or PLACEHOLDER in text  # learned where a secret stood


def _fold(text: str) -> str:
    return _SPACE.sub(" ", text).strip()

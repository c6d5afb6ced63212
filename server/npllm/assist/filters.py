"""What is not worth showing: empty, unsure, already there, or once met with anger."""

from __future__ import annotations

import re

from npllm.config import CompletionConfig

_SPACE = re.compile(r"\s+")


def worth_showing(
    text: str, mean_logprob: float, suffix: str, config: CompletionConfig, avoided: frozenset[str]
) -> bool:
    """Whether a completion may be offered.

    Args:
        text: the completion.
        mean_logprob: nats per token.
        suffix: the document behind the cursor.
        avoided: normalised texts (see `normalise`) that must not be offered again.
    """
    bare = text.strip()
    if not bare or mean_logprob < config.min_mean_logprob:
        return False
    if normalise(text) in avoided:
        return False
    rest_of_line = suffix.split("\n", 1)[0].strip()
    if rest_of_line and bare == rest_of_line:
        return False
    following = suffix.lstrip("\r\n").split("\n", 1)[0].strip()
    return not (text.startswith("\n") and bare == following)


def normalise(text: str) -> str:
    """A text with its white space folded, so that indentation does not hide a repetition."""
    return _SPACE.sub(" ", text).strip()

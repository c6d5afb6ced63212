"""Training examples, made by the builder that serves: the same prompt, then what should have been written.

The loss begins at the first token of the answer and covers the token that ends it: when to stop is learned too.
"""

from __future__ import annotations

from typing import NamedTuple

from npllm.models.fim import PromptBuilder, PromptParts
from npllm.types import Snippet


class Example(NamedTuple):
    """Token ids of prompt and answer; the answer begins at `loss_start`."""

    ids: tuple[int, ...]
    loss_start: int


def encode(
    builder: PromptBuilder,
    prefix: str,
    suffix: str,
    path: str,
    target: str,
    *,
    snippets: tuple[Snippet, ...] = (),
    snippet_budget: int = 0,
    max_target_tokens: int | None = None,
) -> Example:
    """One example of at most `builder.context_tokens` tokens.

    Args: target: what should stand at the cursor. Beyond `max_target_tokens` (default: half of the context)
    it is cut, and then has no end.
    """
    most = max_target_tokens or builder.context_tokens // 2
    answer = builder.encode_middle(target)
    if len(answer) >= most:
        answer = answer[:most]
    elif builder.end_id is not None:
        answer = [*answer, builder.end_id]
    parts = PromptParts(path, prefix, suffix, snippets)
    prompt = builder.build(parts, reserve=len(answer), snippet_budget=snippet_budget).ids
    return Example((*prompt, *answer), len(prompt))

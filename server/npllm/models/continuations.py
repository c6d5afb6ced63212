"""What followed the same tokens in code that is known, mixed into what a model expects.

Where the last k tokens stood before in the person's own code, what came after them there is likely to come again. For k
in `ORDERS`, with f_k(w) the share of w among the tokens that followed the last k tokens,

    p_0(w) = the model's
    p_k(w) = (1 - lambda_k) p_{k-1}(w) + lambda_k f_k(w)    where anything followed, else p_{k-1}(w)

(interpolation after Jelinek & Mercer 1980, with a neural model in place of the shortest order; longer matches count
more. Related: kNN-LM, 1911.00172; infini-gram, 2401.17377). Nothing is trained, and the text is found where it lies:
what was written a minute ago counts at once, what was deleted is gone. Knows tokens alone, not where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

Tokens = np.ndarray[Any, np.dtype[np.int32]]

ORDERS = (1, 2, 3, 4, 6, 8, 12)
WEIGHTS = (0.045, 0.077, 0.11, 0.17, 0.24, 0.31, 0.4)  # lambda_k; fitted on four projects, see docs/experiments.md
LONGEST = ORDERS[-1]
_MOST = 20_000  # followers of an order that are counted; of more, evenly spaced ones
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
_BREAK = -1  # stands between documents


class Index:
    """Where each token stands in some documents, by what stands before it: 12 bytes a token.

    Args:
        documents: token ids by name; the name serves to leave one out.
        vocabulary: how many tokens there are.
    """

    def __init__(self, documents: Mapping[str, Tokens], vocabulary: int) -> None:
        gap = np.full(LONGEST, _BREAK, dtype=np.int32)
        parts, at = [gap], LONGEST
        self._spans: dict[str, tuple[int, int]] = {}
        for name, tokens in documents.items():
            self._spans[name] = (at, at + len(tokens))
            parts += [tokens, gap[:1]]
            at += len(tokens) + 1
        self._tokens: Tokens = np.concatenate(parts).astype(np.int32, copy=False)
        before = self._tokens[:-1]
        places = np.flatnonzero((before >= 0) & (self._tokens[1:] >= 0))
        ordered = np.lexsort((self._tokens[places - 1], before[places]))  # by the last token, then the one before it
        self._places: Tokens = (places[ordered] + 1).astype(np.int32)
        self._second: Tokens = self._tokens[self._places - 2]
        counts = np.bincount(before[places], minlength=vocabulary)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return len(self._tokens) - LONGEST - len(self._spans)

    def followers(self, context: Sequence[int], without: str | None = None) -> Iterator[Tokens]:
        """For each of `ORDERS`, as far as anything is found: the tokens that followed the last so many of `context`.

        Args:
            without: the name of a document that does not count.
        """
        if not context or context[-1] + 1 >= len(self._starts):
            return
        begin, end = int(self._starts[context[-1]]), int(self._starts[context[-1] + 1])
        counted = self._counted(self._places[begin : end : 1 + (end - begin) // _MOST], without)
        if not counted.size:
            return
        yield self._tokens[counted]
        if len(context) < 2:
            return
        second = self._second[begin:end]
        low, high = (int(np.searchsorted(second, context[-2], side)) for side in _SIDES)
        at = self._counted(self._places[begin + low : begin + high], without)
        length = 2
        for order in ORDERS[1:]:
            while length < order:
                length += 1
                if length > len(context):
                    return
                at = at[self._tokens[at - length] == context[-length]]
            if not at.size:
                return
            yield self._tokens[at[:: 1 + at.size // _MOST]]

    def _counted(self, at: Tokens, without: str | None) -> Tokens:
        """Places, those in the document `without` left out."""
        span = self._spans.get(without) if without is not None else None
        return at if span is None else at[(at < span[0]) | (at >= span[1])]


class Continuations:
    """What is known at one place. Implements `decoding.Known`.

    Args:
        before: the place's last tokens, `LONGEST` or more where there are so many.
        indexes: where to look, each with the name of the document in it that does not count.
        trust: the weights are multiplied by this; 0 = the model alone.
    """

    def __init__(self, before: Sequence[int], indexes: Sequence[tuple[Index, str | None]], trust: float = 1.0) -> None:
        self._before = tuple(before[-LONGEST:])
        self._indexes = tuple(indexes)
        self._weights = tuple(min(0.95, trust * weight) for weight in WEIGHTS)

    def mix(self, logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities [V] of what follows the place and `ids`, from a model's logits [V] for it."""
        found = self._found([*self._before, *ids][-LONGEST:])
        if not found:
            return logits.log_softmax(-1)
        kept, tokens, shares = 1.0, [], []
        for weight, followers in reversed(found):  # the longest match has the last word, and so its whole weight
            tokens.append(followers)
            shares.append(np.full(len(followers), kept * weight / len(followers), dtype=np.float32))
            kept *= 1.0 - weight
        mixed = logits.float().softmax(-1).mul_(kept)
        where = torch.from_numpy(np.concatenate(tokens).astype(np.int64)).to(mixed.device)
        mixed.index_add_(0, where, torch.from_numpy(np.concatenate(shares)).to(mixed.device))
        return mixed.clamp_(min=torch.finfo(mixed.dtype).tiny).log_()

    def _found(self, context: Sequence[int]) -> list[tuple[float, Tokens]]:
        """For each order that anything was found for: its weight and what followed, in all indexes together."""
        each: list[list[Tokens]] = [[] for _ in ORDERS]
        for index, without in self._indexes:
            for order, followers in enumerate(index.followers(context, without)):
                each[order].append(followers)
        return [
            (weight, parts[0] if len(parts) == 1 else np.concatenate(parts))
            for weight, parts in zip(self._weights, each, strict=True)
            if parts
        ]

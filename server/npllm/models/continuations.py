"""What followed the same tokens in code that is known, mixed into what a model expects.

Where the last k tokens stood before in the person's own code, what came after them there is likely to come again. For k
in `ORDERS`, first in the project and then in the document that is being written, with f(w) the share of w among the
tokens that followed the last k tokens,

    p(w) <- (1 - lambda) p(w) + lambda f(w)      where anything followed; p is the model's at first

(interpolation after Jelinek & Mercer 1980, with a neural model in place of the shortest order; related: kNN-LM,
1911.00172, infini-gram, 2401.17377). How much a match counts is learned from matches (`WEIGHTS`):

    lambda = sigmoid(b + w . x + log trust),   x = (log n, log u, log(1 - max p_0), log p_0(w*))

with n how many tokens followed, w* the one that did most often, u the share of the others among them, p_0 the model's
own. Many that agree count more, and so they do where the model does not know, or expects the same. b belongs to an
order and a source, w is one for all. Nothing is trained on the person's code, and the text is found where it lies: what
was written a minute ago counts at once, what was deleted is gone. Knows tokens alone, not where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

Tokens = np.ndarray[Any, np.dtype[np.int32]]
Counts = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]

ORDERS = (1, 2, 3, 4, 6, 8, 12)
#: w, and b by order in the project and in the document. Fitted on other projects' lines, see docs/experiments.md:
#: `python -m tests.benchmarks.continuations --fit`.
WEIGHTS = (-0.041, -0.733, 0.540, 0.149)
BIASES = (
    (-2.98, -2.22, -2.27, -2.00, -1.63, -1.31, 0.06),
    (-2.14, -2.16, -2.20, -2.30, -2.62, -1.95, -0.35),
)
LONGEST = ORDERS[-1]
_LEAST_UNSURE, _LEAST_EXPECTED = 1e-3, 1e-4
_FEW = 500  # followers; fewer are sorted, more are counted by token
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
        document: what is being written, around the place.
        project: where else to look, each index with the name of the document in it that does not count.
        trust: the weights' odds are multiplied by this; 0 = the model alone.
    """

    def __init__(
        self,
        before: Sequence[int],
        document: Index | None = None,
        project: Sequence[tuple[Index, str | None]] = (),
        trust: float = 1.0,
    ) -> None:
        self._before = tuple(before[-LONGEST:])
        self._sources = (tuple(project), () if document is None else ((document, None),))
        self._trust = trust

    def mix(self, logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities [V] of what follows the place and `ids`, from a model's logits [V] for it."""
        said = logits.log_softmax(-1)
        found = self.found(ids) if self._trust > 0 else []
        if not found:
            return said
        mixed = said.float().exp().cpu().numpy()
        surest = float(mixed.max())
        weights = [self._weight(one.features(surest, float(mixed[one.often])), one) for one in found]
        kept = 1.0
        shares = []
        for one, weight in zip(reversed(found), reversed(weights), strict=True):  # the last match has its whole weight
            shares.append(kept * weight / one.total * one.counts)
            kept *= 1.0 - weight
        mixed *= kept
        for one, share in zip(reversed(found), shares, strict=True):
            mixed[one.tokens] += share
        return torch.from_numpy(np.log(np.maximum(mixed, np.finfo(np.float32).tiny))).to(said.device, said.dtype)

    def _weight(self, features: Sequence[float], one: Followers) -> float:
        """lambda."""
        score = BIASES[one.source][one.order] + math.log(self._trust)
        score += sum(w * x for w, x in zip(WEIGHTS, features, strict=True))
        return 1.0 / (1.0 + math.exp(-score))

    def found(self, ids: Sequence[int]) -> list[Followers]:
        """What followed the place's last tokens and `ids`, by order and in each by source."""
        context = [*self._before, *ids][-LONGEST:]
        parts: list[list[list[Tokens]]] = [[[] for _ in self._sources] for _ in ORDERS]
        for source, indexes in enumerate(self._sources):
            for index, without in indexes:
                for order, followers in enumerate(index.followers(context, without)):
                    parts[order][source].append(followers)
        return [
            _counted(part, order, source)
            for order, each in enumerate(parts)
            for source, part in enumerate(each)
            if part
        ]


@dataclass(frozen=True, slots=True)
class Followers:
    """The tokens that followed somewhere, each with how often it did; `often` is the one that did most often.

    `order` is a place in `ORDERS`; `source` is 0 for the project and 1 for the document.
    """

    tokens: Counts
    counts: Counts
    total: int
    most: int
    often: int
    order: int
    source: int

    def features(self, surest: float, expected: float) -> tuple[float, float, float, float]:
        """x, where the model gives its likeliest token the probability `surest`, and `often` `expected`."""
        return (
            math.log(self.total),
            math.log((self.total - self.most + 0.5) / (self.total + 1.0)),
            math.log(max(1.0 - surest, _LEAST_UNSURE)),
            math.log(max(expected, _LEAST_EXPECTED)),
        )


def _counted(parts: Sequence[Tokens], order: int, source: int) -> Followers:
    followers = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if followers.size > _FEW:
        counts = np.bincount(followers)
        tokens = np.flatnonzero(counts)
        counts = counts[tokens]
    else:
        tokens, counts = np.unique(followers, return_counts=True)
    first = int(counts.argmax())
    return Followers(tokens, counts, int(followers.size), int(counts[first]), int(tokens[first]), order, source)

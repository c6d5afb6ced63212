"""What followed the same tokens in code that is known, mixed into what a model expects.

Where the last k tokens stood before in the person's own code, what came after them there is likely to come again. For k
in `ORDERS`, first in the project and then in the document that is being written, with f(w) the share of w among the
tokens that followed the last k tokens,

    p(w) <- (1 - lambda) p(w) + lambda f(w)      where anything followed; p is the model's at first

(interpolation after Jelinek & Mercer 1980, with a neural model in place of the shortest order; related: kNN-LM,
1911.00172, infini-gram, 2401.17377). How much a match counts, lambda, was learned from matches in other projects
(`weighing`). Nothing is trained on the person's code, and the text is found where it lies: what was written a minute
ago counts at once, what was deleted is gone. Knows tokens alone, not where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from npllm.models.weighing import ORDERS, SOURCES, Matches, Numbers, Weighing, features, shipped

Tokens = np.ndarray[Any, np.dtype[np.int32]]
Counts = np.ndarray[Any, np.dtype[np.signedinteger[Any]]]

LONGEST = ORDERS[-1]
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
        trust: the odds of what followed are multiplied by this; 0 = the model alone.
        weighing: how much a match counts; None: as npllm brings it.
    """

    def __init__(
        self,
        before: Sequence[int],
        document: Index | None = None,
        project: Sequence[tuple[Index, str | None]] = (),
        trust: float = 1.0,
        weighing: Weighing | None = None,
    ) -> None:
        self._weighing = weighing or shipped()
        self._before = tuple(before[-LONGEST:])
        self._sources = (tuple(project), () if document is None else ((document, None),))
        self._trust = trust

    def mix(self, logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities [V] of what follows the place and `ids`, from a model's logits [V] for it."""
        said = logits.log_softmax(-1)
        found = self.found(ids) if self._trust > 0 else []
        if not found:
            return said
        logs = said.float().cpu().numpy()
        mixed = np.exp(logs)
        rows = [one.level for one in found]
        weights = self._weighing(features(*levels(found, mixed, logs))[rows], self._trust)
        kept = 1.0
        shares = []
        for one, weight in zip(reversed(found), reversed(weights.tolist()), strict=True):  # the last has all its weight
            shares.append(kept * weight / one.total * one.counts)
            kept *= 1.0 - weight
        mixed *= kept
        for one, share in zip(reversed(found), shares, strict=True):
            mixed[one.tokens] += share
        return torch.from_numpy(np.log(np.maximum(mixed, np.finfo(np.float32).tiny))).to(said.device, said.dtype)

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

    `order` is a place in `ORDERS`, `source` one in `SOURCES`.
    """

    tokens: Counts
    counts: Counts
    total: int
    most: int
    often: int
    order: int
    source: int

    @property
    def level(self) -> int:
        return self.order * len(SOURCES) + self.source


def levels(
    found: Sequence[Followers], model: np.ndarray[Any, Any], logs: np.ndarray[Any, Any]
) -> tuple[Matches, Numbers, Numbers]:
    """What `weighing.features` reads, where the model gives its tokens the probabilities `model` [V], `logs` their
    logarithms."""
    matches = Matches.none()
    for one in found:
        at = one.level
        matches.total[at], matches.most[at], matches.often[at] = one.total, one.most, one.often
        matches.distinct[at], matches.once[at] = len(one.tokens), int((one.counts == 1).sum())
        matches.expected[at] = model[one.often]
    nats = -(model * np.where(model > 0, logs, 0.0)).sum()
    return matches, np.asarray(model.max()), np.asarray(nats)


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

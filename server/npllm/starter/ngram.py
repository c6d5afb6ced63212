"""The baseline that counts: an interpolated 5-gram model with modified Kneser-Ney smoothing.

    p(w | h) = max(c(h w) - D, 0) / c(h) + g(h) p(w | h'),   h' = h without its first token,   p() = 1 / V
    c: occurrences in the longest order, numbers of different left neighbours in the others
    D: D1, D2 or D3 by c; g(h) gives back what was taken off

Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1999), section 3. The n-grams of
an order are one sorted array of keys, each made of the number of its first n - 1 tokens in the order below and of its
last token: about 12 bytes for an n-gram and 4 for a context. Knows tokens only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npllm.starter.corpus import Corpus
from npllm.starter.fim import cursors
from npllm.starter.scoring import Passage, Written, until_stop
from npllm.starter.tokens import Codec

_Ids = NDArray[np.int64]
_Floats = NDArray[np.float32]

_BITS = 16  # of a token in a key
_CHARS_PER_TOKEN = 4.0
_CURSOR_EVERY = 120  # characters, as in the packed rows


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length: ascending keys, max(c - D, 0) / c(h) of each, and g(h) of each context."""

    keys: _Ids
    share: _Floats
    given_back: _Floats

    def find(self, contexts: _Ids, tokens: _Ids) -> _Ids:
        """The numbers of the n-grams, -1 for those that do not occur; a context of -1 is one that does not."""
        wanted = (contexts << _BITS) | tokens
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((contexts >= 0) & (self.keys[places] == wanted), places, -1)


class NGram:
    """A trained model. It is asked like the network, and answers from the last `order - 1` tokens alone."""

    def __init__(self, tokens: _Ids, codec: Codec, order: int = 5) -> None:
        """Count a stream of at least `order` ids. Takes about 130 bytes a token while it works, and keeps 27."""
        if len(tokens) < order:
            raise ValueError(f"{order}-grams need at least {order} tokens, not {len(tokens)}")
        self._codec, self.tokens = codec, len(tokens)
        self._orders = _count(tokens, order)

    def nats(self, passages: Sequence[Passage]) -> list[float]:
        """For each passage the sum of -log p over its judged tokens, in nats."""
        result = []
        for passage in passages:
            begin = max(0, passage.start - len(self._orders) + 1)
            ids = np.array(passage.ids[begin : passage.stop], dtype=np.int64)
            result.append(-float(np.log(self._probabilities(ids)[passage.start - begin :]).sum()))
        return result

    def write(self, prompt: Sequence[int], most: int, line: bool) -> Written:
        """The likeliest token again and again, until it stops or `most` are written."""
        return until_stop(self._codec, self._likeliest(list(prompt)), most, line)

    def _probabilities(self, ids: _Ids) -> NDArray[np.float64]:
        p = np.full(len(ids), 1.0 / self._codec.size)
        contexts = np.zeros(len(ids), dtype=np.int64)
        for order in self._orders:
            found = order.find(contexts, ids)
            share = np.where(found >= 0, order.share[found], 0.0)
            p = np.where(contexts >= 0, share + order.given_back[contexts] * p, p)
            contexts = np.concatenate([[-1], found[:-1]])
        return p

    def _likeliest(self, ids: list[int]) -> Iterator[int]:
        while True:
            p = np.full(self._codec.size, 1.0 / self._codec.size)
            for length, order in enumerate(self._orders):
                context = self._number(ids[len(ids) - length :]) if length <= len(ids) else -1
                if context < 0:
                    break
                low, high = np.searchsorted(order.keys, [context << _BITS, (context + 1) << _BITS])
                p *= order.given_back[context]
                p[order.keys[low:high] & ((1 << _BITS) - 1)] += order.share[low:high]
            ids.append(int(p.argmax()))
            yield ids[-1]

    def _number(self, ids: Sequence[int]) -> int:
        number = np.zeros(1, dtype=np.int64)
        for order, token in zip(self._orders, ids, strict=False):
            number = order.find(number, np.array([token]))
        return int(number[0])


def _count(tokens: _Ids, order: int) -> list[_Order]:
    """All orders, longest last. `numbers[j]` is the n-gram that begins at position j."""
    orders: list[_Order] = []
    numbers = np.zeros(len(tokens) + 1, dtype=np.int64)
    keys = np.zeros(1, dtype=np.int64)
    contexts = 1
    for n in range(1, order + 1):
        joined = (numbers[: len(tokens) - n + 1] << _BITS) | tokens[n - 1 :]
        before, below = keys, numbers
        keys, first, numbers, counts = np.unique(joined, return_index=True, return_inverse=True, return_counts=True)
        if n > 1:  # the different left neighbours of each shorter n-gram: those that it ends
            neighbours = np.bincount(below[1:][first], minlength=len(before))
            orders.append(_smooth(before, neighbours, contexts))
        contexts = len(before)
    orders.append(_smooth(keys, counts, contexts))
    return orders


def _smooth(keys: _Ids, counts: _Ids, contexts: int) -> _Order:
    kinds = np.minimum(counts, 3)
    taken = np.minimum(_discounts(counts)[kinds], counts)
    context = keys >> _BITS
    total = np.bincount(context, counts, contexts)
    given_back = np.bincount(context, taken, contexts) / np.maximum(total, 1)
    share = (counts - taken) / np.maximum(total[context], 1)
    return _Order(keys, share.astype(np.float32), np.where(total > 0, given_back, 1.0).astype(np.float32))


def _discounts(counts: _Ids) -> NDArray[np.float64]:
    """D by count: none of 0, D1 of 1, D2 of 2, D3 of more; 0.75 each where there is too little to estimate from."""
    n1, n2, n3, n4 = (float(np.count_nonzero(counts == k)) for k in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return np.array([0.0, 0.75, 0.75, 0.75])
    y = n1 / (n1 + 2 * n2)
    d = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    clipped: NDArray[np.float64] = np.clip(d, 0.0, np.array([0.0, 1.0, 2.0, 3.0]))
    return clipped


def sample_tokens(corpus: Corpus, codec: Codec, most: int) -> _Ids:
    """The ids of a random part of the corpus's training files, about `most` and no more: each file with its path
    before and `<|end|>` behind it, cut where cursors might stand as often as in the packed rows."""
    manifest = corpus.manifest()
    share = most * _CHARS_PER_TOKEN / max(1, manifest.bytes("train"))
    parts: list[_Ids] = []
    for name in manifest.names("train"):
        rng = random.Random(f"ngram:{name}")
        for file in corpus.read_package(name):
            if rng.random() < share:
                body = codec.encode_in_parts(file.text, cursors(file.text, _CURSOR_EVERY, rng))[0]
                parts.append(np.array([codec.file, *codec.encode(file.path + "\n"), *body, codec.end], dtype=np.int64))
    random.Random("ngram").shuffle(parts)
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])[:most]

"""Fill-in-the-middle: where an editor's cursor would cut a text, and the two orders of the parts.

Bavarian et al., "Efficient training of language models to fill in the middle" (2207.14255): PSM is
prefix-suffix-middle; SPM is its joint variant, in which the middle follows the prefix directly, so that typing only
appends. Cuts are at characters. The shapes of the middle are the editor's own: the rest of the line, whole lines,
a block, a random span.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from npllm.starter.tokens import Codec

Order = Literal["psm", "spm"]


@dataclass(frozen=True)
class Cut:
    """A text in three parts; `prefix + middle + suffix` is the text."""

    prefix: str
    middle: str
    suffix: str


def cut(text: str, rng: random.Random) -> Cut:
    """Cut a text at a shape drawn at random; a text of one short line gets a random span."""
    starts = _line_starts(text)
    shape = rng.random()
    if len(starts) < 4 or shape < 0.15:
        begin, end = _span(text, rng)
    elif shape < 0.5:
        begin, end = _rest_of_line(text, starts, rng)
    elif shape < 0.75:
        begin, end = _lines(text, starts, rng)
    else:
        begin, end = _block(text, starts, rng)
    return Cut(text[:begin], text[begin:end], text[end:])


def cursors(text: str, every: int, rng: random.Random) -> list[int]:
    """Random offsets in a text, one in so many characters, where it is encoded as if a cursor stood there.

    An infilling example has one cursor; half-typed words are too rare in a small corpus to be learned from those alone.
    """
    return sorted({rng.randrange(1, len(text)) for _ in range(len(text) // every)}) if every else []


def assemble(path: str, parts: Cut, order: Order, codec: Codec, room: int, edges: Sequence[int] = ()) -> list[int]:
    """The ids of one infilling example of at most `room` tokens; `edges` are further cursors in the prefix.

    When it is too long, text far from the cursor goes first: the prefix's end keeps two thirds of the room beside the
    middle, the suffix's start the rest; the middle is cut last, and then loses its `<|end|>` too.
    """
    head = [codec.file, *codec.encode(path + "\n")]
    prefix, middle, suffix = (
        codec.encode_in_parts(parts.prefix, edges)[0],
        codec.encode(parts.middle),
        codec.encode(parts.suffix),
    )
    keep = max(0, room - len(head) - len(middle) - 4)
    keep_prefix = min(len(prefix), max(2 * keep // 3, keep - len(suffix)))
    prefix = prefix[len(prefix) - keep_prefix :]
    suffix = suffix[: keep - keep_prefix]
    if order == "psm":
        ids = [*head, codec.prefix, *prefix, codec.suffix, *suffix, codec.middle, *middle, codec.end]
    else:
        ids = [*head, codec.prefix, codec.suffix, *suffix, codec.middle, *prefix, *middle, codec.end]
    return ids[:room]


def _line_starts(text: str) -> list[int]:
    """Offsets of the lines that hold something."""
    starts, offset = [], 0
    for line in text.split("\n"):
        if line.strip():
            starts.append(offset)
        offset += len(line) + 1
    return starts


def _line_end(text: str, offset: int) -> int:
    end = text.find("\n", offset)
    return len(text) if end < 0 else end


def _indent(text: str, start: int) -> int:
    line = text[start : _line_end(text, start)]
    return len(line) - len(line.lstrip())


def _span(text: str, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(len(text) + 1)
    length = min(int(rng.lognormvariate(4.0, 1.0)), len(text) // 2)
    return begin, min(len(text), begin + length)


def _rest_of_line(text: str, starts: list[int], rng: random.Random) -> tuple[int, int]:
    start = rng.choice(starts)
    end = _line_end(text, start)
    return rng.randrange(start + _indent(text, start), end), end


def _lines(text: str, starts: list[int], rng: random.Random) -> tuple[int, int]:
    first = rng.randrange(len(starts))
    last = min(len(starts) - 1, first + rng.choice((0, 0, 0, 1, 1, 2, 3)))
    begin = starts[first]
    if rng.random() < 0.7:
        begin += _indent(text, begin)
    return begin, _line_end(text, starts[last])


def _block(text: str, starts: list[int], rng: random.Random, most: int = 12) -> tuple[int, int]:
    """From a line to the end of its block: up to `most` following lines that are not indented less."""
    first = rng.randrange(len(starts))
    indent = _indent(text, starts[first])
    last = first
    while last + 1 < len(starts) and last - first < most and _indent(text, starts[last + 1]) >= indent:
        last += 1
    begin = starts[first] + indent
    if rng.random() < 0.5:
        begin = rng.randrange(begin, _line_end(text, starts[first]))
    return begin, _line_end(text, starts[last])

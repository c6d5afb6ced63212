"""The words by which a chunk is found: its identifiers, whole and in their parts, as numbers.

`parseHTTPHeader` and `parse_http_header` share `parse`, `http`, `header`. A term is a CRC-32: two in four billion
collide, and what is kept in memory is numbers.
"""

from __future__ import annotations

import re
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator

MOST_OF_ONE = 5  # times a term counts in a chunk
_IDENTIFIER = re.compile(r"[^\W\d]\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+")


def terms(text: str) -> Iterator[int]:
    """The terms of a text, as often as they come."""
    for word in _IDENTIFIER.findall(text):
        yield _number(word)
        parts = _PART.findall(word)
        if len(parts) > 1:
            yield from (_number(part) for part in parts if len(part) > 1)


def packed(text: str) -> bytes:
    """The terms of a chunk as sorted little-endian 32-bit numbers, each as often as it comes, `MOST_OF_ONE` at most."""
    counted = Counter(terms(text))
    found = array("I", sorted(term for term, count in counted.items() for _ in range(min(count, MOST_OF_ONE))))
    return _little(found).tobytes()


def weighted(lines: Iterable[str]) -> dict[int, float]:
    """The terms of the last lines before the cursor; each line counts a little less than the one below it."""
    found: dict[int, float] = {}
    weight = 1.0
    for line in reversed(list(lines)):
        for term in set(terms(line)):
            found[term] = max(found.get(term, 0.0), weight)
        weight *= 0.85
    return found


def _number(word: str) -> int:
    return zlib.crc32(word.lower().encode("utf-8", "replace"))


def _little(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers

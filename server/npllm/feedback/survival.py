"""How much of a suggestion stands in what is there in the end.

Tokens are compared, so that a formatter changes nothing and a renamed variable counts as a whole; their characters are
counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TOKEN = re.compile(r"\w+|[^\w\s]")
ROOM = 2000  # characters of a final text that are compared, beyond four times the suggestion's length


@dataclass(slots=True)
class Survival:
    """The survival of one suggestion, which is asked for at every save: compared only where a text has changed."""

    suggested: str = ""
    final: str = ""
    share: float = 1.0

    def of(self, suggested: str, final: str) -> float:
        """As `survival`."""
        if (suggested, final) != (self.suggested, self.final):
            self.suggested, self.final, self.share = suggested, final, survival(suggested, final)
        return self.share


def survival(suggested: str, final: str) -> float:
    """The share of the suggestion's characters (white space aside) that stand in the final text, in order: [0, 1].

    Going on behind it, also in the middle of a word, takes nothing away.
    """
    final = final[: 4 * len(suggested) + ROOM]
    if "".join(final.split()).startswith("".join(suggested.split())):
        return 1.0
    wanted, found = _TOKEN.findall(suggested), _TOKEN.findall(final)
    return common(wanted, found) / sum(map(len, wanted))


def begins(suggested: str, final: str) -> bool:
    """Whether the final text begins with the suggestion, token by token ("x" does not begin "xyz")."""
    wanted = _TOKEN.findall(suggested)
    return bool(wanted) and _TOKEN.findall(final[: 4 * len(suggested) + ROOM])[: len(wanted)] == wanted


def common(wanted: Sequence[str], found: Sequence[str]) -> int:
    """The most characters that tokens standing in both, in the same order, can have.

    A longest common subsequence (LCS) with a token's length as its weight. It is counted in the bits of one integer
    (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): V has a bit for each character of `wanted`, M_c has
    those set that equal c, and for each character c of `found`

        U = V & M_c;  V = (V + U) | (V - U)

    at whose end the zeros of V are the LCS. The i-th character of a token equals only the i-th of the same token. Then
    taking parts of tokens never gives more than taking whole ones: along a chain of tokens matched in part the i
    increase, so that together they count for one token at most.
    """
    head = 0
    while head < min(len(wanted), len(found)) and wanted[head] == found[head]:
        head += 1
    tail = 0
    while tail < min(len(wanted), len(found)) - head and wanted[-1 - tail] == found[-1 - tail]:
        tail += 1
    middle = wanted[head : len(wanted) - tail]
    places: dict[str, int] = {}
    size = 0
    for token in middle:
        places[token] = places.get(token, 0) | 1 << size
        size += len(token)
    every = ones = (1 << size) - 1
    for token in found[head : len(found) - tail]:
        if token in places:
            for mask in (places[token] << index for index in range(len(token))):
                both = ones & mask
                ones = (ones + both | ones - both) & every
    return sum(map(len, wanted)) - ones.bit_count()

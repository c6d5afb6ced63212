"""Text to the tokens that `continuations` looks up, a block at a time.

Of a document that is being typed in only the last block is new at each request; the others are remembered.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from npllm.models.codec import TextCodec
from npllm.models.continuations import LONGEST, Continuations, Index, Tokens
from npllm.models.weighing import Weighing

_BLOCK_CHARS = 4000
_BLOCKS = 512


class Reader:
    """Text to tokens, in blocks that are remembered: of a document that is being typed in only the last one is new."""

    def __init__(self, codec: TextCodec) -> None:
        self.codec = codec
        self._blocks: OrderedDict[str, Tokens] = OrderedDict()

    def tokens(self, text: str) -> Tokens:
        """The tokens of a text with plain line ends."""
        parts = [self._block(block) for block in blocks(text)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    def _block(self, block: str) -> Tokens:
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = np.array(self.codec.encode(block), dtype=np.int32)
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(block)
        return found


def blocks(text: str) -> Iterator[str]:
    """A text in pieces of whole lines, cut before lines chosen by their content, so that they stay the same when others
    change."""
    begin = at = 0
    for line in text.splitlines(keepends=True):
        if at > begin and (at - begin > _BLOCK_CHARS or zlib.crc32(line.encode("utf-8", "replace")) % 32 == 0):
            yield text[begin:at]
            begin = at
        at += len(line)
    if at > begin:
        yield text[begin:at]


def known_at(
    reader: Reader,
    above: str,
    below: str,
    vocabulary: int,
    index: Index | None = None,
    without: str | None = None,
    trust: float = 1.0,
    weighing: Weighing | None = None,
) -> Continuations:
    """What is known at a place: from the document around the cursor, and from an index.

    Args:
        above, below: the document's text before and after the cursor, with plain line ends.
        without: the name of a document in the index that does not count: this one.
        trust, weighing: see `Continuations`.
    """
    tokens = reader.tokens(above)
    document = Index({"above": tokens, "below": reader.tokens(below)}, vocabulary)
    project = [] if index is None else [(index, without)]
    return Continuations(tokens[-LONGEST:].tolist(), document, project, trust, weighing)

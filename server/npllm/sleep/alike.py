"""What would be remembered at a place, found among the experiences of a sleep: adapters learn from prompts as served.

Awake, about every other prompt holds pieces that the person wrote in similar places. An adapter that never saw such
prompts speaks against what the base copies from them. So a share of the examples is read with pieces that share the
most identifiers with the lines before the cursor (BM25, as in the search of a project's code). They come from what this
sleep learns in any case, and nothing else is read for it. A piece is no target. Knows no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from uuid import UUID

from npllm.memory.index.sparse import SparseIndex
from npllm.memory.index.terms import packed, weighted
from npllm.memory.retrieval import on_screen
from npllm.memory.texts import snippet_text
from npllm.types import Experience, Snippet

LINES = 12  # before the cursor, that have something in them
CANDIDATES = 4  # per wanted piece: what is on the screen already, or twice, falls away


class Alike:
    """One context's, in one sleep.

    Args:
        experiences: whose texts are the pieces.
        most: pieces of a prompt; `budget`: tokens that they may take (`memory.snippets`, `memory.token_budget`).
        share: of the places, those at which something is remembered, told by their text: always the same.
    """

    def __init__(self, experiences: Sequence[Experience], *, most: int, budget: int, share: float) -> None:
        self.budget = budget
        self._most, self._share = most, share
        self._pieces = [
            Snippet(one.place.path, snippet_text(one.prefix, one.final_text), 1.0, one.id, one.reward)
            for one in experiences
        ]
        self._index = SparseIndex([packed(piece.text) for piece in self._pieces])

    def pieces(self, prefix: str, suffix: str, own: UUID | None = None) -> tuple[Snippet, ...]:
        """What is remembered between two texts, the most alike first.

        Args:
            own: the experience that was made there, which is not.
        """
        drawn = zlib.crc32(prefix.encode("utf-8", "replace")) % 1000
        if drawn >= 1000 * self._share or self._most < 1:
            return ()
        lines = [line for line in prefix[-4000:].splitlines() if line.strip()][-LINES:]
        chosen: dict[str, Snippet] = {}
        for number, _ in self._index.search(weighted(lines), self._most * CANDIDATES):
            piece = self._pieces[number]
            key = "".join(piece.text.split())
            if piece.experience_id != own and key and key not in chosen and not on_screen(piece, prefix, suffix):
                chosen[key] = piece
            if len(chosen) == self._most:
                break
        return tuple(chosen.values())

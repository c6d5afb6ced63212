"""What is not to be offered again: what the person said never again about, and what was refused at a place."""

from __future__ import annotations

from npllm.assist.filters import MOST_REFUSED, REFUSED, Avoided
from npllm.memory.cache import CompletionCache
from npllm.memory.store import Store
from npllm.types import Outcome, OutcomeKind, Place, Suggestion


class Unwanted:
    """One per server process.

    Args:
        cache: what is kept ready; a refused text goes from there, too.
    """

    def __init__(self, cache: CompletionCache) -> None:
        self._cache = cache
        self._avoided = Avoided()

    async def read(self, store: Store) -> None:
        """What earlier server processes heard.

        Raises:
            StoreError: the database does not answer.
        """
        for item in await store.avoided(None, 1000):
            self._avoided.add(item.place.language, item.suggested, item.id)
        for one in reversed(await store.traces(None, limit=MOST_REFUSED)):
            self._avoided.hear(one.place.language, one.prefix, one.suggested, one.outcome, one.final_text)

    def forget(self) -> None:
        """Something was forgotten on purpose: all goes; `read` it anew."""
        self._avoided = Avoided()

    def avoids(self, language: str, text: str) -> bool:
        """Whether the person never wants to see its like again."""
        return self._avoided.covers(language, text)

    def covers(self, place: Place, text: str, behind: str | None) -> bool:
        """The same, or it was refused behind `behind` (None: that does not count) or at this place."""
        return self._avoided.covers(place.language, text, behind) or self._cache.rejected(place, text)

    def hear(self, suggestion: Suggestion, outcome: Outcome) -> None:
        """What became of a suggestion."""
        if outcome.kind in REFUSED:
            self._cache.reject(suggestion.place, suggestion.text)
        language, prefix = suggestion.place.language, suggestion.prefix
        self._avoided.hear(language, prefix, suggestion.text, outcome.kind, outcome.final_text)

    def add(self, suggestion: Suggestion) -> None:
        """Never its like again."""
        self._avoided.add(suggestion.place.language, suggestion.text, suggestion.id)
        self._cache.reject(suggestion.place, suggestion.text)

    def withdraw(self, suggestion: Suggestion, outcome: OutcomeKind | None) -> None:
        """It was not meant so; refused it may have been all the same."""
        self._avoided.withdraw(suggestion.place.language, suggestion.text, suggestion.id)
        if outcome not in REFUSED:
            self._cache.allow(suggestion.place, suggestion.text)

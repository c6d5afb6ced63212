"""Short-term memory: typing through a suggestion, and not offering again what was rejected."""

from __future__ import annotations

import pytest

from npllm.memory.cache import CompletionCache
from tests.fixtures_memory import make_place, make_suggestion

PREFIX = "def add(values):\n    "
SUFFIX = "\n\nprint(1)\n"
TEXT = "return sum(values)"


def lookup(cache: CompletionCache, typed: str, *, suffix: str = SUFFIX, prefix: str = PREFIX) -> str | None:
    place = make_place(offset=len(prefix) + len(typed))
    found = cache.lookup(place, prefix + typed, suffix)
    return None if found is None else found[1]


@pytest.fixture
def cache() -> CompletionCache:
    made = CompletionCache()
    made.put(make_place(offset=len(PREFIX)), PREFIX, SUFFIX, make_suggestion(text=TEXT))
    return made


def test_the_rest_is_served_while_the_person_types_through(cache: CompletionCache) -> None:
    for length in range(len(TEXT)):
        assert lookup(cache, TEXT[:length]) == TEXT[length:]
    assert lookup(cache, TEXT[:3]) == TEXT[3:]  # backspace
    assert lookup(cache, TEXT) is None  # nothing is left
    assert lookup(cache, "raise") is None
    assert lookup(cache, "", prefix=PREFIX[:-1]) is None  # taken back more than was typed


def test_a_different_text_around_the_cursor_is_a_different_place(cache: CompletionCache) -> None:
    assert lookup(cache, "re", suffix=")" + SUFFIX) is None
    assert lookup(cache, "re", prefix="def sub(values):\n    ") is None
    place = make_place(offset=len(PREFIX), uri="file:///other.py")
    assert cache.lookup(place, PREFIX, SUFFIX) is None


def test_only_the_end_of_a_long_prefix_counts(cache: CompletionCache) -> None:
    long = "x = 1\n" * 1000 + PREFIX
    cache.put(make_place(offset=len(long)), long[-2000:], SUFFIX, make_suggestion(text=TEXT))
    found = cache.lookup(make_place(offset=len(long) + 2), (long + "re")[-1000:], SUFFIX)
    assert found is not None and found[1] == TEXT[2:]


def test_the_newest_suggestion_that_fits_is_served(cache: CompletionCache) -> None:
    newer = make_suggestion(text="return total(values)")
    cache.put(make_place(offset=len(PREFIX)), PREFIX, SUFFIX, newer)
    assert lookup(cache, "return ") == "total(values)"
    assert lookup(cache, "return s") == "um(values)"


def test_what_was_rejected_is_not_offered_at_that_place_again(cache: CompletionCache) -> None:
    place = make_place(offset=len(PREFIX))
    cache.reject(place, TEXT)
    assert cache.rejected(place, TEXT + "\n") and lookup(cache, "") is None
    assert not cache.rejected(make_place(offset=3), TEXT)


def test_suggestions_expire_and_are_forgotten(cache: CompletionCache) -> None:
    now = [0.0]
    timed = CompletionCache(expires_s=10, clock=lambda: now[0])
    timed.put(make_place(offset=len(PREFIX)), PREFIX, SUFFIX, make_suggestion(text=TEXT))
    now[0] = 9.0
    assert lookup(timed, "re") is not None
    now[0] = 11.0
    assert lookup(timed, "re") is None
    cache.invalidate(make_place().uri)
    assert lookup(cache, "re") is None

"""How much of a suggestion stands: exact, and cheap for long and repetitive texts."""

from __future__ import annotations

import difflib
import functools
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.feedback import survival
from npllm.feedback.survival import Survival, common

TOKENS = st.lists(st.sampled_from(["a", "bb", "ccc", "(", ")"]), max_size=9).map(tuple)


@functools.cache
def most(wanted: tuple[str, ...], found: tuple[str, ...]) -> int:
    """The definition."""
    if not wanted or not found:
        return 0
    both = len(wanted[0]) + most(wanted[1:], found[1:]) if wanted[0] == found[0] else 0
    return max(both, most(wanted[1:], found), most(wanted, found[1:]))


@settings(max_examples=500, deadline=None)
@given(TOKENS, TOKENS)
def test_the_characters_of_the_heaviest_common_subsequence(wanted, found):
    assert common(wanted, found) == most(wanted, found)


def test_what_stands_is_not_missed_for_a_longer_run_elsewhere():
    """A greedy comparison takes the run of three signs, and loses the long name."""
    assert common(("(", ")", ";", "a_long_name"), ("a_long_name", "(", ")", ";")) == len("a_long_name")


def test_long_repetitive_texts_cost_a_fraction_of_a_comparison_of_all_pairs():
    wanted, found = list("(x,y),") * 120, list("[x,z],") * 120
    started = time.process_time()
    matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
    sum(block.size for block in matcher.get_matching_blocks())
    pairs = time.process_time() - started
    started = time.process_time()
    assert common(wanted, found) == 3 * 120
    assert time.process_time() - started < pairs / 5


def test_it_is_compared_only_where_a_text_has_changed(monkeypatch):
    calls = []
    real = survival.common
    monkeypatch.setattr(survival, "common", lambda *given: calls.append(given) or real(*given))
    kept = Survival()
    assert [kept.of("f(a)", final) for final in ("f(b)", "f(b)", "g(c)", "g(c)")] == [0.75, 0.75, 0.5, 0.5]
    assert len(calls) == 2
    assert kept.of("f(", "g(c)") == 0.5
    assert len(calls) == 3


def test_nothing_asked_for_stands():
    assert Survival().of("", "") == 1.0

"""When to be silent: chances counted from a history, refusals in a row, the rhythm of typing."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.assist.comments import in_comment
from npllm.config import PacingConfig
from npllm.feedback.chance import Chance, traits
from npllm.feedback.pacing import Pacer, drawn, languages
from npllm.types import Outcome, OutcomeKind, new_id

K = OutcomeKind


def of(**changes: object) -> dict[str, str]:
    given: dict[str, object] = {
        "text": "compute(1)", "mean_logprob": -0.4, "language": "python", "source": "model",
        "prefix": "x = ", "suffix": "\n",
    }  # fmt: skip
    return traits(**{**given, **changes})  # type: ignore[arg-type]


def outcome(suggestion_id, kind: OutcomeKind) -> Outcome:
    return Outcome(new_id(), suggestion_id, kind, "", "", 0.0, 0.0, datetime.now(UTC))


def tell(pacer: Pacer, kind: OutcomeKind, now: float = 0.0) -> None:
    made = new_id()
    pacer.weigh(made, of())
    pacer.outcome(outcome(made, kind), now)


class Person:
    """Takes what the model is sure of, likes Go less, and hardly ever takes a long text."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def case(self) -> tuple[dict[str, str], float]:
        sure = self.random.choice((-1.8, -0.8, -0.35, -0.15, -0.02))
        language = self.random.choice(("python", "python", "go"))
        text = self.random.choice(("x", "compute(1)", "a" * 50))
        drawn = 0.5 + 1.2 * (sure + 0.6) - (language == "go") - 1.5 * (len(text) > 40)
        return of(mean_logprob=sure, language=language, text=text), 1.0 / (1.0 + math.exp(-drawn))


@pytest.mark.parametrize("seed", range(3))
def test_chances_are_calibrated_and_say_more_than_the_plain_share(seed):
    person, chance = Person(seed), Chance()
    loss, plain, cells = 0.0, 0.0, {}
    taken_before = 0
    for number in range(3000):
        kind, true = person.case()
        taken = person.random.random() < true
        if number >= 1000:
            seen = chance.with_lately(kind)
            said, share = chance.estimate(seen), taken_before / number
            loss -= math.log(said if taken else 1 - said)
            plain -= math.log(share if taken else 1 - share)
            cell = cells.setdefault(min(int(said * 5), 4), [0, 0.0, 0])
            cell[0] += 1
            cell[1] += said
            cell[2] += taken
        chance.count(chance.with_lately(kind), taken)
        taken_before += taken
    assert loss < 0.9 * plain
    for size, said, taken in cells.values():
        if size >= 100:
            assert said / size == pytest.approx(taken / size, abs=0.1)


def test_where_traits_say_nothing_the_chance_is_the_plain_share():
    noise, chance = random.Random(0), Chance()
    for _ in range(2000):
        kind, _ = Person(noise.randrange(10**6)).case()
        chance.count(chance.with_lately(kind), noise.random() < 0.3)
    assert chance.weight <= 0.2
    assert chance.estimate(chance.with_lately(of())) == pytest.approx(0.3, abs=0.08)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=200))
def test_a_chance_is_one_whatever_happened(history):
    chance = Chance()
    for taken in history:
        chance.count(chance.with_lately(of()), taken)
        assert 0 < chance.estimate(chance.with_lately(of())) < 1
    assert chance.outcomes == len(history)


def test_nothing_is_held_back_before_enough_is_known():
    pacer = Pacer(PacingConfig(audit_share=0.0, quiet_after=0))
    for _ in range(49):
        tell(pacer, K.REJECTED)
    assert pacer.weigh(new_id(), of()).show
    tell(pacer, K.REJECTED)
    verdict = pacer.weigh(new_id(), of())
    assert (verdict.show, verdict.audited) == (False, False)
    assert verdict.chance is not None and verdict.chance < 0.25


def test_what_is_likely_to_be_taken_is_shown():
    pacer = Pacer(PacingConfig(audit_share=0.0))
    for _ in range(60):
        tell(pacer, K.ACCEPTED)
    assert pacer.weigh(new_id(), of()).show


def test_some_are_shown_all_the_same_and_marked():
    pacer = Pacer(PacingConfig(audit_share=0.05, quiet_after=0))
    for _ in range(60):
        tell(pacer, K.REJECTED)
    verdicts = [pacer.weigh(new_id(), of()) for _ in range(4000)]
    shown = [verdict for verdict in verdicts if verdict.show]
    assert all(verdict.audited for verdict in shown)
    assert len(shown) / len(verdicts) == pytest.approx(0.05, abs=0.015)


def test_the_draw_belongs_to_the_suggestion():
    made = new_id()
    assert drawn(made) == drawn(made)
    assert 0 <= drawn(made) < 1


def test_what_was_never_seen_and_what_was_said_before_count_for_nothing():
    pacer = Pacer(PacingConfig())
    made = new_id()
    pacer.weigh(made, of())
    for kind in (K.UNSEEN, K.SUPERSEDED):
        pacer.outcome(outcome(made, kind), 0.0)
    assert pacer.chance.outcomes == 0
    for kind in (K.REJECTED, K.ACCEPTED, K.DELETED):
        pacer.outcome(outcome(made, kind), 0.0)
    assert (pacer.chance.outcomes, pacer.refusals) == (1, 1)


def test_switched_off_it_holds_nothing_back():
    pacer = Pacer(PacingConfig(enabled=False, audit_share=0.0))
    for _ in range(100):
        tell(pacer, K.REJECTED)
    assert pacer.weigh(new_id(), of()).show and not pacer.quiet(1.0)
    assert pacer.wait(0.0) == 0.0


def test_quiet_after_refusals_in_a_row_and_back_after_an_accept():
    pacer = Pacer(PacingConfig(quiet_after=3, quiet_s=60.0))
    for kind in (K.REJECTED, K.DISMISSED, K.IGNORED):
        tell(pacer, kind)
    assert not pacer.quiet(1.0)  # being left alone is no refusal
    tell(pacer, K.REJECTED)
    assert pacer.quiet(59.0) and not pacer.quiet(61.0)
    tell(pacer, K.REJECTED, now=100.0)
    assert pacer.quiet(219.0) and not pacer.quiet(221.0)
    tell(pacer, K.PARTIALLY_ACCEPTED, now=150.0)
    assert not pacer.quiet(151.0)
    tell(pacer, K.REJECTED, now=152.0)
    assert not pacer.quiet(153.0)


def test_quiet_is_never_longer_than_a_quarter_of_an_hour():
    pacer = Pacer(PacingConfig())
    for _ in range(60):
        tell(pacer, K.REJECTED)
    assert pacer.quiet(899.0) and not pacer.quiet(901.0)


def test_the_wait_is_this_person_s_rhythm_and_ends_with_a_pause():
    pacer = Pacer(PacingConfig(debounce_ms=500))
    now = 0.0
    for _ in range(7):
        pacer.key(now)
        now += 0.2
    assert pacer.wait(now - 0.2) == 0.0  # not known yet
    for _ in range(20):
        pacer.key(now)
        now += 0.2
    last = now - 0.2
    assert pacer.wait(last) == pytest.approx(0.2)
    assert pacer.wait(last + 0.15) == pytest.approx(0.05)
    assert pacer.wait(last + 0.5) == 0.0
    pacer.config = PacingConfig(debounce_ms=50)
    assert pacer.wait(last) == pytest.approx(0.05)


def test_a_pause_is_not_part_of_the_rhythm():
    pacer = Pacer(PacingConfig(debounce_ms=1000))
    for number in range(100):
        pacer.key(number * 5.0)
    assert pacer.wait(495.0) == 0.0


def test_languages_in_a_setting():
    assert languages(" markdown, Plaintext ,,") == {"markdown", "plaintext"}


@pytest.mark.parametrize(
    ("language", "prefix", "inside"),
    [
        ("python", "x = 1  # what ", True),
        ("python", "# don't ", True),
        ("python", "x = '# ", False),
        ("python", "x = 1\n", False),
        ("python", "# above\nx", False),
        ("shellscript", 'if [ "$#" -gt 1', False),
        ("shellscript", "echo $#", False),
        ("typescript", "const url = 'http://x'", False),
        ("typescript", "a();// b", True),
        ("c", "/* one\n two ", True),
        ("c", "/* one */ int ", False),
        ("c", 'puts("/* ', False),
        ("html", "<p><!-- a ", True),
        ("sql", "SELECT 1 -- one", True),
        ("sql", "SELECT 2--", False),
        ("json", "// no comments here", False),
    ],
)
def test_in_a_comment(language, prefix, inside):
    assert in_comment(language, prefix) is inside

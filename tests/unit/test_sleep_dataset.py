"""What is learned, what is replayed, and what is kept apart to judge by."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from npllm.config import SleepConfig
from npllm.memory.replay import Drawn
from npllm.sleep.dataset import Part, distinct, divide, file_of, teaches, weight
from npllm.sleep.duplicates import NearlySame
from npllm.types import Decision, Experience, OutcomeKind
from tests.fixtures_sleep import MORNING, experience

CONFIG = SleepConfig(holdout_share=0.2, min_holdout=4, new_share=0.7, epochs=3)


def morning(count: int, files: int, *, days_ago: int = 0) -> list[Experience]:
    start = MORNING - timedelta(days=days_ago)
    return [
        experience(i, path=f"f{i % files}.py", prefix=f"x = {i}\n", final=f"y{days_ago} = {i}", start=start)
        for i in range(count)
    ]


def drawn(items: list[Experience]) -> list[Drawn]:
    """As the database draws them, all alike."""
    return [Drawn(item, 1.0, 1.0, (number + 1) / len(items), 0, len(items)) for number, item in enumerate(items)]


def part(*args: object, **kwargs: object) -> Part:
    made = divide(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(made, Part)
    return made


def ids(items: tuple[Experience, ...]) -> set[object]:
    return {item.id for item in items}


@pytest.mark.parametrize("files", [1, 2, 7, 40])
@pytest.mark.parametrize("seed", ["a", "b"])
def test_held_out_texts_are_in_other_files_or_later(files: int, seed: str) -> None:
    made = part(morning(100, files), [], CONFIG, seed=seed)
    assert 18 <= len(made.held_out) <= 22
    assert len(made.learn) + len(made.inner) + len(made.held_out) == 100
    latest: dict[str, object] = {}
    for item in (*made.learn, *made.inner):
        latest[file_of(item)] = max(item.created_at, latest.get(file_of(item), item.created_at))  # type: ignore[type-var]
    for item in made.held_out:
        assert item.created_at >= latest.get(file_of(item), MORNING)  # type: ignore[operator]
    if files == 7:
        assert any(file_of(item) not in latest for item in made.held_out), "some whole files are held out"
        assert len({file_of(item) for item in made.held_out}) == 7, "and no file speaks for all"


def test_of_what_an_earlier_sleep_had_no_time_for_it_held_out_its_part() -> None:
    config = replace(CONFIG, epochs=1)
    day = morning(100, 7)
    left = [item.id for item in day[:80]]
    assert len(part(day, [], config, seed="s").held_out) == 20
    assert len(part(day, [], config, seed="s", left=left).held_out) == 4
    assert len(part(day[:80], [], config, seed="s", left=left).held_out) == config.min_holdout, (
        "so many it takes to judge"
    )


def test_the_last_file_of_the_day_does_not_speak_for_all() -> None:
    day = [
        experience(i, path=f"f{i // 10}.py", prefix=f"x = {i}\n", final=f"y = {i}") for i in range(100)
    ]  # one file after the other
    made = part(day, [], replace(CONFIG, epochs=1), seed="a")
    late = [item for item in made.held_out if any(file_of(item) == file_of(other) for other in made.learn)]
    assert len(late) == 10
    assert len({file_of(item) for item in late}) >= 8


def test_a_single_pass_needs_nothing_to_decide_when_to_stop() -> None:
    assert part(morning(120, 9), [], replace(CONFIG, epochs=1), seed="s").inner == ()


def test_no_experience_has_two_roles() -> None:
    made = part(morning(120, 9), drawn(morning(60, 9, days_ago=1)), CONFIG, seed="s")
    roles = [ids(made.learn), ids(made.replay), ids(made.inner), ids(made.held_out)]
    assert sum(map(len, roles)) == len(set.union(*roles))
    assert len(made.inner) == 12


def test_seventy_new_to_thirty_old() -> None:
    old = drawn(morning(200, 5, days_ago=1))
    made = part(morning(100, 5), old, CONFIG, seed="s")
    share = len(made.learn) / (len(made.learn) + len(made.replay))
    assert share == pytest.approx(0.7, abs=0.01)
    assert sum(made.importance.values()) / len(made.replay) == pytest.approx(1.0)
    assert not part(morning(100, 5), old, replace(CONFIG, new_share=1.0), seed="s").replay
    assert not part(morning(100, 5), old, replace(CONFIG, replay="off"), seed="s").replay
    uniform = part(morning(100, 5), old, replace(CONFIG, replay="uniform"), seed="s")
    assert len(uniform.replay) == len(made.replay)
    assert uniform.importance == {}


def test_what_is_held_out_is_not_replayed_either() -> None:
    new = morning(100, 7)
    rewritten = [
        experience(
            i, path=item.place.path, prefix=item.prefix, final=item.final_text, start=MORNING - timedelta(days=1)
        )
        for i, item in enumerate(new)
    ]
    made = part(new, drawn([*rewritten, *morning(200, 7, days_ago=2)]), CONFIG, seed="s")
    learned = {file_of(item) for item in (*made.learn, *made.inner)}
    whole = {file_of(item) for item in made.held_out} - learned
    assert whole
    assert made.replay
    assert not {file_of(item) for item in made.replay} & whole, "nor anything else of a file that is held out whole"
    held_out = {item.final_text for item in made.held_out}
    assert not held_out & {item.final_text for item in made.replay}


def test_what_an_earlier_sleep_held_out_is_never_learned_nor_anything_nearly_like_it() -> None:
    day = [
        experience(
            i, path=f"f{i % 7}.py", prefix=f"def job_{i}(first, second):\n    ", final=f"return first + work_{i}()"
        )
        for i in range(100)
    ]
    apart = day[::10]
    retyped = [
        experience(i, path="moved.py", prefix=item.prefix, final=item.final_text + "  # again", start=item.created_at)
        for i, item in enumerate(apart)
    ]
    rest = [item for item in day if item not in apart]
    made = part([*rest, *retyped[:5]], drawn(retyped[5:]), CONFIG, seed="s", apart=apart)
    assert {item.id for item in (*made.learn, *made.replay, *made.inner, *made.held_out)} == {item.id for item in rest}


def test_near_copies_are_learned_once_the_latest_and_rows_of_a_table_are_no_copies() -> None:
    head = "class Keys:\n    names = {\n"
    rows = [experience(i, prefix=head + "        ", final=f'"key_{i}": Binding("name_{i}", {i}),') for i in range(20)]
    near = NearlySame(rows[:10])
    assert not any(near.seen(row) for row in rows[10:])
    copied = experience(99, path="copy.py", prefix=head + "        ", final='"key_3": Binding("name_3",  3),')
    assert near.seen(copied)
    elsewhere = experience(98, prefix="def other(self):\n    for a in b:\n        ", final=rows[3].final_text)
    assert not near.seen(elsewhere)
    new = [*morning(60, 5), *rows, copied]
    made = part(new, [], CONFIG, seed="s")
    used = {item.id for item in made.all}
    assert copied.id in used
    assert rows[3].id not in used
    assert len(used) == len(new) - 1


def test_a_suggestion_that_was_not_wanted_is_kept_where_nothing_was_written_instead() -> None:
    deleted = replace(experience(final="", suggested="theirs(a)"), outcome=OutcomeKind.DELETED)
    discarded = replace(deleted, id=experience().id, decision=Decision.DISCARD)
    unseen = replace(deleted, id=experience().id, outcome=OutcomeKind.UNSEEN)
    nothing = replace(deleted, id=experience().id, suggested=" ")
    made = part([*morning(60, 5), deleted, unseen, nothing], drawn([discarded]), CONFIG, seed="s")
    assert {item.id for item in made.negatives} == {deleted.id, discarded.id}
    assert not made.replay


def test_so_many_are_held_out_and_no_more() -> None:
    config = replace(CONFIG, min_holdout=30, max_holdout=40, epochs=1)
    assert divide(morning(59, 5), [], config, seed="s") == 60
    assert [len(part(morning(n, 5), [], config, seed="s").held_out) for n in (60, 100, 180, 600)] == [30, 30, 36, 40]


def test_the_same_seed_divides_the_same_way_and_another_one_does_not() -> None:
    new, old = morning(60, 12), morning(60, 12, days_ago=1)
    assert divide(new, drawn(old), CONFIG, seed="s") == divide(reversed(new), drawn(old), CONFIG, seed="s")
    assert divide(new, drawn(old), CONFIG, seed="s") != divide(new, drawn(old), CONFIG, seed="t")


def test_too_few_to_judge_by_must_wait() -> None:
    assert divide(morning(7, 2), drawn(morning(100, 2, days_ago=1)), CONFIG, seed="s") == 8
    made = part(morning(8, 2), [], CONFIG, seed="s")
    assert (len(made.learn), len(made.held_out), made.inner) == (4, 4, ())


@pytest.mark.parametrize("decision", list(Decision))
def test_the_persons_own_text_is_learned_whatever_the_decision(decision: Decision) -> None:
    assert teaches(experience(final="mine()", suggested="theirs()", decision=decision, relevance=0.0))


@pytest.mark.parametrize("final", ["theirs(a,  b)", "theirs(a, b)  # left standing", "if x:\n    theirs(a, b)\n"])
def test_an_avoided_text_is_never_a_positive_example(final: str) -> None:
    assert not teaches(experience(final=final, suggested="theirs(a, b)", decision=Decision.AVOID))
    assert teaches(experience(final=final, suggested="theirs(a, b)", decision=Decision.DISCARD))


def test_a_short_avoided_text_does_not_forbid_all_that_contains_it() -> None:
    assert teaches(experience(final="compute(maximum)", suggested="x", decision=Decision.AVOID))


def test_nothing_written_teaches_nothing() -> None:
    assert not teaches(experience(final=" \n "))


def test_the_reward_weighs_and_never_silences() -> None:
    weights = [weight(experience(relevance=relevance)) for relevance in (0.0, 0.5, 1.0, 7.0)]
    assert weights == [0.75, 1.0, 1.25, 1.25]


def test_of_copies_at_one_place_the_latest_counts() -> None:
    first = experience(1, prefix="a = 1\n", final="b = 2")
    typed_on = experience(2, prefix="a = 1\nb", final=" = 2")
    elsewhere = experience(3, path="other.py", prefix="a = 1\n", final="b = 2")
    assert distinct([elsewhere, typed_on, first]) == [typed_on, elsewhere]

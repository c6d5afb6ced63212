"""Days, arms and figures of the ablation, without models."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from npllm import types
from npllm.evaluation.ablation import arms, command, days, figures, history, options, table
from npllm.evaluation.ablation.arms import Shuffled
from npllm.evaluation.ablation.desk import day_of, repeatable_ids
from npllm.evaluation.ablation.exam import Row, general
from npllm.evaluation.ablation.history import History
from npllm.evaluation.ablation.life import Lived
from npllm.evaluation.sources import EvaluationError, Tree
from npllm.starter import sources as reserved


def grown(count: int = 4, files: int = 24) -> History:
    """Files that gain five lines a day; every one moves to another folder on the second day."""

    def state(day: int) -> Tree:
        folder = "old" if day < 2 else "new"
        texts = {
            f"{folder}/part{i}.py": "".join(f"value_{i}_{k} = compute({k})\n" for k in range(5 * day + 5))
            for i in range(files)
        }
        return Tree(str(day), texts)

    return History("grown", tuple(state(day) for day in range(count)))


def test_what_lies_apart_is_never_seen() -> None:
    made = days.make(grown(), days=3, morning=20, held_out=12, seed=1)
    assert len(made) == 3
    apart = {Path(visit.path).name for day in made for visit in day.apart}
    assert apart
    for day in made:
        assert not apart & {Path(visit.path).name for visit in (*day.morning, *day.going_on)}
        assert not apart & {Path(path).name for path in day.disk}
        asked = {(visit.path, ask.number) for visit in day.morning for ask in visit.asks}
        assert not asked & day.clusters.keys()
        assert sum(len(visit.asks) for visit in (*day.going_on, *day.apart)) == len(day.clusters) > 0
    again = days.make(grown(), days=3, morning=20, held_out=12, seed=1)
    assert [day.morning for day in again] == [day.morning for day in made]
    other = days.make(grown(), days=3, morning=20, held_out=12, seed=2)
    assert [day.morning for day in other] != [day.morning for day in made]


def test_cells_with_other_general_code_are_other_cells() -> None:
    """Another Python has another standard library; its lines are compared with no other one's."""
    sizes, lines = [60, 40, 2, ".py"], general(20)
    key = command.shared_key({}, sizes, lines)
    assert key == command.shared_key({}, sizes, general(20))
    first, *rest = lines
    elsewhere = dataclasses.replace(first, asks=tuple(dataclasses.replace(a, number=a.number + 1) for a in first.asks))
    assert command.shared_key({}, sizes, [elsewhere, *rest]) != key
    assert command.shared_key({"sleep.nice": 3}, sizes, lines) != key
    assert command.shared_key({}, [61, *sizes[1:]], lines) != key


def test_a_day_without_added_lines_is_refused() -> None:
    still = History("still", (Tree("1", {"a.py": "x = 1\n"}), Tree("2", {"a.py": "x = 1\n"})))
    with pytest.raises(EvaluationError, match="too little was added between 1 and 2"):
        days.make(still, days=1, morning=10, held_out=5, seed=0)


@pytest.mark.parametrize(
    ("added", "count", "wanted", "whole", "expected"),
    [
        ([9, 5, 5, 5, 5], 2, 10, False, [1, 3, 5]),  # from the end backwards, until a day has enough
        ([1, 2, 8, 1, 9], 2, 8, False, [2, 4, 5]),
        ([9, 1, 1, 1, 1], 2, 100, False, [1, 3, 5]),  # too short a history: about equal days
        ([1, 1, 1, 1], 2, 1, True, [0, 2, 4]),
        ([5], 2, 1, False, [1]),  # nothing but the first state
    ],
)
def test_commits_are_gathered_into_days(
    added: list[int], count: int, wanted: int, whole: bool, expected: list[int]
) -> None:
    assert history._cuts(added, count, wanted, whole=whole) == expected


def test_a_repository_gives_days_and_the_commits_of_lines(tmp_path: Path) -> None:
    def git(*words: str, day: int = 1) -> str:
        date = f"2026-03-0{day}T12:00:00Z"
        who = {f"GIT_{role}_{what}": "a" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        command = ["git", "-C", str(tmp_path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env={**who, **dates}).stdout.strip()

    git("init", "-q")
    ids = []
    for day, part in ((1, "a"), (2, "b"), (2, "c"), (3, "d")):
        with (tmp_path / "code.py").open("a") as file:
            file.write("".join(f"{part}_{k} = {k}\n" for k in range(6)))
        git("add", "-A", day=day)
        git("commit", "-qm", part, day=day)
        ids.append(git("rev-parse", "HEAD"))
    made = history.repository(str(tmp_path), tmp_path / "cache", (".py",), days=2, wanted=5)
    assert [tree.revision for tree in made.states] == [ids[0][:12], ids[2][:12], ids[3][:12]]
    assert [len(changes[0].candidates) for changes in made.changes] == [12, 6]
    assert made.cluster(1, "code.py", 7).endswith(ids[1]) and made.cluster(1, "code.py", 12).endswith(ids[2])
    with pytest.raises(EvaluationError, match="too few dates for 5 days"):
        history.repository(str(tmp_path), tmp_path / "cache", (".py",), days=5, wanted=5)
    between = history.repository(str(tmp_path), tmp_path / "cache", (".py",), days=1, wanted=1, start=ids[1])
    assert [tree.revision for tree in between.states] == [ids[1][:12], ids[3][:12]]


def test_an_arm_adds_one_mechanism_and_missing_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (*arms.STEPS, arms.Step("+ telepathy", ({"telepathy.enabled": True},)))
    monkeypatch.setattr(arms, "STEPS", steps)
    made = {arm.name: arm for arm in arms.arms()}
    assert made[arms.BASE].settings["memory.enabled"] is made[arms.BASE].settings["adapters.enabled"] is False
    retrieval, learned = made["+ retrieval"], made["+ LoRA"]
    assert retrieval.settings["memory.enabled"] and not retrieval.settings["adapters.enabled"] and not retrieval.sleeps
    assert not retrieval.settings["memory.continuations"] and not made["+ continuations"].sleeps
    assert learned.before == "+ refusals kept in mind" and learned.sleeps
    assert learned.settings == {**made[learned.before].settings, "adapters.enabled": True}
    replayed = made[arms.LEARNS]
    assert replayed.settings != learned.settings
    assert made[arms.PLACEBO].settings == replayed.settings and made[arms.PLACEBO].shuffled is Shuffled.FOR_GOOD
    assert made["+ telepathy"].missing == ("telepathy.enabled",)
    for name, kind in ((arms.SHIPPED_PLACEBO, Shuffled.FOR_GOOD), (arms.ASLEEP_PLACEBO, Shuffled.ASLEEP)):
        assert made[name].settings == made[arms.SHIPPED].settings == {}
        assert made[name].shuffled is kind and made[name].before == arms.SHIPPED
    for arm in made.values():
        assert arms.known(arm.settings) is not bool(arm.missing) or arm.missing


def row(part: str, slice: int, number: int, nats: float, **changes: Any) -> Row:
    made = Row(part, slice, "", f"c{number % 7}", "a.py", number, nats, 10, exact=False)
    return dataclasses.replace(made, **changes)


def cell(day: int, rows: list[Row], **facts: Any) -> Lived:
    return Lived({"sleep": None, "met_again": 10, "made_again": 5, **facts}, rows)


def chain(new: tuple[float, float, float], older: tuple[float, float, float]) -> dict[tuple[int, int], Lived]:
    """Three days: nats of each day's slice, and of day 1's apart lines after each sleep."""
    return {
        (0, day): cell(
            day,
            [row("going on", day, 100 * day + k, new[day - 1], exact=k < 2) for k in range(8)]
            + [row("apart", 1, k, older[day - 1]) for k in range(8)]
            + [row("general", 0, k, new[0]) for k in range(8)],
        )
        for day in (1, 2, 3)
    }


def test_figures_are_those_of_their_formulas() -> None:
    base = chain((10.0, 10.0, 10.0), (10.0, 10.0, 10.0))
    learned = chain((10.0, 8.0, 5.0), (8.0, 5.0, 6.0))
    made = figures.figures(learned, base, base, 3)
    assert made.cells == 3
    assert made.gain_last is not None and made.gain_last.value == pytest.approx(0.5)
    assert made.gain_last.low == pytest.approx(0.5) and made.gain_last.told
    # The best gain on day 1's lines was 5 (after day 2), the final one is 4.
    assert made.forgetting is not None and made.forgetting.value == pytest.approx(0.2)
    # Day 2 has no apart lines here; on day 1's the gain went from 0.2 to 0.4.
    assert made.backward is not None and made.backward.value == pytest.approx(0.2)
    assert made.general is not None and made.general.value == pytest.approx(0.0)
    assert made.exact is not None and made.exact_times is not None and made.exact_times.value == pytest.approx(1.0)
    assert made.again is not None and made.again.value == pytest.approx(0.5)
    same = figures.figures(base, base, None, 3)
    assert same.gain is not None and same.gain.value == 0.0 and not same.gain.told
    assert same.forgetting is None, "where nothing was gained nothing can be forgotten"


def test_what_an_arm_that_never_sleeps_loses_is_not_forgotten() -> None:
    base = chain((10.0, 10.0, 10.0), (10.0, 10.0, 10.0))
    learned = chain((10.0, 8.0, 5.0), (8.0, 5.0, 6.0))
    still = chain((10.0, 10.0, 10.0), (9.0, 9.0, 9.5))
    made = figures.beyond(learned, still, base, 3)
    assert made is not None and made.value == pytest.approx((1.0 - 0.5) / 5.0)
    assert figures.beyond(learned, {key: cell for key, cell in still.items() if key[1] < 3}, base, 3) is None
    found = {arms.BASE: base, arms.LEARNS: learned, arms.AWAKE: still}
    text = table.as_markdown([table.Project("p", arms.arms(), 3, [0], found)], "the command", None, [])
    assert "beyond what an arm loses that never sleeps: –" in text, "the arm that is judged was not run"
    text = table.as_markdown(
        [table.Project("p", arms.arms(), 3, [0], found | {arms.SHIPPED: learned})], "the command", None, []
    )
    assert "beyond what an arm loses that never sleeps: +10.0%" in text and "| +50.0%" in text


def test_displaced_general_code_is_seen_against_an_arm_that_never_sleeps() -> None:
    """Continuations liken general code to its own document in every arm; what a sleep displaces is told apart."""
    base = chain((10.0, 10.0, 10.0), (10.0, 10.0, 10.0))
    still = chain((8.0, 8.0, 8.0), (8.0, 8.0, 8.0))
    shipped = chain((9.0, 8.0, 7.0), (8.0, 8.0, 8.0))  # 10 % under the base's general code, 12.5 % over the awake arm's
    found = {arms.BASE: base, arms.AWAKE: still, arms.SHIPPED: shipped}
    project = table.Project("p", arms.arms(), 3, [0], found)
    said = {target.text: target for target in table.targets(project, None)}
    assert said["general code at most 1 % less likely"].reached is True
    beside = said["the same, than under the arm that never sleeps"]
    assert beside.reached is False and beside.found.startswith("+12.5%")
    text = table.as_markdown([project], "the command", None, [])
    [row] = [line.split("|") for line in text.splitlines() if line.startswith(f"| {arms.AWAKE} | 3")]
    [head] = [line.split("|") for line in text.splitlines() if line.startswith("| arm | days")]
    assert row[head.index(" general code ")].strip().startswith("-20.0%"), "also of an arm that never sleeps"
    alone = table.Project("p", arms.arms(), 3, [0], {arms.BASE: base, arms.SHIPPED: shipped})
    assert alone.displaced is None


def test_a_quick_run_names_the_arms_that_it_leaves_out() -> None:
    quick, chosen = options.parse(["--ablate", "--quick"]), options.parse(["--ablate", "--arms", "LoRA"])
    text = table.as_markdown([table.Project("p", command.arms_of(quick), 2, [0], {})], "the command", None, [])
    for name in ("+ MAS", "+ preferences", "+ cerebellum", "+ Backpropamine", "+ modulator (PPO)", "+ attention"):
        assert f"| {name} | **not run** |" in text
    assert "| + replay | **unfinished, 0 of 2** |" in text
    assert [arm.name for arm in command.arms_of(chosen)] == [arms.BASE, "+ LoRA"], "who names arms knows of the others"


def test_an_unfinished_chain_has_no_final_state() -> None:
    base = chain((10.0, 10.0, 10.0), (10.0, 10.0, 10.0))
    learned = chain((10.0, 8.0, 5.0), (8.0, 5.0, 6.0))
    del learned[0, 3]
    made = figures.figures(learned, base, None, 3)
    assert made.cells == 2 and made.gain is not None
    assert made.gain_last is made.forgetting is made.general is None
    project = table.Project("p", arms.arms(), 3, [0], {arms.BASE: base, arms.LEARNS: learned})
    text = table.as_markdown([project], "the command", None, [])
    assert "| + replay | **unfinished, 2 of 3** |" in text
    assert "| + retrieval | **unfinished, 0 of 3** |" in text


def test_shuffled_feedback_is_told_from_the_real_one() -> None:
    base = chain((10.0, 10.0, 10.0), (10.0, 10.0, 10.0))
    real, placebo = chain((8.0, 7.0, 6.0), (8.0, 7.0, 6.0)), chain((9.0, 9.0, 9.0), (9.0, 9.0, 9.0))
    found = {arms.BASE: base, arms.LEARNS: real, arms.PLACEBO: placebo, arms.SHIPPED: real}
    made = table.targets(table.Project("p", arms.arms(), 3, [0], found), speed=0.9)
    reached = {target.text.split()[0]: target.reached for target in made}
    assert reached["shuffled"] is True and reached["next"] is True
    assert reached["rejected"] is False and reached["exact"] is False
    as_good = {**found, arms.SHIPPED_PLACEBO: real}  # where it is run, what ships is judged by its own placebo
    made = table.targets(table.Project("p", arms.arms(), 3, [0], as_good), speed=0.9)
    assert next(target for target in made if target.text.startswith("shuffled")).reached is False
    assert next(target for target in made if "sleep alone" in target.text).reached is None, "not run"
    asleep = {**found, arms.SHIPPED_PLACEBO: real, arms.ASLEEP_PLACEBO: placebo}
    made = table.targets(table.Project("p", arms.arms(), 3, [0], asleep), speed=0.9)
    assert next(target for target in made if "sleep alone" in target.text).reached is True

    def alone(chain_of: dict[tuple[int, int], Lived], factor: float) -> dict[tuple[int, int], Lived]:
        """The same, with the cerebellum's own predictions beside: `factor` of the base's nats."""
        return {
            (seed, day): Lived(
                lived.facts,
                [
                    *lived.rows,
                    *(
                        dataclasses.replace(row, column="cerebellum", nats=row.nats * factor)
                        for row in base[seed, day].rows
                        if row.part != "general" and row.slice == day
                    ),
                ],
            )
            for (seed, day), lived in chain_of.items()
        }

    both = {**as_good, arms.SHIPPED: alone(real, 0.9), arms.SHIPPED_PLACEBO: alone(real, 1.2)}
    made = table.targets(table.Project("p", arms.arms(), 3, [0], both), speed=0.9)
    small = next(target for target in made if "cerebellum" in target.text)
    assert small.reached is True and small.found.startswith("+10.0%"), "of what ships, not of its placebo"
    swapped = {0: Lived({}, [*base[0, 3].rows, *(dataclasses.replace(r, column="frozen") for r in base[0, 3].rows)])}
    nothing = figures.recovered(real, base, swapped, 3)
    assert nothing is not None and nothing.value == pytest.approx(0.0)


def test_the_table_goes_between_its_marks_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_between(page, "new")
    table.write_between(page, "newer")
    assert page.read_text() == f"before\n{table.BEGIN}\n\nnewer\n{table.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(EvaluationError, match="no place for the table"):
        table.write_between(page, "new")
    assert page.read_text() == "no marks"


def test_the_default_projects_were_never_read_by_the_starter() -> None:
    assert len(options.PROJECTS) == 2
    for text in options.PROJECTS:
        name, _, versions = text.partition("=")
        assert reserved.is_reserved(name)
        assert len(versions.split(",")) == options.FULL["days"] + 1


def test_ids_are_repeatable_within_a_day_alone() -> None:
    def made(seed: int, day: int) -> list[UUID]:
        with repeatable_ids(seed, day):
            return [types.new_id() for _ in range(1000)]

    first = made(3, 2)
    assert {day_of(id) for id in first} == {2}
    assert first == made(3, 2) == sorted(first)
    assert len({*first, *made(3, 3), *made(4, 2)}) == 3000
    assert max(first) < min(made(3, 3))
    assert types.new_id() not in first


def test_words_that_are_not_said_are_those_of_the_size_that_is_wanted() -> None:
    full, quick = options.parse(["--ablate"]), options.parse(["--ablate", "--quick", "--days", "3"])
    assert (full.days, full.seeds, full.minutes) == (5, [0, 1, 2], None)
    assert (quick.days, quick.seeds, quick.minutes) == (3, [0], 30.0)
    assert "sleep.max_minutes" not in options.common(full), "cells of runs without the word keep their names"
    assert options.common(options.parse(["--ablate", "--sleep-minutes", "5"])) == {"sleep.max_minutes": 5.0}
    swap = options.parse(["--ablate", "--swap-base", "here", "--arms", "replay"])
    assert swap.swap_base == Path("here").absolute() and [arm.name for arm in command.arms_of(swap)][1] == arms.LEARNS
    with pytest.raises(EvaluationError, match=r'carries the arm "\+ replay" over'):
        command.arms_of(options.parse(["--ablate", "--swap-base", "here", "--arms", "as shipped"]))


def test_general_code_is_real_code_and_the_same_every_time() -> None:
    made = general(12)
    assert sum(len(visit.asks) for visit in made) >= 12
    assert [visit.path for visit in made] == [visit.path for visit in general(12)]
    for visit in made:
        for ask in visit.asks:
            above, below = visit.change.around(ask.number)
            line = visit.change.new[ask.number]
            assert above + line + below == "".join(visit.change.new) or len(visit.asks) > 1
            assert visit.truth(ask).strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "nonsense"], "SECTION.KEY=VALUE"),
        (["--set", "sleep.nonsense=1"], "no setting of this version"),
        (["--arms", "telepathy"], "No arm is named telepathy"),
        (["--sleep-minutes", "-1"], "A sleep cannot take at most -1 minutes"),
    ],
)
def test_wrong_arguments_are_one_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=said):
        command.main(["--ablate", *words, "--package", "x=1,2", "--home", str(tmp_path)])

"""Lines: typing all that was added gives the newer file exactly, and the split leaks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npllm.evaluation import hands, lines, plan
from npllm.evaluation.lines import FileChange, Hunk, split_lines
from npllm.evaluation.plan import Ask, Visit
from npllm.evaluation.sources import EvaluationError, Pair, Tree


class Paper:
    """A document without a server: what `hands` needs of an editor."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.closed: dict[str, str] = {}

    def open(self, path: str, text: str, language: str) -> str:
        self.texts[path] = text
        return path

    def text(self, uri: str) -> str:
        return self.texts[uri]

    def change(self, uri: str, start: int, end: int, new_text: str) -> None:
        text = self.texts[uri]
        assert 0 <= start <= end <= len(text)
        self.texts[uri] = text[:start] + new_text + text[end:]

    def close(self, uri: str) -> None:
        self.closed[uri] = self.texts.pop(uri)


def pair(old: dict[str, str], new: dict[str, str]) -> Pair:
    return Pair("proj", Tree("1", old), Tree("2", new))


def every_line(old: str, new: str) -> FileChange:
    """A change in which each added line is asked for."""
    before, after = split_lines(old), split_lines(new)
    hunks = lines._hunks(before, after)
    return FileChange("a.py", before, after, hunks, tuple(n for h in hunks for n in range(h.new_start, h.new_end)))


texts = st.lists(st.sampled_from(["a = 1\n", "    b()\r\n", "\n", "  c\n", "é😀 = d\n", "e\r"]), max_size=12).map(
    "".join
)


@given(old=texts, new=texts, last=st.sampled_from(["", "end without a line end"]))
async def test_typing_every_added_line_gives_the_newer_file(old: str, new: str, last: str) -> None:
    change = every_line(old, new + last)
    if not change.candidates:
        return
    visit = Visit(change, tuple(Ask(n, lines.indentation(change.new[n])) for n in change.candidates))
    paper = Paper()
    seen = []
    async with aclosing(hands.walk(paper, visit)) as stops:  # type: ignore[arg-type]
        async for stop in stops:
            number = stop.ask.number
            above, below = change.around(number)
            text = paper.text(stop.uri)
            blank = change.new[number][: stop.ask.column]
            end = change.new[number][len(lines.content(change.new[number])) :]
            assert text == above + blank + end + below
            assert stop.offset == len(above) + stop.ask.column
            seen.append(number)
            if number % 2:  # the developer has typed it; else the hands finish the line
                paper.change(stop.uri, stop.offset, stop.offset, stop.truth)
            elif number % 3 == 0:  # or something else stands there
                paper.change(stop.uri, stop.offset, stop.offset, "something else")
    assert seen == list(change.candidates)
    tail = change.hunks[-1]
    rest = "".join(change.old[tail.old_end :]) if tail.new_end > tail.new_start else None
    if rest is not None:
        assert paper.closed["a.py"] == new + last


def test_the_document_before_a_line_has_new_above_and_old_below() -> None:
    change = every_line("one\ntwo\nthree\nfour\n", "one\nTWO\nTOO\nthree\nfour\nfive\n")
    assert change.hunks == (Hunk(1, 2, 1, 3), Hunk(4, 4, 5, 6))
    assert change.around(1) == ("one\n", "three\nfour\n")
    assert change.around(2) == ("one\nTWO\n", "three\nfour\n")
    assert change.around(5) == ("one\nTWO\nTOO\nthree\nfour\n", "")


def test_line_ends_are_those_of_lsp() -> None:
    text = "a\x0cb\r\nc\rd\u2028e\n\nf"
    assert split_lines(text) == ("a\x0cb\r\n", "c\r", "d\u2028e\n", "\n", "f")


def test_blank_lines_brackets_comments_and_docstrings_are_no_candidates() -> None:
    new = '"""A module\nwith words."""\n\nx = [\n    # one\n    1111,\n]\n'
    new += 'def f(a):\n    """Words."""\n    return a + x\n'
    change = lines.changes(pair({}, {"a.py": new}))[0]
    assert [change.new[n].strip() for n in change.candidates] == ["1111,", "def f(a):", "return a + x"]
    with_words = lines.changes(pair({}, {"a.py": new}), comments=True)[0]
    assert set(change.candidates) < set(with_words.candidates)


def test_renamed_files_are_followed_and_pasted_blocks_left_out() -> None:
    body = "".join(f"value_{n} = compute({n})\n" for n in range(8))
    moved = lines.changes(pair({"old.py": body}, {"new.py": body + "fresh_line = 1\n"}))
    assert [change.path for change in moved] == ["new.py"]
    assert [moved[0].new[n] for n in moved[0].candidates] == ["fresh_line = 1\n"]
    copied = lines.changes(pair({"a.py": body}, {"a.py": body, "b.py": "import a\n" + body}))
    assert [copied[0].new[n] for n in copied[0].candidates] == ["import a\n"]


def _project(files: int, each: int) -> Pair:
    new = {
        f"p/f{i:02}.py": "".join(f"    name_{i}_{n} = call_{n}(argument_{i})\n" for n in range(each))
        for i in range(files)
    }
    return pair({path: text.splitlines(keepends=True)[0] for path, text in new.items()}, new)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_held_out_is_seen_in_the_morning(seed: int) -> None:
    changes = lines.changes(_project(files=20, each=15))
    made = plan.make(changes, morning=50, held_out=30, seed=seed)
    assert sum(len(visit.asks) for visit in made.morning) == 50
    assert sum(len(visit.asks) for visit in made.held_out) == 30
    last = {visit.path: visit.asks[-1].number for visit in made.morning}
    followed = [visit for visit in made.held_out if visit.path in last]
    assert sum(len(visit.asks) for visit in followed) == 15
    assert all(visit.asks[0].number > last[visit.path] for visit in followed)
    # What a morning document shows: the newer state up to its last line, the older one below.
    shown = "".join(
        "".join(visit.change.old) + "".join(visit.change.new[: last[visit.path] + 1]) for visit in made.morning
    )
    for truth in _truths(made.held_out):
        assert truth not in shown


def _truths(visits: tuple[Visit, ...]) -> Iterator[str]:
    for visit in visits:
        for ask in visit.asks:
            yield visit.change.new[ask.number].strip()


def test_the_seed_decides_alone() -> None:
    changes = lines.changes(_project(files=20, each=15))
    one = plan.make(changes, morning=50, held_out=30, seed=1)
    assert one == plan.make(list(reversed(changes)), morning=50, held_out=30, seed=1)
    assert one != plan.make(changes, morning=50, held_out=30, seed=2)


def test_too_little_to_replay_is_said() -> None:
    with pytest.raises(EvaluationError, match="too few added lines"):
        plan.make(lines.changes(_project(files=2, each=4)), morning=50, held_out=30, seed=0)


def test_the_smallest_edit_is_made() -> None:
    paper = Paper()
    paper.open("a", "x = call(one, two)", "python")
    changes: list[tuple[int, int, str]] = []
    change = paper.change
    paper.change = lambda uri, *edit: (changes.append(edit), change(uri, *edit))[1]  # type: ignore[method-assign]
    hands.put(paper, "a", 0, 18, "x = call(three, two)")  # type: ignore[arg-type]
    hands.put(paper, "a", 0, 20, "x = call(three, two)")  # type: ignore[arg-type]
    assert paper.text("a") == "x = call(three, two)"
    assert changes == [(9, 11, "thre")]

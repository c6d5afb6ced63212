"""What a model is asked about held-out files: where the cursor stands, and what is hidden behind it.

Everything is drawn with fixed seeds, so that two models are asked the same. Knows nothing of models or tokens.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from npllm.starter.fim import Cut, cut
from npllm.starter.held import Held

_BEFORE, _AFTER = 1400, 500  # characters of prefix and suffix around a judged place

Draw = Callable[[str, random.Random], Cut | None]


@dataclass(frozen=True)
class Question:
    """A file in three parts, of which the middle is to be guessed."""

    path: str
    whole: Cut

    @property
    def window(self) -> Cut:
        """The middle with as much around it as a model is shown."""
        return Cut(self.whole.prefix[-_BEFORE:], self.whole.middle, self.whole.suffix[:_AFTER])


@dataclass(frozen=True)
class Place:
    """A line of a held-out file with its surroundings, and three snippets: related to the line, found from the text
    before it alone, and from another package."""

    path: str
    parts: Cut
    related: tuple[str, str]
    found: tuple[str, str]
    unrelated: tuple[str, str]


def rest_of_lines(packages: Sequence[Held], count: int) -> list[Question]:
    """Random positions inside lines, behind their first character; the middle is the rest of the line."""
    return _questions(packages, count, 7, _rest_of_line)


def whole_lines(packages: Sequence[Held], count: int) -> list[Question]:
    """Random lines, hidden whole but for their indentation."""
    return _questions(packages, count, 13, _whole_line)


def blocks(packages: Sequence[Held], count: int) -> list[Question]:
    """Whole blocks of Python (what stands indented under a `def`, an `if` and the like) of two to thirteen lines,
    hidden but for the first line's indentation."""
    return _questions(packages, count, 17, _block)


def middles(packages: Sequence[Held], count: int) -> list[Question]:
    """Windows of files, cut in the shapes that training uses."""
    return _questions(packages, count, 11, _window_cut)


def _questions(packages: Sequence[Held], count: int, seed: int, draw: Draw) -> list[Question]:
    rng = random.Random(seed)
    result: list[Question] = []
    for _ in range(40 * count):
        file = rng.choice(rng.choice(packages).files)
        drawn = draw(file.text, rng)
        if drawn is not None and drawn.middle.strip():
            result.append(Question(file.path, drawn))
        if len(result) == count:
            break
    return result


def _rest_of_line(text: str, rng: random.Random) -> Cut | None:
    position = rng.randrange(len(text))
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    if end < 0 or not text[start:position].strip():
        return None
    return Cut(text[:position], text[position:end], text[end:])


def _whole_line(text: str, rng: random.Random) -> Cut | None:
    position = rng.randrange(len(text))
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    line = text[start:end]
    if end < 0 or len(line.strip()) < 4:  # brackets alone are no question
        return None
    begin = start + len(line) - len(line.lstrip())
    return Cut(text[:begin], text[begin:end], text[end:])


def _window_cut(text: str, rng: random.Random) -> Cut | None:
    begin = rng.randrange(max(1, len(text) - _BEFORE - _AFTER))
    return cut(text[begin : begin + _BEFORE + _AFTER], rng)


def _block(text: str, rng: random.Random) -> Cut | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    lines = text.split("\n")
    spans = [span for node in tree.body for inner in ast.walk(node) for span in _spans(inner, lines)]
    if not spans:
        return None
    top, bottom = rng.choice(spans)
    indent = len(lines[top]) - len(lines[top].lstrip())
    begin = sum(len(line) + 1 for line in lines[:top]) + indent
    end = sum(len(line) + 1 for line in lines[:bottom]) - 1
    return Cut(text[:begin], text[begin:end], text[end:])


def _spans(node: ast.AST, lines: list[str]) -> Iterator[tuple[int, int]]:
    """The first lines of a statement's blocks, counted from 0, and the lines behind their last."""
    for name in ("body", "orelse", "finalbody"):
        found = getattr(node, name, None)
        if not isinstance(found, list) or not found:  # the body of a lambda is no list
            continue
        decorators = [decorator.lineno for decorator in getattr(found[0], "decorator_list", ())]
        top, bottom = min([found[0].lineno, *decorators]) - 1, found[-1].end_lineno
        indent = len(lines[top]) - len(lines[top].lstrip())
        if 2 <= bottom - top <= 13 and indent == found[0].col_offset > getattr(node, "col_offset", 0):
            yield top, bottom


def places(packages: Sequence[Held], count: int) -> list[Place]:
    """Lines for which a sibling file offers a snippet that shares a rare identifier with them; none where there is
    but one package, since the placebo comes from another."""
    rng = random.Random(5)
    result: list[Place] = []
    if len(packages) < 2:
        return result
    for _ in range(count * 40):
        package = rng.choice(packages)
        file = rng.choice(package.files)
        starts = [k + 1 for k, c in enumerate(file.text) if c == "\n" and k > 300]
        if len(starts) < 5:
            continue
        start = rng.choice(starts)
        end = file.text.find("\n", start)
        line = file.text[start:end]
        if end < 0 or len(line.strip()) < 12:
            continue
        begin = start + len(line) - len(line.lstrip())
        before = file.text[max(0, start - _BEFORE) : begin]
        span = (start, end)
        related = package.index.related(line, line, file.path, span, 1, same_file=False)
        found = package.index.related(before[-600:], before[-150:], file.path, span, 1, same_file=False)
        other = rng.choice(rng.choice([p for p in packages if p is not package]).index.snippets)
        if related and found:
            parts = Cut(before, file.text[begin:end], file.text[end : end + _AFTER])
            triple = [(s.path, s.text) for s in (related[0], found[0], other)]
            result.append(Place(file.path, parts, triple[0], triple[1], triple[2]))
        if len(result) == count:
            break
    return result

"""A file's text cut into chunks: a definition each, or a few lines that belong together between definitions.

A definition that is too long for one chunk is cut along the definitions in it, and where there are none, into pieces of
so many lines. Every line with something in it lies in exactly one chunk. Without a grammar, or where the parser gives
up, blank lines are what separates. Pure functions of the text; secrets are replaced before (`indexing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npllm.memory.index.grammars import GRAMMARS, parser

if TYPE_CHECKING:
    from tree_sitter import Node

MOST_LINES = 40  # of a chunk
MOST_CHARACTERS = 2400
FEWEST_CHARACTERS = 20  # white space aside; less says nothing
DEEPEST = 8  # nodes between a definition and one that it holds
NESTED = 30  # definitions in one another that are told apart; what lies deeper is cut by lines
_ABOVE = ("#", "//", "/*", "*", "@", "--", "'''", '"""')  # a line that begins so belongs to the definition below it


@dataclass(frozen=True, slots=True)
class Chunk:
    """A few whole lines of a file.

    Attributes:
        line: its first one, from 0.
        symbol: the name of what it defines, or lies in, e.g. "Reader.tokens"; "" outside of all definitions.
    """

    line: int
    symbol: str
    text: str


@dataclass(frozen=True, slots=True)
class _Definition:
    begin: int  # first line, from 0
    end: int  # behind its last line
    name: str
    node: Node


def chunks(text: str, language: str) -> list[Chunk]:
    """The chunks of a file, in order.

    Args:
        text: with plain line ends.
        language: LSP language id.
    """
    lines = text.split("\n")
    reader, grammar = parser(language), GRAMMARS.get(language)
    if reader is None or grammar is None:
        found = _between(lines, 0, len(lines), "")
    else:
        root = reader.parse(text.encode("utf-8", "replace")).root_node
        found = _within(lines, root, 0, len(lines), "", grammar.definitions)
    return [one for one in found if len("".join(one.text.split())) >= FEWEST_CHARACTERS]


def _within(
    lines: Sequence[str], node: Node, begin: int, end: int, symbol: str, definitions: frozenset[str], nested: int = 0
) -> Iterator[Chunk]:
    """The chunks of lines `[begin, end)`, which a node covers."""
    at = begin
    for one in _definitions(node, definitions):
        first, last = max(one.begin, at), min(one.end, end)
        if last <= first:
            continue  # on a line with the one before
        while first > at and lines[first - 1].lstrip().startswith(_ABOVE):
            first -= 1
        yield from _between(lines, at, first, symbol)
        name = f"{symbol}.{one.name}" if symbol and one.name else one.name or symbol
        if _fits(lines, first, last):
            yield Chunk(first, name, "\n".join(lines[first:last]))
        elif nested < NESTED:
            yield from _within(lines, one.node, first, last, name, definitions, nested + 1)
        else:
            yield from _between(lines, first, last, name)
        at = last
    yield from _between(lines, at, end, symbol)


def _definitions(node: Node, types: frozenset[str]) -> list[_Definition]:
    """Those directly in a node, in order: none that lies in another one."""
    found: list[_Definition] = []
    waiting = [(child, 1) for child in reversed(node.children)]
    while waiting:
        one, depth = waiting.pop()
        if one.type in types or _is_named_function(one):
            end = one.end_point.row + (one.end_point.column > 0)
            found.append(_Definition(one.start_point.row, end, _name(one, types), one))
        elif depth < DEEPEST:
            waiting.extend((child, depth + 1) for child in reversed(one.children))
    return found


def _is_named_function(node: Node) -> bool:
    """`const name = (a) => ...` of JavaScript and TypeScript."""
    if node.type not in ("lexical_declaration", "variable_declaration"):
        return False
    values = [value for child in node.named_children if (value := child.child_by_field_name("value")) is not None]
    return any(value.type in ("arrow_function", "function_expression", "class") for value in values)


def _name(node: Node, types: frozenset[str]) -> str:
    """What a definition is called; "" where that is not easily said."""
    for _ in range(DEEPEST):
        found = node.child_by_field_name("name")
        inner = node.child_by_field_name("definition") or node.child_by_field_name("declarator")
        if found is None and inner is None:
            found = node.child_by_field_name("type")  # what a Rust `impl` is of
        if found is not None and found.text is not None:
            return found.text.decode("utf-8", "replace").split("\n")[0][:100]
        if inner is None:
            inner = next((one for one in node.named_children if one.type in types or "declarator" in one.type), None)
        if inner is None:
            return node.text.decode("utf-8", "replace")[:100] if "identifier" in node.type and node.text else ""
        node = inner
    return ""


def _fits(lines: Sequence[str], begin: int, end: int) -> bool:
    return end - begin <= MOST_LINES and sum(map(len, lines[begin:end])) + end - begin <= MOST_CHARACTERS


def _between(lines: Sequence[str], begin: int, end: int, symbol: str) -> Iterator[Chunk]:
    """Lines without definitions: paragraphs, as many in a chunk as fit."""
    start = at = begin
    while at < end:
        stop = at
        while stop < end and lines[stop].strip():
            stop += 1
        while stop < end and not lines[stop].strip():
            stop += 1
        if at > start and not _fits(lines, start, stop):
            yield from _pieces(lines, start, at, symbol)
            start = at
        at = stop
    yield from _pieces(lines, start, end, symbol)


def _pieces(lines: Sequence[str], begin: int, end: int, symbol: str) -> Iterator[Chunk]:
    """A paragraph, or pieces of it where it is too long; without blank lines around."""
    while begin < end and not lines[begin].strip():
        begin += 1
    while begin < end and not lines[end - 1].strip():
        end -= 1
    while begin < end:
        stop = begin + 1
        while stop < end and _fits(lines, begin, stop + 1):
            stop += 1
        yield Chunk(begin, symbol, "\n".join(lines[begin:stop]))
        begin = stop

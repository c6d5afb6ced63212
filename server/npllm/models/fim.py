"""Prompts: what stands around the cursor, and what is remembered, as the base wants to see it.

A prompt never exceeds the context less what is reserved for the answer. The text before the cursor matters
most; the text behind it gets about a quarter; snippets come before both. A long prefix is cut at a line
chosen by its content, not by counting from the cursor: the next keystroke then cuts at the same line, and
the key-value cache of the prompt before is still good. The same function builds prompts for serving,
scoring and training.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from npllm.models.codec import TextCodec
from npllm.models.formats import FORMATS, PREFIX_ONLY, SNIPPETS, FimFormat, choose_by_vocabulary
from npllm.types import ModelError, Snippet

__all__ = [
    "FORMATS",
    "PREFIX_ONLY",
    "FimFormat",
    "Prompt",
    "PromptBuilder",
    "PromptParts",
    "Span",
    "choose",
    "unix_lines",
]

_SUFFIX_SHARE = 4  # one in so many tokens of the room
_SUFFIX_STEP = 128  # room that the prefix leaves goes to the suffix in such steps, so that it rarely changes
_CUT_SLACK = 8  # a long prefix may lose one in so many tokens for the sake of a stable cut
_WORKING_SHARE = 2  # one in so many tokens for snippets is kept for what is on the desk, where it needs them
_COMMENTS = {
    "--": "sql lua hs elm adb ads",
    "%": "tex erl m",
    ";": "el lisp clj cljs scm asm",
    "//": "js jsx ts tsx java c h cc cpp hpp cs go rs swift kt kts scala dart php mm zig proto groovy sv scss",
}
_LEADERS = {extension: leader for leader, names in _COMMENTS.items() for extension in names.split()}


@dataclass(frozen=True, slots=True)
class PromptParts:
    """What a prompt is made of."""

    path: str
    prefix: str  # text before the cursor
    suffix: str  # text behind it
    snippets: tuple[Snippet, ...] = ()  # remembered code, the most alike first
    working: tuple[Snippet, ...] = ()  # what else is on the desk, what matters most first


@dataclass(frozen=True, slots=True)
class Span:
    """Where a remembered piece stands in a prompt, and how satisfying it proved."""

    begin: int  # its first token
    end: int  # behind its last one
    satisfaction: float  # reward, [-1, 1]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids, the experiences whose snippets are among them, where these stand, in order of place, and how many
    pieces of remembered code there are in all, those of the project's files among them."""

    ids: tuple[int, ...]
    used_snippets: tuple[UUID, ...] = ()
    spans: tuple[Span, ...] = ()
    pieces: int = 0


def choose(tokenizer: Any) -> FimFormat:
    """The format that a tokenizer's vocabulary was made for; prefix-only where it knows none."""
    return choose_by_vocabulary(tokenizer.get_vocab())


def unix_lines(text: str) -> str:
    """The text with `\\n` for `\\r\\n`: bases have hardly seen the latter."""
    return text.replace("\r\n", "\n") if "\r" in text else text


class PromptBuilder:
    """Builds prompts of one format. Not thread-safe.

    Args:
        tokenizer: the base's, a fast one.
        format: from `choose`.
        context_tokens: prompt and answer together.

    Raises:
        ModelError: the vocabulary lacks a token of the format, or the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any, format: FimFormat, context_tokens: int) -> None:
        self.format = format
        self.context_tokens = context_tokens
        self.codec = TextCodec(tokenizer)
        missing = [token for token in format.requires if self.codec.token_id(token) is None]
        if missing:
            raise ModelError(f"The tokenizer lacks {', '.join(missing)}, which the format {format.name} needs.")
        self.end_id: int | None = self.codec.token_id(format.end) if format.end else self.codec.eos_id
        if self.end_id is None:
            self.end_id = self.codec.eos_id
        names = (format.end, *format.stops)
        ids = [self.end_id, self.codec.eos_id, *(self.codec.token_id(name) for name in names if name)]
        self.end_ids: frozenset[int] = frozenset(found for found in ids if found is not None)
        self._width = 4.0  # characters per token of the last prefix
        self._recent: OrderedDict[str, list[int]] = OrderedDict()

    def build(self, parts: PromptParts, *, reserve: int, snippet_budget: int = 0) -> Prompt:
        """The prompt of a place.

        Args:
            reserve: tokens kept free for the answer (at most half of the context is).
            snippet_budget: tokens that snippets may take (at most half of the room).
        """
        parts = replace(parts, prefix=unix_lines(parts.prefix), suffix=unix_lines(parts.suffix))
        room = self.context_tokens - min(reserve, self.context_tokens // 2)
        snippets, used, spans, pieces = self._snippets(parts, min(snippet_budget, room // 2))
        layout = self.format.repo if snippets else self.format.layout
        fixed = len(self.codec.bos) + len(snippets) + sum(len(self._piece(p, parts)) for p in layout)
        room = max(8, room - fixed)
        prefix_ids, suffix_ids = self._around(parts, room, begins=self._prefix_begins() and not snippets)
        ids = list(self.codec.bos)
        for piece in layout:
            if piece == SNIPPETS:
                spans = [replace(span, begin=span.begin + len(ids), end=span.end + len(ids)) for span in spans]
                ids += snippets
            elif "{prefix}" in piece:
                head = piece.partition("{prefix}")[0]
                if head:
                    ids += self.codec.encode(_fill(head, parts))
                ids += prefix_ids
            elif piece == "{suffix}":
                ids += suffix_ids
            else:
                ids += self._piece(piece, parts)
        return Prompt(tuple(ids), tuple(used), tuple(spans), pieces)

    def encode_middle(self, text: str) -> list[int]:
        """Ids of a text that stands at the cursor, as decoding would have produced it."""
        return self.codec.encode(unix_lines(text))

    def _piece(self, piece: str, parts: PromptParts) -> list[int]:
        """Ids of a piece without what is filled in for prefix, suffix and snippets."""
        if piece in (SNIPPETS, "{suffix}"):
            return []
        token = self.codec.token_id(piece)
        if token is not None:
            return [token]
        return self._encoded(_fill(piece.partition("{prefix}")[0], parts))

    def _snippets(self, parts: PromptParts, budget: int) -> tuple[list[int], list[UUID], list[Span], int]:
        """Ids of the snippets that fit, the most alike last (nearest to the cursor), their experiences, where those of
        an experience stand among the ids, and how many fit.

        What else is on the desk comes before them all: it changes least while the person types. It has its share, and
        what the others leave.
        """
        if budget <= 0:
            return [], [], [], 0
        chosen: list[list[int]] = []
        shown: list[Snippet] = []
        first = ""
        used: list[UUID] = []
        working = [(snippet, self._snippet(snippet, parts.path)) for snippet in parts.working]
        kept = min(budget // _WORKING_SHARE, sum(len(ids) for _, ids in working))
        remembered = [(snippet, self._snippet(snippet, parts.path), kept) for snippet in parts.snippets]
        for snippet, ids, left in (*remembered, *((*one, 0) for one in working)):
            if len(ids) <= budget - left:
                budget -= len(ids)
                chosen.insert(0, ids)
                shown.insert(0, snippet)
                first = _fill_snippet(self.format.snippet[0], snippet, parts.path)
                if snippet.experience_id is not None:
                    used.append(snippet.experience_id)
        if chosen and self._prefix_begins():
            chosen[0] = self.codec.encode(first, begins=True)
        ends = list(accumulate(len(ids) for ids in chosen))
        spans = [
            Span(end - len(ids), end, snippet.satisfaction)
            for ids, end, snippet in zip(chosen, ends, shown, strict=True)
            if snippet.experience_id is not None
        ]
        return [token for ids in chosen for token in ids], used, spans, len(chosen)

    def _snippet(self, snippet: Snippet, target: str) -> list[int]:
        """Ids of one snippet, for a prompt of the document `target`."""
        ids: list[int] = []
        for piece in self.format.snippet:
            token = self.codec.token_id(piece)
            ids += [token] if token is not None else self._encoded(_fill_snippet(piece, snippet, target))
        return ids

    def _around(self, parts: PromptParts, room: int, *, begins: bool) -> tuple[list[int], list[int]]:
        """Ids of the prefix's tail and of the suffix's head, together at most `room`."""
        text = parts.prefix
        ids, starts = self._tail(text, room)
        suffix: list[int] = []
        if self.format.fills and parts.suffix:
            left = (room - len(ids)) // _SUFFIX_STEP * _SUFFIX_STEP
            suffix = self._encoded(parts.suffix)[: max(room // _SUFFIX_SHARE, left)]
        budget = room - len(suffix)
        if len(ids) <= budget:
            return (self.codec.encode(text, begins=begins)[-budget:] if self.codec.adds_space else ids), suffix
        cut = _stable_cut(text, starts, budget)
        at = bisect_left(starts, cut)
        if not begins and starts[at] == cut:
            return ids[at:], suffix
        return self.codec.encode(text[cut:], begins=begins)[-budget:], suffix

    def _tail(self, text: str, room: int) -> tuple[list[int], list[int]]:
        """Ids of the end of a text, more than `room` of them or all, and the offset where each begins.

        A guess from the last text's characters per token saves tokenizing what would be thrown away.
        """
        skip = max(0, len(text) - int(1.2 * room * self._width))
        ids, starts = self.codec.encode_with_starts(text[skip:])
        if skip and len(ids) <= room:
            skip = 0
            ids, starts = self.codec.encode_with_starts(text)
        if ids:
            self._width = (len(text) - skip) / len(ids)
        return ids, [skip + start for start in starts] if skip else starts

    def _prefix_begins(self) -> bool:
        """Whether the prefix (or text snippets before it) is the prompt's first text, before which
        SentencePiece puts its space."""
        first = next(piece for piece in self.format.layout if "{" in piece)
        return first.startswith("{prefix}") and len(self.format.snippet) == 1

    def _encoded(self, text: str) -> list[int]:
        """`encode`, remembering the last few texts: suffixes, paths and snippets repeat from request to
        request."""
        ids = self._recent.get(text)
        if ids is None:
            ids = self.codec.encode(text)
            self._recent[text] = ids
            if len(self._recent) > 32:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(text)
        return ids


def _fill(piece: str, parts: PromptParts) -> str:
    return piece.replace("{path}", parts.path)


def _fill_snippet(piece: str, snippet: Snippet, target: str) -> str:
    text = snippet.text.strip("\n")
    if piece == "{commented}":
        leader = _LEADERS.get(PurePosixPath(target).suffix.lstrip(".").lower(), "#")
        return "".join(f"{leader} {line}\n" for line in (snippet.path, *text.split("\n"))) + "\n"
    return piece.replace("{path}", snippet.path).replace("{text}", text)


def _stable_cut(text: str, starts: Sequence[int], budget: int) -> int:
    """Where to cut `text` so that its tail has at most `budget` tokens, and the next keystroke cuts there too.

    Of the lines that begin in the last eighth that would have to go, the one least indented wins, then the
    one with the smallest checksum: a choice by content, which stays the same while that line is in reach.
    Without a line to cut at, the cut is at the token that just fits.
    """
    low = len(starts) - budget
    high = min(len(starts) - 1, low + budget // _CUT_SLACK)
    best: tuple[int, int] | None = None
    cut = starts[low]
    at = text.rfind("\n", 0, starts[low] + 1) + 1
    while at <= starts[high]:
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end]
        if at >= starts[low] and line.strip():
            key = (len(line) - len(line.lstrip()), zlib.crc32(line.encode("utf-8", "replace")))
            if best is None or key < best:
                best, cut = key, at
        at = end + 1
    return cut

"""What an evaluation found, as values and as Markdown. Knows nothing of how it was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One judge on one group of packages. The first three are bits per UTF-8 byte, the others shares of 1; None where
    it was not asked."""

    prefix_only: float | None
    fim_psm: float | None
    fim_spm: float | None
    rest_of_line: float | None
    whole_line: float | None
    parsed: float | None


_NOT_ASKED = Score(None, None, None, None, None, None)


@dataclass(frozen=True)
class LineBits:
    """Bits per UTF-8 byte of the same single lines behind different snippets."""

    alone: float
    related: float
    found: float
    unrelated: float
    lines: int


@dataclass(frozen=True)
class Asked:
    """How much a group was asked: bytes of whole files, and numbers of infilled middles, cursors, lines and blocks."""

    bytes: int
    middles: int
    cursors: int
    lines: int
    blocks: int


@dataclass(frozen=True)
class Group:
    """The packages of one kind of language, and what was found on them. `xz` is bits per byte of the very files that
    `prefix_only` judges; `parsed_empty` the share of files that parse with nothing in place of the hidden block."""

    title: str
    asked: Asked
    model: Score
    ngram: Score | None
    xz: float
    parsed_empty: float | None
    snippets: LineBits | None
    by_package: tuple[tuple[str, float], ...]  # the model's `prefix_only` of each package by itself


@dataclass(frozen=True)
class Figures:
    """A whole evaluation; `ngram_tokens` is what the baseline was trained on, 0 where there is none."""

    groups: tuple[Group, ...]
    ngram_tokens: int


def table(figures: Figures) -> str:
    """The figures as Markdown: one table for each group, with the baselines beside the model."""
    if figures.ngram_tokens:
        size = f"{figures.ngram_tokens / 1e6:.1f}M tokens"
        note = f"The 5-gram model (modified Kneser-Ney) counted {size} of the training text, cut at cursors as often."
    else:
        note = "There is no 5-gram model to compare with, since the training text was not at hand."
    return "\n\n".join([*(_group(group) for group in figures.groups), note])


def _group(group: Group) -> str:
    model, asked = group.model, group.asked
    ngram = group.ngram or _NOT_ASKED
    rows = [
        ("whole files, prefix only", _bits(model.prefix_only), _bits(ngram.prefix_only), f"{group.xz:.3f}"),
        *((f"- of these, {name}", f"{bits:.3f}", "", "") for name, bits in group.by_package),
        ("infilled middle, prefix-suffix-middle", _bits(model.fim_psm), _bits(ngram.fim_psm), ""),
        ("infilled middle, suffix-prefix-middle (served)", _bits(model.fim_spm), _bits(ngram.fim_spm), ""),
    ]
    if group.snippets:
        lines = group.snippets
        rows += [
            (f"one line ({lines.lines} lines), no snippet before it", f"{lines.alone:.3f}", "", ""),
            ("the same lines, a related snippet of a sibling file", f"{lines.related:.3f}", "", ""),
            ("the same lines, a snippet found from the text before the cursor", f"{lines.found:.3f}", "", ""),
            ("the same lines, a snippet of another package (placebo)", f"{lines.unrelated:.3f}", "", ""),
        ]
    result = [
        f"{group.title}, bits per UTF-8 byte:",
        "",
        "| held-out text | model | 5-gram | `xz -9` |",
        "|---|---|---|---|",
    ]
    result += [f"| {' | '.join(row)} |" for row in rows]
    shares = [
        (f"exact rest of the line at {asked.cursors} cursors", model.rest_of_line, ngram.rest_of_line),
        (f"exact whole line, {asked.lines} lines", model.whole_line, ngram.whole_line),
    ]
    result += ["", f"{group.title}, greedy completions:", "", "| asked | model | 5-gram |", "|---|---|---|"]
    result += [f"| {name} | {_share(mine)} | {_share(its)} |" for name, mine, its in shares]
    if model.parsed is not None:
        result.append(
            f"| the file parses with the written block in place ({asked.blocks} blocks; "
            f"with nothing in place {_share(group.parsed_empty)}) | {_share(model.parsed)} | "
            f"{_share(ngram.parsed)} |"
        )
    return "\n".join(result)


def _bits(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3f}"


def _share(figure: float | None) -> str:
    return "" if figure is None else f"{100 * figure:.1f} %"

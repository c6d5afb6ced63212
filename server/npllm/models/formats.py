"""Fill-in-the-middle prompt formats, as data, one per model family.

A layout is a tuple of pieces. A piece that is a token of the vocabulary becomes that token's id; any other
is text, in which `{path}`, `{prefix}`, `{suffix}` are filled in and then tokenized; `{snippets}` is where
remembered code goes. `repo` is the layout when there are snippets, `layout` when there are none. A
beginning-of-sequence token is put first wherever the tokenizer itself does so.

Sources: Code Llama (2308.12950, section 2.3; its infilling code for the implicit space), StarCoder2
(2402.19173, section 5.1), DeepSeek-Coder (2401.14196 and its README for `#path`), CodeGemma (2406.11409 and
its prompt guide), Qwen2.5-Coder (2409.12186, section 3.1 and its README), Granite Code (2405.04324; it
keeps StarCoder's tokens), Granite 4 (its model cards). The starter's is our own (`npllm.starter`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

SNIPPETS = "{snippets}"


@dataclass(frozen=True, slots=True)
class FimFormat:
    """How one family wants a prompt."""

    name: str
    requires: tuple[str, ...]  # tokens that a vocabulary must have
    layout: tuple[str, ...]
    repo: tuple[str, ...]  # with SNIPPETS as one of its pieces
    snippet: tuple[str, ...]  # one snippet: slots {path} and {text}, or {commented}: both as comment lines
    end: str = ""  # the token that ends a middle; "" = the tokenizer's end of sequence
    stops: tuple[str, ...] = ()  # other tokens that mean "no more", where the vocabulary has them

    @property
    def fills(self) -> bool:
        """Whether the text behind the cursor gets into the prompt."""
        return "{suffix}" in self.layout


def _psm(begin: str, hole: str, end: str) -> tuple[str, ...]:
    return (begin, "{prefix}", hole, "{suffix}", end)


_COMMENTED = ("{commented}",)
_STARTER = ("<|file|>", "{path}\n", "<|prefix|>", "<|suffix|>", "{suffix}", "<|middle|>", "{prefix}")
_PIPES = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_PLAIN = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
_DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
_LLAMA = ("▁<PRE>", "▁<SUF>", "▁<MID>")

# The first whose tokens are all in the vocabulary is taken, so the more particular ones come first.
FORMATS: tuple[FimFormat, ...] = (
    FimFormat(
        name="starter",
        requires=("<|file|>", "<|prefix|>", "<|suffix|>", "<|middle|>", "<|end|>"),
        layout=_STARTER,  # suffix, prefix, middle: typing only appends
        repo=(SNIPPETS, *_STARTER),
        snippet=("<|file|>", "{path}\n{text}\n"),
        end="<|end|>",
        stops=("<|file|>", "<|prefix|>", "<|suffix|>", "<|middle|>", "<|pad|>"),
    ),
    FimFormat(
        name="codegemma",
        requires=(*_PIPES, "<|file_separator|>"),
        layout=_psm(*_PIPES),
        repo=(SNIPPETS, *_psm(*_PIPES)),
        snippet=("{text}\n", "<|file_separator|>"),
        end="<|file_separator|>",
        stops=(*_PIPES, "<eos>"),
    ),
    FimFormat(
        name="qwen2.5-coder",
        requires=(*_PIPES, "<|file_sep|>"),
        layout=_psm(*_PIPES),
        repo=(SNIPPETS, "<|file_sep|>", "{path}\n", *_psm(*_PIPES)),
        snippet=("<|file_sep|>", "{path}\n{text}\n"),
        end="<|endoftext|>",
        stops=(*_PIPES, "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>"),
    ),
    FimFormat(
        name="granite-4",
        requires=_PIPES,
        layout=_psm(*_PIPES),
        repo=(_PIPES[0], SNIPPETS, *_psm(*_PIPES)[1:]),
        snippet=_COMMENTED,
        stops=(*_PIPES, "<|fim_pad|>", "<|filename|>", "<|reponame|>", "<|start_of_role|>", "<|end_of_text|>"),
    ),
    FimFormat(
        name="starcoder2",
        requires=(*_PLAIN, "<file_sep>"),
        layout=_psm(*_PLAIN),
        repo=(SNIPPETS, "<file_sep>", "<fim_prefix>", "{path}\n{prefix}", *_psm(*_PLAIN)[2:]),
        snippet=("<file_sep>", "{path}\n{text}\n"),
        end="<|endoftext|>",
        stops=(*_PLAIN, "<fim_pad>", "<repo_name>", "<file_sep>"),
    ),
    FimFormat(
        name="granite",
        requires=_PLAIN,
        layout=_psm(*_PLAIN),
        repo=(_PLAIN[0], SNIPPETS, *_psm(*_PLAIN)[1:]),
        snippet=_COMMENTED,
        end="<|endoftext|>",
        stops=(*_PLAIN, "<fim_pad>", "<filename>", "<reponame>"),
    ),
    FimFormat(
        name="deepseek-coder",
        requires=_DEEPSEEK,
        layout=_psm(*_DEEPSEEK),
        repo=(_DEEPSEEK[0], SNIPPETS, "#{path}\n{prefix}", *_psm(*_DEEPSEEK)[2:]),
        snippet=("#{path}\n{text}\n\n",),
        stops=(*_DEEPSEEK, "<|EOT|>"),
    ),
    FimFormat(
        name="codellama",
        requires=(*_LLAMA, "▁<EOT>"),
        layout=_psm(*_LLAMA),
        repo=(_LLAMA[0], SNIPPETS, *_psm(*_LLAMA)[1:]),
        snippet=_COMMENTED,
        end="▁<EOT>",
        stops=(*_LLAMA, "</s>"),
    ),
)

PREFIX_ONLY = FimFormat(
    name="prefix-only",
    requires=(),
    layout=("{prefix}",),
    repo=(SNIPPETS, "{prefix}"),
    snippet=_COMMENTED,
)


def choose_by_vocabulary(vocabulary: Collection[str]) -> FimFormat:
    """The format whose tokens a vocabulary has; `PREFIX_ONLY` where it has none's."""
    for candidate in FORMATS:
        if all(token in vocabulary for token in candidate.requires):
            return candidate
    return PREFIX_ONLY


def control_tokens() -> frozenset[str]:
    """Every token that any format gives a meaning to."""
    return frozenset(
        piece
        for item in FORMATS
        for piece in (*item.requires, *item.stops, *item.layout, item.end)
        if piece and "{" not in piece
    )

"""The starter's byte-level BPE tokenizer and its special tokens.

A line break takes the indentation that follows with it (``\\n    `` is one pre-token), so that the text before
a cursor that stands at the start of an indented line is cut where training text is cut. Underscores lead the word
behind them, digits go in threes at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PREFIX = "<|prefix|>"
SUFFIX = "<|suffix|>"
MIDDLE = "<|middle|>"
FILE = "<|file|>"
END = "<|end|>"
PAD = "<|pad|>"
SPECIAL_TOKENS: tuple[str, ...] = (PAD, END, FILE, PREFIX, SUFFIX, MIDDLE)

_SPLIT = r"\n[ \t]*| ?_*\p{L}+| ?\p{N}{1,3}| ?_+| ?[^\s\p{L}\p{N}_]+|[ \t]+(?=\n)|[ \t]+(?! )|\s"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train byte-level BPE with `vocabulary` entries, the special tokens first (pad is 0, end is 1)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Codec:
    """Text to ids for training: special tokens spelled out in a text stay text, and get in by name only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True
        self.pad, self.end, self.file = self._id(PAD), self._id(END), self._id(FILE)
        self.prefix, self.suffix, self.middle = self._id(PREFIX), self._id(SUFFIX), self._id(MIDDLE)
        self.size: int = tokenizer.get_vocab_size()

    @classmethod
    def load(cls, path: Path) -> Codec:
        """Read a tokenizer.json."""
        return cls(Tokenizer.from_file(str(path)))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any special token."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_in_parts(self, text: str, edges: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of a text that is cut at ascending offsets and encoded part by part, as at a cursor; and for each id the
        offset in characters behind it."""
        ids: list[int] = []
        ends: list[int] = []
        begin = 0
        for edge in (*edges, len(text)):
            encoding = self._tokenizer.encode(text[begin:edge], add_special_tokens=False)
            ids += encoding.ids
            ends += [begin + end for _, end in encoding.offsets]
            begin = edge
        return ids, ends

    def _id(self, token: str) -> int:
        number: int | None = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no {token}")
        return number

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens spelled out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

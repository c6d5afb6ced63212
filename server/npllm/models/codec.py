"""Text to token ids and back, for any tokenizer, the way prompts need it.

Three things differ from calling the tokenizer: control tokens that are spelled out in somebody's code stay
text (`<|end|>` in a string must not end anything); the space that SentencePiece tokenizers put before a
text can be left out (a middle or a suffix does not begin a text); and decoding is exact (no cleaning up, no
lost leading space).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from npllm.models.formats import control_tokens
from npllm.types import ModelError

_LOOKS_LIKE_CONTROL = re.compile(r"<[|｜]\S+[|｜]>")
_ANCHOR = "\n"


class TextCodec:
    """Wraps a Hugging Face tokenizer; does not change it.

    Args:
        tokenizer: a fast one (`tokenizers` inside), as every current model has.

    Raises:
        ModelError: it is not a fast one.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(
                f"The tokenizer ({type(tokenizer).__name__}) has no tokenizer.json form. "
                "Save it once as a fast tokenizer (transformers' save_pretrained), then use that folder."
            )
        self._backend: Any = backend
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.eos_id: int | None = tokenizer.eos_token_id
        added = tokenizer.added_tokens_decoder.values()
        control = {
            token.content for token in added if token.special or _LOOKS_LIKE_CONTROL.fullmatch(token.content)
        } | (control_tokens() & self.vocabulary.keys())
        escaped = sorted((re.escape(token) for token in control if len(token) > 1), key=len, reverse=True)
        self._control = re.compile("|".join(escaped)) if escaped else None
        begun: list[int] = list(tokenizer("a")["input_ids"])
        bos = tokenizer.bos_token_id
        self.bos: tuple[int, ...] = (bos,) if bos is not None and begun[:1] == [bos] else ()
        self._anchor = self._ids(_ANCHOR)
        self.adds_space = self._ids("a") != self._ids(_ANCHOR + "a")[len(self._anchor) :]
        self._anchor_text: str = self._backend.decode(self._anchor, skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact name, or None."""
        return self.vocabulary.get(token)

    def encode(self, text: str, *, begins: bool = False) -> list[int]:
        """Ids of a text; no special token is added or recognised.

        Args:
            begins: the text begins a document, so that a tokenizer may put its implicit space before it.
        """
        if not text:
            return []
        parts = self._split(text)
        ids = self._ids(parts[0]) if begins or not self.adds_space else self._continued(parts[0])
        for part in parts[1:]:
            ids += self._continued(part) if self.adds_space else self._ids(part)
        return ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a text, and for each the offset (characters) where it begins."""
        if not text:
            return [], []
        ids: list[int] = []
        starts: list[int] = []
        at = 0
        for part in self._split(text):
            encoding = self._backend.encode(part, add_special_tokens=False)
            ids += encoding.ids
            starts += [at + start for start, _ in encoding.offsets]
            at += len(part)
        return ids, starts

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that continue a text; bytes that are no whole character (yet) are left out."""
        if not ids:
            return ""
        text: str = self._backend.decode([*self._anchor, *ids], skip_special_tokens=False)
        return text[len(self._anchor_text) :].rstrip("\ufffd")

    def _split(self, text: str) -> list[str]:
        """The text in parts, broken inside each spelled-out control token so that none is recognised."""
        if self._control is None:
            return [text]
        cuts = [match.start() + 1 for match in self._control.finditer(text)]
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _continued(self, text: str) -> list[int]:
        """Without the implicit space: encode behind an anchor that merges with nothing, then drop the
        anchor."""
        ids = self._ids(_ANCHOR + text)
        return ids[len(self._anchor) :] if ids[: len(self._anchor)] == self._anchor else self._ids(text)

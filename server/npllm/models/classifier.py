"""A text classifier in a Hugging Face folder: how likely each of its labels is for a text.

Safetensors alone, no code from the folder. Knows nothing of what its labels mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from npllm.models import locate
from npllm.types import ModelError

MOST_TOKENS = 512
_HEAD = "ForSequenceClassification"


class Classifier:
    """Loaded; `probabilities` may be called from any thread, one at a time."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.labels = tuple(str(model.config.id2label[index]) for index in range(model.config.num_labels))

    @classmethod
    def load(cls, spec: str) -> Classifier:
        """From a folder, or by a Hugging Face id, which is fetched where it is not there.

        Raises:
            ModelError: it is not there, or is no text classifier with safetensors weights.
        """
        folder = locate.resolve(spec)
        try:
            architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{folder / 'config.json'} cannot be read ({error}). Fetch the model again.") from error
        if not any(str(name).endswith(_HEAD) for name in architectures):
            raise ModelError(
                f"{folder} is no text classifier ({', '.join(map(str, architectures)) or 'nothing said'})."
            )
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        given = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **given)
            model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, **given)
        except Exception as error:
            raise ModelError(f"{folder} cannot be loaded as a text classifier: {error}") from error
        return cls(model.eval().requires_grad_(False), tokenizer)

    def probabilities(self, text: str) -> Mapping[str, float]:
        """Of each label, [0, 1]; they add up to 1 unless the model says that several may hold at once."""
        import torch

        limit = min(MOST_TOKENS, getattr(self._model.config, "max_position_embeddings", MOST_TOKENS) or MOST_TOKENS)
        with torch.inference_mode():
            ids = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=limit)
            ids.pop("token_type_ids", None)
            logits = self._model(**ids).logits[0].float()
            several = self._model.config.problem_type == "multi_label_classification"
            found = torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)
        return dict(zip(self.labels, found.tolist()))

"""An embedder's model: a folder in the layout of sentence-transformers, or of plain transformers, run by torch.

Pooling as the folder says (`1_Pooling/config.json`): the mean over the tokens, or the first token's state; then unit
length. A text that is too long loses its *beginning*: in code the end is nearest to the cursor.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from npllm.types import EMBEDDING_DIM, ModelError

MAX_TOKENS = 256
WEIGHTS = "model.safetensors"
EDGE = 1 << 20  # bytes of the weights' beginning and end that tell models apart
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ("*.json", "*.safetensors", "1_Pooling/*")


def locate(model: str) -> Path:
    """The folder of a model: a folder, or a Hugging Face id, which is fetched where it is not there.

    Raises:
        ModelError: there is none.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"There is no embedding model in {folder}: set memory.embedder to a folder that has config.json, "
            'tokenizer.json and model.safetensors, to a Hugging Face id, or to "" for the one that npllm brings.'
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES), local_files_only=True))
    except Exception:  # noqa: BLE001 - it is not there yet, whatever that is called
        pass
    try:
        return Path(snapshot_download(model, allow_patterns=list(FILES)))
    except Exception as error:
        raise ModelError(
            f"The embedding model {model} is not on this machine and cannot be fetched: {error}. Fetch it where there "
            "is a network, and set memory.embedder to its folder."
        ) from error


def fingerprint(folder: Path) -> str:
    """What tells this model's vectors from another's."""
    weights = folder / WEIGHTS
    found = hashlib.sha256(f"{MAX_TOKENS} {_pooling(folder)} {weights.stat().st_size}".encode())
    with weights.open("rb") as file:
        found.update(file.read(EDGE))
        file.seek(max(0, weights.stat().st_size - EDGE))
        found.update(file.read())
    return found.hexdigest()[:32]


def _pooling(folder: Path) -> str:
    try:
        said = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "mean"
    return "first" if said.get("pooling_mode_cls_token") else "mean"


class Encoder:
    """A loaded model. Lives on one thread.

    Raises:
        ModelError: it cannot be loaded, or its vectors are not of 384 numbers.
    """

    def __init__(self, folder: Path, threads: int, mend: str) -> None:
        import torch
        from tokenizers import Tokenizer

        torch.set_num_threads(threads)  # OpenMP: of this thread
        try:
            if not (folder / WEIGHTS).is_file():
                raise FileNotFoundError(f"it has no {WEIGHTS} (weights in several files or as pickle are not read)")
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self._model: Any = _bert(folder) if settings.get("model_type") == "bert" else _any(folder)
            self._first = _pooling(folder) == "first"
        except Exception as error:
            raise ModelError(f"The embedding model in {folder} cannot be loaded: {error}. {mend}") from error
        size = self._model.config.hidden_size
        if size != EMBEDDING_DIM:
            raise ModelError(
                f"The embedding model in {folder} makes vectors of {size} numbers, and memory holds {EMBEDDING_DIM}: "
                "set memory.embedder to one of that size."
            )
        positions = getattr(self._model.config, "max_position_embeddings", 0) or MAX_TOKENS + 2
        longest = min(MAX_TOKENS, positions - 2)  # RoBERTa's begin at 2
        self._model.eval().requires_grad_(False)
        self._tokenizer.enable_truncation(longest, direction="left")
        self._tokenizer.enable_padding()

    def __call__(self, texts: list[str]) -> list[tuple[float, ...]]:
        import torch

        encoded = self._tokenizer.encode_batch(texts)
        ids = torch.tensor([e.ids for e in encoded])  # [texts, tokens]
        mask = torch.tensor([e.attention_mask for e in encoded])
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            unit = torch.nn.functional.normalize(hidden[:, 0] if self._first else mean, dim=-1)
        return [tuple(vector) for vector in unit.tolist()]


def _bert(folder: Path) -> Any:
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False)
    weights = {name.removeprefix("bert."): value for name, value in load_file(folder / WEIGHTS).items()}
    wanted = set(model.state_dict())
    model.load_state_dict({name: value for name, value in weights.items() if name in wanted})
    return model


def _any(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="float32"
    )

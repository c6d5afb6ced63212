"""The one thread in which the model computes, and the one place where serving imports torch.

Everything else runs on the event loop. Jobs run one after another, under `torch.inference_mode()`; a job is
told to stop through its `threading.Event`, which the engine looks at between any two tokens.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from npllm.config import BaseConfig, CerebellumConfig
from npllm.types import ModelError

if TYPE_CHECKING:
    from npllm.models.adapters import AdapterSet
    from npllm.models.attention import Neuromodulation
    from npllm.models.base import Base, BaseInfo
    from npllm.models.cerebellum import Cerebellum
    from npllm.models.codec import TextCodec
    from npllm.models.drafting import Drafting
    from npllm.models.fim import PromptBuilder
    from npllm.models.modulator import Modulator
    from npllm.models.reading import Reader
    from npllm.models.torch_engine import TorchEngine

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desk:
    """What a job gets to work with; `cerebellum` and `drafting` where there are such."""

    base: Base
    engine: TorchEngine
    builder: PromptBuilder
    reader: Reader
    adapters: AdapterSet
    neuromodulation: Neuromodulation
    modulator: Modulator
    info: BaseInfo
    cerebellum: Cerebellum | None = None
    drafting: Drafting | None = None
    alike: bool = False  # the cerebellum has the base's tokens
    verdicts: OrderedDict[Hashable, bool] = field(default_factory=OrderedDict)  # see `writing`


class EngineWorker:
    """Owns the model's thread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._desk: Desk | None = None
        self._cerebellum: Cerebellum | None = None
        self._drafts = False

    @property
    def info(self) -> BaseInfo | None:
        """The loaded base, or None."""
        return self._desk.info if self._desk else None

    @property
    def codec(self) -> tuple[TextCodec, int] | None:
        """How the loaded base reads text, and how many tokens it knows; None without a base."""
        if self._desk is None:
            return None
        return self._desk.builder.codec, int(self._desk.base.model.config.vocab_size)

    async def load(self, config: BaseConfig) -> BaseInfo:
        """Load the base (again). The old one goes on serving until the new one is there.

        Raises:
            ModelError: the base cannot be loaded; the old one stays.
        """
        desk = await self._submit(lambda: _beside(_load(config), self._cerebellum, self._drafts))
        self._desk = desk
        await self._submit(_set_aside)
        log.info("base %s loaded: %s parameters, %s", desk.info.name, desk.info.parameters, desk.info.fingerprint)
        return desk.info

    async def use_cerebellum(
        self, folder: Path | None, config: CerebellumConfig, device: str, *, version: bool = False
    ) -> None:
        """Load a cerebellum and let it serve beside the base, in the place of the one that does; None: none.

        Args:
            version: whether a sleep made it; else it is a model as it came.

        Raises:
            ModelError: it cannot be loaded, or there is no base yet; what serves goes on.
        """

        def load(desk: Desk) -> tuple[Desk, Cerebellum | None]:
            from npllm.models.cerebellum import Cerebellum

            made = None
            if folder is not None:
                made = Cerebellum.load(folder, context_tokens=config.context_tokens, device=device, version=version)
            return _beside(desk, made, config.enabled and config.draft), made

        self._desk, self._cerebellum = await self.run(load)
        self._drafts = config.enabled and config.draft

    async def look_at_cerebellum(self, spec: str, cache: Path) -> tuple[Path, str]:
        """The folder of the model that a cerebellum begins with, and its fingerprint.

        Raises:
            ModelError: there is none.
        """

        def look() -> tuple[Path, str]:
            from npllm.models.base import fingerprint
            from npllm.models.cerebellum import origin

            folder = origin(spec)
            return folder, fingerprint(folder, cache)

        return await self._submit(look)

    async def run(self, job: Callable[[Desk], T], cancel: threading.Event | None = None) -> T:
        """Run `job` in the model's thread. If the caller is cancelled, so is the job.

        Raises:
            ModelError: no base is loaded.
        """
        desk = self._desk
        if desk is None:
            raise ModelError("No base model is loaded yet.")
        try:
            return await self._submit(lambda: _inferring(job, desk))
        except asyncio.CancelledError:
            if cancel is not None:
                cancel.set()
            raise

    async def _submit(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _inferring(job: Callable[[Desk], T], desk: Desk) -> T:
    import torch

    with torch.inference_mode():
        return job(desk)


def _beside(desk: Desk, cerebellum: Cerebellum | None, drafts: bool) -> Desk:
    """The desk with a cerebellum, and what may draft for its base, measured."""
    import torch

    from npllm.models.drafting import set_up

    drafting = None
    if drafts:
        with torch.inference_mode():
            drafting = set_up(desk.engine, cerebellum.drafter(desk.base.tokenizer) if cerebellum else None)
    alike = cerebellum is not None and cerebellum.reads_as(desk.builder.codec)
    return replace(desk, cerebellum=cerebellum, drafting=drafting, alike=alike)


def _set_aside() -> None:
    """Take what was imported and loaded out of the garbage collector's sight, what was set aside before back into it.

    There are some hundred thousand such objects, and every full collection would look at all of them, for as long as
    some keystrokes take, while nothing else runs.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _load(config: BaseConfig) -> Desk:
    try:
        return _load_checked(config)
    except ModelError:
        raise
    except Exception as error:  # out of memory on a GPU, a broken installation: one sentence, too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"The base {config.model} cannot be loaded: {reason}. Run `npllm doctor`, or choose another base."
        ) from error


def _load_checked(config: BaseConfig) -> Desk:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not eat the editor's CPU
    from npllm.models.adapters import AdapterSet
    from npllm.models.attention import Neuromodulation
    from npllm.models.base import Base
    from npllm.models.fim import PromptBuilder, choose
    from npllm.models.modulator import Modulator
    from npllm.models.reading import Reader
    from npllm.models.torch_engine import TorchEngine

    threads = config.threads or max(1, (os.cpu_count() or 2) // 2)
    base = Base.load(config.model, device=config.device, threads=threads)
    context = min(config.context_tokens, base.info.context_tokens)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), context)
    return Desk(
        base=base,
        engine=TorchEngine(base),
        builder=builder,
        reader=Reader(builder.codec),
        adapters=AdapterSet(base),
        neuromodulation=Neuromodulation(base),
        modulator=Modulator(int(base.model.config.hidden_size), base.info.fingerprint),
        info=base.info,
    )

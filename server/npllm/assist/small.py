"""Which cerebellum serves: the published version of the configured model, else that model as it came, else none.

Asked again whenever a version is announced. That the shipped model is not there is no error: everything works without a
cerebellum, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from npllm.assist.worker import EngineWorker
from npllm.config import CerebellumConfig, Config
from npllm.memory.store import Store
from npllm.types import CerebellumVersion, ModelError, VersionState

log = logging.getLogger(__name__)


def loading(settings: CerebellumConfig) -> tuple[object, ...]:
    """What of the settings decides which cerebellum is loaded, and how; the rest is looked at with each request."""
    return settings.enabled, settings.model, settings.context_tokens, settings.draft


class Small:
    """Keeps the worker's cerebellum up to date.

    Args:
        problem: told what is wrong, in one sentence; "" when it works.
    """

    def __init__(self, worker: EngineWorker, problem: Callable[[str], None]) -> None:
        self._worker = worker
        self._problem = problem
        self._serving: tuple[tuple[object, ...], Path | None, UUID | None] | None = None
        self._absent = ""

    @property
    def version(self) -> UUID | None:
        """The version that serves."""
        return self._serving[2] if self._serving else None

    async def refresh(self, config: Config, store: Store | None) -> bool:
        """Swap in what should serve now; True if that is another one.

        Raises:
            StoreError: the database does not answer; what serves goes on.
        """
        settings = config.cerebellum
        if self._worker.info is None:
            return False
        origin, fingerprint = await self._origin(config)
        version = await self._version(store, fingerprint)
        folder = config.home / version.folder if version is not None else origin
        wanted = (loading(settings), folder, version.id if version is not None else None)
        if wanted == self._serving:
            return False
        try:
            await self._worker.use_cerebellum(folder, settings, config.base.device, version=version is not None)
            self._problem("")
        except ModelError as error:
            self._problem(str(error))
            if version is None or origin is None:
                await self._worker.use_cerebellum(None, settings, config.base.device)
            else:  # the model as it came can still draft
                await self._worker.use_cerebellum(origin, settings, config.base.device)
        self._serving = wanted
        return True

    async def _origin(self, config: Config) -> tuple[Path | None, str]:
        """The configured model's folder and fingerprint; None where there is none."""
        if not config.cerebellum.enabled:
            return None, ""
        try:
            return await self._worker.look_at_cerebellum(config.cerebellum.model, config.home / "cache")
        except ModelError as error:
            if self._absent != str(error):
                self._absent = str(error)
                log.info("%s", error)
                if config.cerebellum.model != CerebellumConfig().model:
                    self._problem(str(error))
            return None, ""

    async def _version(self, store: Store | None, fingerprint: str) -> CerebellumVersion | None:
        if store is None or not fingerprint:
            return None
        found = await store.cerebellum.versions(origin=fingerprint, state=VersionState.PUBLISHED)
        return found[0] if found else None

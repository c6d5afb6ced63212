"""Which gains of neuromodulated attention act: the published ones for the base, where the settings want any."""

from __future__ import annotations

from npllm.assist.worker import Desk, EngineWorker
from npllm.config import Config
from npllm.memory.store import Store
from npllm.types import ModelError, VersionState


async def refresh(store: Store, worker: EngineWorker, fingerprint: str, config: Config) -> list[str]:
    """Let the published version act, or none; one sentence for one that was refused.

    Args:
        fingerprint: of the loaded base.

    Raises:
        StoreError: the database does not answer.
    """
    wanted = None
    if config.attention.enabled:
        wanted = next(iter(await store.attention_versions(fingerprint, state=VersionState.PUBLISHED)), None)

    def swap(desk: Desk) -> list[str]:
        acting = desk.neuromodulation
        if wanted is None:
            acting.unload()
        elif acting.version != wanted.id:
            try:
                acting.load(wanted.id, config.home / wanted.folder)
            except ModelError as error:
                acting.unload()
                return [str(error)]
        return []

    return await worker.run(swap)

"""Whether what learns beside the adapters has something to do, each by its own count of what is new.

A sleep in which nobody has begins nothing: no row in the database says that it was.
"""

from __future__ import annotations

import threading
from uuid import UUID

from npllm.config import Config
from npllm.memory.store import Store
from npllm.sleep import attending, policy_learning
from npllm.sleep.cerebellum import CerebellumStep


async def others(
    store: Store,
    config: Config,
    base_fingerprint: str,
    consolidation: UUID,
    cerebellum: CerebellumStep,
    stop: threading.Event,
) -> bool:
    """Whether the cerebellum (which has looked), the attention or the modulator would learn.

    Raises:
        Interrupted: the person is back.
        StoreError: the database is away.
    """
    return (
        await cerebellum.wanted(consolidation)
        or await attending.wanted(store, config, base_fingerprint, consolidation, stop)
        or await _policy(store, config, base_fingerprint)
    )


async def _policy(store: Store, config: Config, base_fingerprint: str) -> bool:
    """Whether a policy would be learned. Raises StoreError."""
    if config.modulator.policy != "learned":
        return False
    decisions = await store.policies.decided(base_fingerprint)
    known = await store.policies.versions(base_fingerprint)
    return not policy_learning.waits_for(decisions, known, config.modulator)

"""Whether what learns beside the adapters has something to do, each by its own count of what is new.

A sleep in which nobody has begins nothing: no row in the database says that it was.
"""

from __future__ import annotations

import threading
from uuid import UUID

from npllm.config import Config
from npllm.memory.store import Store
from npllm.sleep import attending
from npllm.sleep.cerebellum import CerebellumStep
from npllm.sleep.policy_learning import halves
from npllm.types import VersionState


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
    """A policy learns from all decisions each time: a sleep is worth it for as many new ones as the first one takes."""
    if config.modulator.policy != "learned":
        return False
    decisions = await store.policies.decided(base_fingerprint)
    versions = await store.policies.versions(base_fingerprint)
    last = next((one for one in versions if one.state is not VersionState.FORGOTTEN), None)
    known = last.metrics.get("decisions", 0.0) if last else 0.0
    return len(decisions) - known >= config.modulator.min_decisions and bool(halves(decisions)[1])

"""A row that says `running` though nobody sleeps: its child was killed, or did not get to say that it was interrupted.

The trainer's lock tells: who holds it sleeps. Knows nothing of processes; used by whoever shows or decides something.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from npllm.memory.store import Store
from npllm.types import ConsolidationState

log = logging.getLogger(__name__)


async def settle(store: Store) -> bool:
    """Mark the newest sleep as interrupted if it says `running` and nobody holds the trainer's lock; False: one does.

    Raises:
        StoreError: the database is away.
    """
    last = await store.last_consolidation()
    if last is None or last.state is not ConsolidationState.RUNNING:
        return True
    async with store.trainer_lock() as ours:
        if not ours:
            return False  # it runs indeed
        last = await store.interrupted_consolidation()  # again: it may have ended meanwhile
        if last is not None and last.state is ConsolidationState.RUNNING:
            log.info("sleep %s was cut short without a word; the next one goes on with it", last.id)
            await store.upsert_consolidation(replace(last, state=ConsolidationState.INTERRUPTED))
    return True

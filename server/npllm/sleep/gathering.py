"""What there is to learn, by context: the new experiences since the version in use, and the old ones to replay.

"New" is counted from the newest experience that a version of this context *for this base* has learned from; after a
change of the base everything is new again. A rejected version moves nothing: what it tried is tried again, with more;
nor does one that was rolled back or forgotten. A context whose version is pinned is left alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from npllm.config import Config
from npllm.memory.store import Store
from npllm.models.manifest import read_manifest
from npllm.sleep.dataset import Part, divide
from npllm.sleep.interruption import look
from npllm.sleep.report import ContextReport, Verdict
from npllm.types import AdapterVersion, Experience, ModelError, VersionState

log = logging.getLogger(__name__)

MOST_NEW = 4000  # experiences of a context that are looked at; after a change of the base all are new
MOST_OLD = 4000


@dataclass(frozen=True, slots=True)
class Job:
    """One context with enough that is new.

    Attributes:
        until: when the newest experience was made.
        parent: the version in use, or None.
    """

    context: str
    part: Part
    until: datetime
    parent: AdapterVersion | None


async def gather(
    store: Store, config: Config, base_fingerprint: str, consolidation: UUID, stop: threading.Event
) -> tuple[list[Job], tuple[ContextReport, ...]]:
    """The contexts to train, most experiences first, and reports on those that must wait.

    Contexts that this consolidation has decided already are left out.

    Raises:
        Interrupted, StoreError
    """
    jobs: list[Job] = []
    waiting: list[ContextReport] = []
    for item in await store.contexts_with_new(None):
        look(stop)
        versions = await store.adapter_versions(base_fingerprint=base_fingerprint, context=item.context)
        versions = [version for version in versions if version.state is not VersionState.FORGOTTEN]
        if any(version.consolidation_id == consolidation for version in versions):
            continue
        pinned = next((version for version in versions if version.pinned), None)
        if pinned is not None:
            reason = f"{pinned.id} is pinned, so nothing is learned (`npllm adapters unpin {pinned.id.hex[-8:]}`)."
            waiting.append(ContextReport(item.context, Verdict.WAITING, reason))
            continue
        start = _new_since(versions)
        new = await store.experiences_since(start, context=item.context, limit=MOST_NEW, newest_first=True)
        if not new:
            continue
        old: list[Experience] = []
        if start is not None:
            old = await store.experiences_before(start, context=item.context, limit=MOST_OLD)
        parent = next((version for version in versions if version.state is VersionState.PUBLISHED), None)
        part = divide(new, old, config.sleep, seed=str(consolidation), learned=_learned(config.home, parent))
        if isinstance(part, int):
            reason = f"{len(new)} new experiences; {part} with a text to learn are needed, so they wait."
            waiting.append(ContextReport(item.context, Verdict.WAITING, reason, new=len(new)))
        else:
            jobs.append(Job(item.context, part, max(one.created_at for one in new), parent))
    return jobs, tuple(waiting)


def _new_since(versions: Sequence[AdapterVersion]) -> datetime | None:
    """What is made at this time or later is new; None: everything."""
    # A version that was rolled back or forgotten does not count: what it alone had learned is new again.
    published = [version for version in versions if version.state is VersionState.PUBLISHED]
    known = [version.metrics["until"] for version in published if "until" in version.metrics]
    # The experience at `until` itself was learned; timestamps have microseconds.
    return datetime.fromtimestamp(max(known), UTC) + timedelta(microseconds=1) if known else None


def _learned(home: Path, parent: AdapterVersion | None) -> frozenset[UUID]:
    """What the version in use has learned from, by its manifest; nothing where that cannot be read."""
    if parent is None:
        return frozenset()
    try:
        return frozenset(UUID(str(id)) for id in read_manifest(home / parent.folder).data.get("learned", ()))
    except (ModelError, ValueError) as error:
        log.warning("what version %s has learned from is not known: %s", parent.id, error)
        return frozenset()

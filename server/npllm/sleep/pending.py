"""How many experiences wait for a sleep, as the scheduler counts them. Cheap: it is asked once a second.

They are counted from the last sleep that was done for this base, or that found nothing to do: of the adapters, the
cerebellum and the attention each learns when it has enough, so what comes is new to one of them. What a version had
learned that was forgotten since is new again: it was learned by nobody else. So is what the last sleep had no time for,
until a sleep finds that there is nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from npllm.sleep.leftover import left_by
from npllm.types import ConsolidationState, VersionState

if TYPE_CHECKING:
    from npllm.memory.store import Store


class _Version(Protocol):
    """A version of any kind."""

    @property
    def state(self) -> VersionState: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


async def pending(store: Store, base_fingerprint: str, in_vain: datetime | None) -> int:
    """How many experiences are new to the next sleep.

    Args:
        base_fingerprint: of the base that is served, "" where that is not known yet.
        in_vain: when the last sleep that found nothing to do began.

    Raises:
        StoreError: the database is away.
    """
    done = await store.last_consolidation(ConsolidationState.DONE, base_fingerprint=base_fingerprint or None)
    since = _later(done.started_at if done else None, in_vain)
    seen = _later(done.ended_at if done else None, in_vain)
    forgotten = await store.forgetting.last()
    if since is not None and seen is not None and forgotten is not None and forgotten > seen:
        again = [new_since(versions) for versions in await _tainted(store, base_fingerprint)]
        since = None if None in again else min([since, *(one for one in again if one is not None)])
    new = sum(item.count for item in await store.contexts_with_new(since))
    if not base_fingerprint or done is None or (in_vain is not None and in_vain > done.started_at):
        return new
    in_use = await store.adapter_versions(base_fingerprint=base_fingerprint, state=VersionState.PUBLISHED)
    return new + left_by(in_use, done)


def new_since(versions: Iterable[_Version]) -> datetime | None:
    """What is made at this time or later is new to a line of versions, of which one is in use; None: everything."""
    # A version that was rolled back or forgotten does not count: what it alone had learned is new again.
    published = [version for version in versions if version.state is VersionState.PUBLISHED]
    known = [version.metrics["until"] for version in published if "until" in version.metrics]
    # The experience at `until` itself was learned; timestamps have microseconds.
    return datetime.fromtimestamp(max(known), UTC) + timedelta(microseconds=1) if known else None


async def _tainted(store: Store, base_fingerprint: str) -> list[list[_Version]]:
    """The lines of versions that a forgetting has taken some from."""
    lines: dict[tuple[str, str], list[_Version]] = {}
    for adapter in await store.adapter_versions(base_fingerprint=base_fingerprint or None):
        lines.setdefault(("adapter", adapter.context), []).append(adapter)
    for small in await store.cerebellum.versions():
        lines.setdefault(("cerebellum", small.origin), []).append(small)
    for gains in await store.attention_versions(base_fingerprint):
        lines.setdefault(("attention", ""), []).append(gains)
    return [line for line in lines.values() if any(one.state is VersionState.FORGOTTEN for one in line)]


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(filter(None, (one, other)), default=None)

"""What the database knows of bases: adapters of each, and how much one still has to learn. Nothing here changes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from npllm.config import Config
from npllm.memory import postgres
from npllm.memory.store import Store
from npllm.sleep.leftover import LEFT
from npllm.types import AdapterVersion, StoreError, VersionState


@dataclass(frozen=True, slots=True)
class Lineage:
    """The adapters of one base.

    Attributes:
        name: the base's, as it was set when the newest of them was trained; "" where that is not known.
        contexts: those with an adapter in use, e.g. "language:python".
    """

    fingerprint: str
    name: str
    contexts: tuple[str, ...]
    newest: datetime


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned, by base.

    Attributes:
        experiences: all there are.
        ahead: those that the base which was asked about has not learned from yet.
        problem: why nothing is known; "" where it is.
    """

    lineages: tuple[Lineage, ...] = ()
    experiences: int = 0
    ahead: int = 0
    problem: str = ""

    def of(self, fingerprint: str | None) -> Lineage | None:
        """The adapters of a base, if there are any."""
        return next((one for one in self.lineages if one.fingerprint == fingerprint), None)


async def look(settings: Config, fingerprint: str | None) -> Learned:
    """Ask the database, if there is one; one that does not answer is a `problem` and no error.

    Args:
        fingerprint: of the base that `ahead` is about.
    """
    if not settings.database.url and not postgres.status(settings.home).made:
        return Learned()  # nothing was ever learned, and a look must not make a database
    try:
        store = await Store.connect(settings)
        try:
            versions = await store.adapter_versions()
            counts = await store.counts()
            ahead = await _ahead(store, [one for one in versions if one.base_fingerprint == fingerprint])
        finally:
            await store.close()
    except (StoreError, OSError) as error:
        return Learned(problem=str(error))
    return Learned(_lineages(versions, settings.home), counts.experiences, ahead)


async def _ahead(store: Store, versions: Sequence[AdapterVersion]) -> int:
    """Experiences that the next sleep finds new, by the rule of `npllm.sleep.gathering`: made after the newest that a
    version in use in their context was trained or judged with, or left over by that one's sleep."""
    total = 0
    for item in await store.contexts_with_new(None):
        known = [
            version.metrics
            for version in versions
            if version.context == item.context
            and version.state is VersionState.PUBLISHED
            and "until" in version.metrics
        ]
        if not known:
            total += item.count
            continue
        total += int(sum(metrics.get(LEFT, 0) for metrics in known))
        since = datetime.fromtimestamp(max(metrics["until"] for metrics in known), UTC) + timedelta(microseconds=1)
        newer = await store.contexts_with_new(since)
        total += next((one.count for one in newer if one.context == item.context), 0)
    return total


def _lineages(versions: Sequence[AdapterVersion], home: Path) -> tuple[Lineage, ...]:
    """Newest first; bases of which no version is in use are left out."""
    found = []
    for fingerprint in dict.fromkeys(version.base_fingerprint for version in versions):
        published = [
            version
            for version in versions
            if version.base_fingerprint == fingerprint and version.state is VersionState.PUBLISHED
        ]
        if published:
            name = next(filter(None, (_base_name(home / version.folder) for version in published)), "")
            contexts = tuple(sorted({version.context for version in published}))
            found.append(Lineage(fingerprint, name, contexts, published[0].created_at))
    return tuple(found)


def _base_name(folder: Path) -> str:
    """What an adapter's folder says it was trained on."""
    try:
        name = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return name if isinstance(name, str) else ""

"""What was new for a sleep and did not fit into its time: it stays new for the next one.

A version's manifest names it (`UNTRAINED`), and its metrics have the number (`LEFT`). Counted from the version in use,
as `until` is: what that one's sleep took up again and trained is named no more, what a rejected or abandoned version
named does not count. Knows no model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from npllm.models.manifest import read_manifest
from npllm.types import AdapterVersion, CerebellumVersion, Consolidation, ModelError, VersionState

log = logging.getLogger(__name__)

UNTRAINED = "untrained"  # in the manifest's data: ids of experiences
LEFT = "left"  # in the metrics


def untrained(home: Path, version: AdapterVersion | CerebellumVersion) -> list[UUID]:
    """The ids of the new experiences that a version's sleep had no time for; none where its manifest cannot be read."""
    try:
        return [UUID(id) for id in read_manifest(home / version.folder).data.get(UNTRAINED, ())]
    except (ModelError, ValueError, TypeError) as error:
        log.warning("what the sleep of %s had no time for is not known: %s", version.id, error)
        return []


def left_by(versions: Sequence[AdapterVersion], last: Consolidation | None) -> int:
    """How many experiences the last sleep had no time for, at most in one of its contexts; they are new for the next.

    Only of versions in use that it made itself: what a later sleep could not publish is no reason to sleep at once.
    """
    made = [
        int(version.metrics.get(LEFT, 0))
        for version in versions
        if last is not None and version.consolidation_id == last.id and version.state is VersionState.PUBLISHED
    ]
    return max(made, default=0)


def words(left: int, new: int) -> str:
    """For the report: so many of the new ones wait; "" where none do."""
    if not left:
        return ""
    return f"For {left} of {new} new experiences there was no time: they stay new for the next sleep."

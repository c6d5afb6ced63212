"""Which of the cerebellum's versions keep their weights: a whole model each, so not all of them can.

Kept are the version in use and its parent, the newest superseded ones, which may come back when something is forgotten,
and the newest rejected ones. The rows and the manifests always stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from npllm.types import CerebellumVersion, VersionState

log = logging.getLogger(__name__)

SUPERSEDED = 3  # that are kept


def spare(versions: Sequence[CerebellumVersion], keep_rejected: int) -> list[CerebellumVersion]:
    """Those of any origin whose weights nobody needs.

    Args:
        versions: all, newest first.
    """
    most = {VersionState.RETIRED: SUPERSEDED, VersionState.REJECTED: keep_rejected}
    parents = {version.parent for version in versions if version.state is VersionState.PUBLISHED}
    seen: Counter[tuple[str, VersionState]] = Counter()
    found = []
    for version in versions:
        if version.state not in most:
            continue
        seen[version.origin, version.state] += 1
        if seen[version.origin, version.state] > most[version.state] and version.id not in parents:
            found.append(version)
    return found


def prune(home: Path, versions: Iterable[CerebellumVersion]) -> None:
    """Remove the weights of versions, as far as the system lets us."""
    for version in versions:
        for file in (home / version.folder).glob("*.safetensors"):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s is not needed any more and cannot be removed: %s", file, error)
            else:
                log.info("removed %s: the cerebellum %s is %s", file.name, version.id, version.state.value)

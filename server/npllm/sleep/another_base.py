"""The cerebellum beside another base: how much of a say it gets is chosen and judged anew, and it learns nothing.

A version's say was found beside one base, and another one writes alone. Where that has the cerebellum's tokens, a sleep
with too little for it to learn makes a version of the same weights with the say, and the confidence, that it has beside
this base (`say_exam`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid5

from npllm.config import Config
from npllm.memory.store import Store
from npllm.sleep.dataset import Part
from npllm.sleep.interruption import look
from npllm.sleep.meter import Meter
from npllm.sleep.project import Passage
from npllm.sleep.protocol import Phase
from npllm.types import CerebellumVersion, Experience

MOST_PATTERNS = 100_000  # that a version takes over from the one before


def other(config: Config, folder: Path) -> bool:
    """Whether the version in a folder has its say beside another base than that of the settings, and may have one here.

    Raises:
        ModelError: its manifest, or the base, cannot be read.
    """
    from npllm.models.base import fingerprint, resolve
    from npllm.models.manifest import read_manifest
    from npllm.sleep.knowledge import same_tokens

    if not config.cerebellum.blend or not same_tokens(folder, config.base.model):
        return False
    found = dict(read_manifest(folder).data.get("calibration") or {})
    return found.get("base") != fingerprint(resolve(config.base.model), config.home / "cache")


def part_of(config: Config, folder: Path, old: Sequence[Experience]) -> Part | None:
    """What the version in a folder had learned and held out; None: too little is left to judge by.

    Args:
        old: experiences from before it was made, that may be read.

    Raises:
        ModelError: its manifest cannot be read.
    """
    from npllm.models.manifest import read_manifest

    data = read_manifest(folder).data
    learned, judged = set(data.get("learned", ())), set(data.get("held_out", ()))
    held_out = tuple(item for item in old if str(item.id) in judged)
    if len(held_out) < config.sleep.min_holdout:
        return None
    return Part(tuple(item for item in old if str(item.id) in learned), (), (), held_out)


async def ask_anew(
    store: Store,
    config: Config,
    version: CerebellumVersion,
    part: Part,
    passages: Sequence[Passage],
    consolidation: UUID,
    stop: threading.Event,
    meter: Meter,
) -> str:
    """Publish the weights of the version in use with the say that they have beside the base of the settings; what came
    of it, in a sentence or two.

    Args:
        part: of `part_of`.
        passages: of the project.

    Raises:
        Interrupted, StoreError
        ModelError: it cannot be asked, or the disk refuses.
    """
    from npllm.sleep import say_exam

    start = config.home / version.folder
    off_limits = await store.forgetting.off_limits()
    answer = await asyncio.to_thread(say_exam.ask, config, start, part, passages, off_limits, stop, meter)
    look(stop)
    meter.phase(Phase.PUBLISHING)
    # the same again where it is killed before it was announced; never that of one that was forgotten since
    id = uuid5(consolidation, f"another base {version.id}")
    final = config.cerebellum_dir / str(id)
    metrics = {**version.metrics, **answer.metrics}
    made = replace(
        version,
        id=id,
        parent=version.id,
        consolidation_id=consolidation,
        folder=final.relative_to(config.home).as_posix(),
        sha256=await asyncio.to_thread(say_exam.write, start, final, id, consolidation, answer, metrics),
        reason=answer.text,
        metrics=metrics,
        created_at=datetime.now(UTC),
    )
    await store.cerebellum.publish(made, await store.cerebellum.patterns(limit=MOST_PATTERNS))
    return answer.text

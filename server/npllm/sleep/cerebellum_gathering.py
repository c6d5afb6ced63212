"""What there is for the cerebellum to learn in a sleep: the experiences of all contexts since its version in use.

As `gathering` for the adapters, but for its own lineage, per model that it grew from: a change of the base makes
nothing new. Where too little is new, and its say was found beside another base than the present one, there is a job in
which it is only asked anew (`another_base`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import UUID

from npllm.config import Config
from npllm.memory.cerebellum import CONTEXT
from npllm.memory.store import Store
from npllm.sleep import another_base, leftover, project
from npllm.sleep.dataset import Part, divide
from npllm.sleep.gathering import MOST_APART, ancestry, drawn, older
from npllm.sleep.ignoring import Ignoring
from npllm.sleep.interruption import look
from npllm.sleep.pending import new_since
from npllm.sleep.plan import OldSlice
from npllm.sleep.project import Passage
from npllm.sleep.report import CerebellumReport
from npllm.types import CerebellumVersion, Experience, ModelError, VersionState

log = logging.getLogger(__name__)

MOST_NEW = 4000  # experiences that are looked at
MOST_OLD = 4000  # experiences that a version which only is asked anew had learned or held out
LINEAGE = (VersionState.PUBLISHED, VersionState.RETIRED)
CHARACTERS = 3  # of a passage, for each token that an example may have


@dataclass(frozen=True, slots=True)
class Origin:
    """The model that a cerebellum grew from."""

    folder: Path
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Job:
    """What it learns in this sleep, and from where it goes on.

    Attributes:
        origin: fingerprint of the model that it grew from; `start`: the folder that it begins with now.
        parent: the version in use, or None.
        until: when the newest experience was made.
        slices, judged_again, apart: as of an adapter's job.
        lineage: the metrics of the versions that it came of.
        anew: it learns nothing: its say is chosen beside another base; `part` is what it had learned and held out.
    """

    origin: str
    start: Path
    parent: CerebellumVersion | None
    part: Part
    until: datetime
    slices: tuple[OldSlice, ...] = ()
    judged_again: tuple[Experience, ...] = ()
    apart: tuple[Experience, ...] = ()
    lineage: tuple[Mapping[str, float], ...] = ()
    anew: bool = False


def origin_of(config: Config) -> Origin:
    """The model that a cerebellum begins with. Raises ModelError: there is none."""
    from npllm.models.base import fingerprint
    from npllm.models.cerebellum import origin

    folder = origin(config.cerebellum.model)
    return Origin(folder, fingerprint(folder, config.home / "cache"))


async def gather(
    store: Store, config: Config, origin: Origin, consolidation: UUID, stop: threading.Event
) -> Job | CerebellumReport | None:
    """The job; a report that says why it must wait; None: this consolidation has decided.

    Raises:
        Interrupted, StoreError
        ModelError: the version in use, or the base, cannot be read.
    """
    versions = await store.cerebellum.versions(origin=origin.fingerprint)
    versions = [version for version in versions if version.state is not VersionState.FORGOTTEN]
    if any(version.consolidation_id == consolidation for version in versions):
        return None
    parent = next((version for version in versions if version.state is VersionState.PUBLISHED), None)
    if parent is not None and parent.pinned:
        return CerebellumReport(
            reason=f"{parent.id} is pinned, so nothing is learned (`npllm adapters unpin {parent.id.hex[-8:]}`)."
        )
    since = new_since(versions)
    new = await store.experiences_since(since, limit=MOST_NEW, newest_first=True)
    left: list[UUID] = []
    if parent is not None and since is not None:
        left = await asyncio.to_thread(leftover.untrained, config.home, parent)
        new += await store.experiences_among(left, limit=max(0, MOST_NEW - len(new))) if left else []
    ignoring = Ignoring(config.memory.ignore)
    new = ignoring.learnable(new)
    seed = f"{consolidation}|{CONTEXT}"
    old = await drawn(store, config, origin.fingerprint, CONTEXT, since, seed, len(new), left, everywhere=True)
    old = [one for one in old if not ignoring.leaves_alone(one.experience.place)]
    apart = await store.replay.apart(CONTEXT, limit=MOST_APART)
    look(stop)
    lineage = [version for version in versions if version.state in LINEAGE]
    sleep = replace(config.sleep, epochs=1)  # no inner validation: the gate alone decides
    taken = {one.id for one in apart}
    part = divide(
        [one for one in new if one.id not in taken],
        old,
        sleep,
        seed=seed,
        apart=apart,
        versions=len(lineage),
        left=frozenset(left),
    )
    start = await asyncio.to_thread(_start, config.home, parent, origin.folder)
    if isinstance(part, int):
        return await beside_another(store, config, origin.fingerprint, parent, start) or CerebellumReport(
            reason=f"{len(new)} new experiences; {part} with a text to learn are needed, so they wait.",
            new=len(new),
        )
    line = ancestry(lineage, parent)
    slices, texts = await older(store, CONTEXT, line, seed, config.cerebellum.context_tokens)
    until = max(item.created_at for item in new)
    until = max(until, since) if since is not None else until  # all that is new may have been left over
    metrics = tuple(version.metrics for version in line)
    return Job(origin.fingerprint, start, parent, part, until, slices, texts, tuple(apart), metrics)


async def beside_another(
    store: Store, config: Config, origin: str, parent: CerebellumVersion | None, start: Path
) -> Job | None:
    """What the version in use is asked by, where its say was found for another base than the present one.

    Raises:
        StoreError
        ModelError: the version in use, or the base, cannot be read.
    """
    since = new_since([parent] if parent else [])
    if parent is None or since is None or start != config.home / parent.folder:
        return None
    if not await asyncio.to_thread(another_base.other, config, start):
        return None
    old = await store.experiences_before(since, limit=MOST_OLD)
    old = Ignoring(config.memory.ignore).learnable(old)
    part = another_base.part_of(config, start, old)
    return None if part is None else Job(origin, start, parent, part, old[0].created_at, anew=True)


def passages_for(
    config: Config, job: Job, seed: str, off_limits: Sequence[str], stop: threading.Event
) -> tuple[Passage, ...]:
    """Of the project's files in each language that the experiences are in, so many as their share of what is learned.

    Raises:
        Interrupted: the person is back.
    """
    share = config.sleep.project_share
    items = job.part.all
    held_out = (*job.part.held_out, *job.part.inner)
    made: list[Passage] = []
    for language, number in Counter(item.place.language for item in items).most_common():
        made += project.passages(
            language,
            items,
            learned=(*job.part.learn, *job.part.replay) if config.sleep.written_files else (),
            held_out=held_out,
            apart=job.apart,
            count=round(number * share / (1 - share)),
            characters=CHARACTERS * config.cerebellum.context_tokens,
            seed=seed,
            stop=stop,
            off_limits=off_limits,
            ignore=config.memory.ignore,
        )
    random.Random(seed).shuffle(made)
    return tuple(made[: project.MOST])


def _start(home: Path, parent: CerebellumVersion | None, origin: Path) -> Path:
    """The version in use, if it is whole; else the model as it came."""
    if parent is None:
        return origin
    from npllm.models.cerebellum import WEIGHTS
    from npllm.models.manifest import read_manifest, sha256_file
    from npllm.sleep.plastic_days import layer_in

    folder = home / parent.folder
    try:
        if sha256_file(folder / WEIGHTS) != read_manifest(folder).sha256:
            raise ModelError(f"{folder / WEIGHTS} is not what its manifest says (sha256 differs).")
        layer_in(folder)
    except (ModelError, OSError) as error:
        log.warning("the cerebellum in use cannot be learned on from, so it begins anew: %s", error)
        return origin
    return folder

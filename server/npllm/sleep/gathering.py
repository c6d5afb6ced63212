"""What there is to learn, by context: the new experiences since the version in use, and the old ones to replay.

An experience belongs to several contexts; `sleep.families` says which of them have adapters of their own. One without a
version begins at that of the next more general context, which acts in its place, and must beat it.

"New" is counted from the newest experience that a version of this context *for this base* has learned from; what its
sleep had no time for stays new, too (`leftover`). After a change of the base everything is new again. A rejected
version moves nothing: what it tried is tried again, with more; nor does one that was rolled back or forgotten. A
context whose version is pinned is left alone. What any published version held out, on whatever base, stays apart: it is
never learned, and judged by again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from npllm import contexts
from npllm.config import Config
from npllm.memory.replay import Drawn
from npllm.memory.store import Store
from npllm.sleep import replay
from npllm.sleep.dataset import Part, divide, old_wanted
from npllm.sleep.gate import PER_SLICE, best_of, watched
from npllm.sleep.ignoring import Ignoring
from npllm.sleep.interruption import look
from npllm.sleep.leftover import untrained
from npllm.sleep.pending import new_since
from npllm.sleep.plan import OldSlice
from npllm.sleep.report import ContextReport, Verdict
from npllm.types import AdapterVersion, CerebellumVersion, Decision, Experience, VersionState

MOST_NEW = 4000  # experiences of a context that are looked at; after a change of the base all are new
MOST_APART = 4000  # held-out texts of earlier sleeps that what is learned is compared with
MOMENT = timedelta(microseconds=1)  # between two timestamps


@dataclass(frozen=True, slots=True)
class Job:
    """One context with enough that is new.

    Attributes:
        until: when the newest experience was made that this context's versions have learned from, once this is done.
        parent: the version in use, or None.
        slices: what earlier sleeps held out and this one is judged by, too, and the texts of that.
        apart: all that earlier sleeps held out: places and texts.
    """

    context: str
    part: Part
    until: datetime
    parent: AdapterVersion | None
    slices: tuple[OldSlice, ...] = ()
    judged_again: tuple[Experience, ...] = ()
    apart: tuple[Experience, ...] = ()

    @property
    def language(self) -> str:
        """Of most of its experiences."""
        return Counter(item.place.language for item in self.part.all).most_common(1)[0][0]


async def gather(
    store: Store, config: Config, base_fingerprint: str, consolidation: UUID, stop: threading.Event
) -> tuple[list[Job], tuple[ContextReport, ...]]:
    """The contexts to train, the most general first, and reports on those that must wait.

    Contexts that this consolidation has decided already are left out.

    Raises:
        Interrupted, StoreError
    """
    jobs: list[Job] = []
    ignoring = Ignoring(config.memory.ignore)
    waiting: list[ContextReport] = []
    every = await store.adapter_versions(base_fingerprint=base_fingerprint)
    every = [version for version in every if version.state is not VersionState.FORGOTTEN]
    decided = {version.context for version in every if version.consolidation_id == consolidation}
    for context in contexts.trained(await store.families(), contexts.kinds(config.sleep.families)):
        look(stop)
        if context in decided:
            continue
        own = [version for version in every if version.context == context]
        pinned = next((version for version in own if version.pinned), None)
        if pinned is not None:
            reason = f"{pinned.id} is pinned, so nothing is learned (`npllm adapters unpin {pinned.id.hex[-8:]}`)."
            waiting.append(ContextReport(context, Verdict.WAITING, reason))
            continue
        parent = await _beginning(store, context, every, consolidation)
        acting = [replace(parent, state=VersionState.PUBLISHED)] if parent else []
        start = new_since(own or acting)
        new = await store.experiences_since(start, context=context, limit=MOST_NEW, newest_first=True)
        left = await _left(store, config, own or acting, context, MOST_NEW - len(new))
        new = ignoring.learnable([*new, *left])
        if not new:
            continue
        lineage = [version for version in own if version.state is not VersionState.REJECTED]
        apart = await store.replay.apart(context, limit=MOST_APART)
        again = [one.id for one in left]
        old = await drawn(store, config, base_fingerprint, context, start, str(consolidation), len(new), again)
        old = [one for one in old if not ignoring.leaves_alone(one.experience.place)]
        taken = {one.id for one in apart}
        part = divide(
            [one for one in new if one.id not in taken],
            old,
            config.sleep,
            seed=str(consolidation),
            apart=apart,
            versions=len(lineage),
            left=frozenset(again),
        )
        if isinstance(part, int):
            if contexts.kind(context) == "language":  # the others' experiences are learned by their language
                reason = f"{len(new)} new experiences; {part} with a text to learn are needed, so they wait."
                waiting.append(ContextReport(context, Verdict.WAITING, reason, new=len(new)))
            continue
        line = ancestry(lineage, parent)
        slices, texts = await older(store, context, line, str(consolidation), config.base.context_tokens)
        until = max(one.created_at for one in new)
        until = max(until, start - MOMENT) if start else until  # all that is new may have been left over
        jobs.append(Job(context, part, until, parent, slices, texts, tuple(apart)))
    return jobs, tuple(waiting)


async def _beginning(
    store: Store, context: str, versions: Sequence[AdapterVersion], consolidation: UUID
) -> AdapterVersion | None:
    """The version to train on from and to beat: the context's own in use, else that of the next more general one.

    What this consolidation has published does not count: a sleep that is gone on with begins where it began.
    """
    newest = await store.experiences_since(None, context=context, limit=1, newest_first=True)
    more_general = [name for one in newest for name in one.contexts if contexts.wider(name, context)]
    for name in (context, *more_general):
        for version in versions:
            if version.context != name or version.state is not VersionState.PUBLISHED:
                continue
            if version.consolidation_id != consolidation:
                return version
            before = next((one for one in versions if one.id == version.parent), None)
            if before is not None:
                return before
    return None


async def _left(
    store: Store, config: Config, versions: Sequence[AdapterVersion], context: str, most: int
) -> list[Experience]:
    """What the sleep of the version in use had no time for, newest first."""
    published = [version for version in versions if version.state is VersionState.PUBLISHED]
    ids = [id for version in published for id in await asyncio.to_thread(untrained, config.home, version)]
    return await store.experiences_among(ids, context=context, limit=most) if ids and most > 0 else []


async def drawn(
    store: Store,
    config: Config,
    base: str,
    context: str,
    start: datetime | None,
    seed: str,
    new: int,
    again: Sequence[UUID],
    *,
    everywhere: bool = False,
) -> list[Drawn]:
    """Old experiences in the order in which they are drawn: some more than can be wanted, never all there are.

    Args:
        again: those that are older than `start` and still new.
        everywhere: of all contexts; `context` then is only a name.
    """
    wanted = old_wanted(new, config.sleep)
    if start is None or wanted == 0:
        return []
    return await store.replay.draw(
        context,
        base,
        start,
        seed=seed,
        limit=min(replay.MOST, replay.MANY * wanted),
        alpha=replay.alpha(config.sleep.replay),
        epsilon=replay.EPSILON,
        low=replay.DECISION[Decision.LOW],
        discard=replay.DECISION[Decision.DISCARD],
        pause_s=replay.PAUSE_S,
        exclude=again,
        everywhere=everywhere,
    )


Kind = TypeVar("Kind", AdapterVersion, CerebellumVersion)


def ancestry(versions: Sequence[Kind], parent: Kind | None) -> list[Kind]:
    """The version that a sleep begins at, and those that it came of: what was rolled back from is not among them."""
    by_id = {version.id: version for version in versions}
    found: list[Kind] = []
    at = parent.id if parent else None
    while at in by_id and by_id[at] not in found:
        found.append(by_id[at])
        at = by_id[at].parent
    return found


async def older(
    store: Store, context: str, lineage: Sequence[AdapterVersion | CerebellumVersion], seed: str, tokens: int
) -> tuple[tuple[OldSlice, ...], tuple[Experience, ...]]:
    """The older slices to judge by, and their texts.

    Args:
        lineage: the versions whose bests count, read within so many `tokens` of context.
    """
    chosen = watched(await store.replay.slices(context), seed)
    found = [one for one in await store.replay.texts_of(context, chosen, most=PER_SLICE) if one.experiences]
    made = tuple(
        OldSlice(
            one.version_id,
            one.held_at,
            tuple(text.id for text in one.experiences),
            best_of(
                [version.metrics for version in lineage],
                str(one.version_id),
                sum(len(text.final_text.encode()) for text in one.experiences),
                tokens,
            ),
        )
        for one in found
    )
    return made, tuple(text for one in found for text in one.experiences)

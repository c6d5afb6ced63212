"""The sleep's part on neuromodulated attention: prompts as they were served, new gains, the gate, publication.

Optional: nothing happens unless `attention.enabled`, and no failure of it fails the sleep. It comes before the
adapters are trained, so that those in use have not learned what it is judged by. Asynchronous where the database is;
the arithmetic runs in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

from npllm.config import Config
from npllm.memory.store import Store
from npllm.memory.texts import snippet_text
from npllm.models.manifest import TEMPORARY, Manifest, sha256_file, whole_folder, write_manifest
from npllm.sleep import details
from npllm.sleep.dataset import Part, divide, file_of, weight
from npllm.sleep.details import Curve
from npllm.sleep.ignoring import Ignoring
from npllm.sleep.interruption import look
from npllm.sleep.meter import Meter
from npllm.sleep.pending import new_since
from npllm.sleep.protocol import Message, Phase
from npllm.sleep.report import ContextReport, Verdict
from npllm.types import AdapterVersion, AttentionVersion, Experience, ModelError, Snippet, VersionState

if TYPE_CHECKING:
    from npllm.models.adapters import AdapterSet
    from npllm.models.attention import Gains
    from npllm.models.engine import AdapterChoice
    from npllm.models.fim import PromptBuilder
    from npllm.sleep.attention import Remembered
    from npllm.sleep.checkpoint import Position
    from npllm.sleep.gate import Judgement

log = logging.getLogger(__name__)

NAME = "attention"  # in reports, where adapters have their context
MOST = 1000  # experiences, the newest
MIN_HELD_OUT = 30
SHARE = 0.15  # of `sleep.max_minutes`, for learning


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned from, and what acted when it was served."""

    version_id: UUID
    part: Part
    memories: Mapping[UUID, tuple[Snippet, ...]]  # by experience: what stood in its prompt
    parent: AttentionVersion | None
    adapters: tuple[AdapterVersion, ...]
    checkpoint: Path


async def consolidate(
    store: Store,
    config: Config,
    fingerprint: str,
    consolidation: UUID,
    stop: threading.Event,
    tell: Callable[[Message], None],
) -> tuple[ContextReport, ...]:
    """Learn, judge and publish gains; what came of it, nothing where nothing was to be done.

    Args:
        fingerprint: of the base.

    Raises:
        Interrupted: the person is back; a checkpoint waits.
        StoreError: the database is away.
    """
    if not config.attention.enabled:
        return ()
    versions = await store.attention_versions(fingerprint)
    if _decided(versions, consolidation):
        return ()  # an earlier part of this sleep has done it
    try:
        task = await _gather(store, config, fingerprint, consolidation, versions, stop)
        if isinstance(task, ContextReport):
            return (task,)
        meter = Meter(tell, NAME, 0.0, 0.0, Curve(task.checkpoint))
        version, report = await asyncio.to_thread(_learned, config, task, fingerprint, consolidation, stop, meter)
        look(stop)
        await store.insert_attention_version(version)
    except ModelError as error:
        log.warning("no gains of attention were learned: %s", error)
        return (ContextReport(NAME, Verdict.WAITING, str(error)),)
    return (report,)


async def wanted(store: Store, config: Config, fingerprint: str, consolidation: UUID, stop: threading.Event) -> bool:
    """Whether there is enough to learn gains from. Raises Interrupted, StoreError."""
    if not config.attention.enabled:
        return False
    versions = await store.attention_versions(fingerprint)
    return isinstance(await _gather(store, config, fingerprint, consolidation, versions, stop), Task)


def _decided(versions: Sequence[AttentionVersion], consolidation: UUID) -> bool:
    return any(one.consolidation_id == consolidation and one.state is not VersionState.FORGOTTEN for one in versions)


async def _gather(
    store: Store,
    config: Config,
    fingerprint: str,
    consolidation: UUID,
    versions: Sequence[AttentionVersion],
    stop: threading.Event,
) -> Task | ContextReport:
    """The new experiences whose prompts held something remembered, divided, with what they held."""
    since = new_since(versions)
    ignoring = Ignoring(config.memory.ignore)
    with_memories = await store.experiences_with_memories(since, limit=MOST)
    found = {item: ids for item, ids in with_memories if not ignoring.leaves_alone(item.place)}
    settings = replace(config.sleep, min_holdout=max(MIN_HELD_OUT, config.sleep.min_holdout), epochs=1)
    part = divide(found, (), settings, seed=str(consolidation))
    if isinstance(part, int):
        reason = f"{len(found)} new experiences with something remembered; {part} are needed, so they wait."
        return ContextReport(NAME, Verdict.WAITING, reason, new=len(found))
    wanted = {item.id: found[item] for item in part.all}
    snippets: dict[UUID, Snippet] = {}
    for id in sorted({id for ids in wanted.values() for id in ids}):
        look(stop)
        if (item := await store.experience(id)) is not None and not ignoring.leaves_alone(item.place):
            snippets[id] = _snippet(item)
    memories = {id: tuple(snippets[one] for one in ids if one in snippets) for id, ids in wanted.items()}
    parent = next((version for version in versions if version.state is VersionState.PUBLISHED), None)
    adapters = await store.adapter_versions(state=VersionState.PUBLISHED, base_fingerprint=fingerprint)
    checkpoint = config.checkpoints_dir / str(consolidation) / NAME
    # Interrupted before it is announced, the same again: its folder is written over. What was forgotten keeps its id.
    earlier = sum(one.consolidation_id == consolidation for one in versions)
    id = uuid5(consolidation, f"{NAME} {fingerprint} {earlier}")
    return Task(id, part, memories, parent, tuple(adapters), checkpoint)


def _snippet(item: Experience) -> Snippet:
    """As retrieval shows it (`memory.similarity`); how alike it was is not kept."""
    return Snippet(item.place.path, snippet_text(item.prefix, item.final_text), 1.0, item.id, item.reward)


class Made(NamedTuple):
    """A version and its report."""

    version: AttentionVersion
    report: ContextReport


def _learned(
    config: Config, task: Task, fingerprint: str, consolidation: UUID, stop: threading.Event, meter: Meter
) -> Made:
    """Learn, judge and write; what is left is to say so in the database."""
    from npllm.models import attention as mechanism
    from npllm.models.adapters import AdapterSet
    from npllm.models.base import Base
    from npllm.models.fim import PromptBuilder, choose
    from npllm.sleep import attention, plastic_gains
    from npllm.sleep.gate import Scored, judge
    from npllm.sleep.process import threads

    began = time.monotonic()
    meter.phase(Phase.PREPARING)
    look(stop)
    model, sleep = config.base, config.sleep
    base = Base.load(
        model.model,
        device=model.device,
        threads=threads(sleep.threads),
        cache=config.home / "cache",
        asleep=True,
    )
    shape = mechanism.prepare(base.model)
    digest = base.digest()
    adapters = AdapterSet(base)
    for used in task.adapters:
        try:
            adapters.load(used.id, config.home / used.folder, used.context)
        except ModelError as error:
            log.warning("%s", error)

    def activate(context: str) -> None:
        base.activate(acting(adapters, context, config))

    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), min(model.context_tokens, base.info.context_tokens))
    learn = prompts_of(builder, task.part.learn, task.memories, config, stop)
    judged = prompts_of(builder, task.part.held_out, task.memories, config, stop)
    before = _in_use(config, task.parent, shape)
    start = before or mechanism.Gains.none(shape, attention.centre_of(list(learn.values())))
    start = replace(start, values=start.values.to(base.device))
    recipe = attention.Recipe(
        learning_rate=config.attention.learning_rate,
        max_gain=config.attention.max_gain,
        budget_s=60 * sleep.max_minutes * SHARE,
        seed=sleep.seed,
    )
    task.checkpoint.mkdir(parents=True, exist_ok=True, mode=0o700)
    meter.phase(Phase.LEARNING)
    kind = ("plastic",) if config.attention.plastic else ()
    gains, position = (plastic_gains if kind else attention).learn(
        base.model,
        list(learn.values()),
        start,
        recipe,
        stop=stop,
        activate=activate,
        file=task.checkpoint / "state.safetensors",
        key=hashlib.sha256(" ".join(map(str, (recipe, *learn, *kind))).encode()).hexdigest(),
        on_step=meter.step,
    )
    meter.phase(Phase.JUDGING)
    scored, without_trace = [], plastic_gains.zeroed(gains)
    zeroed = 0.0
    held_out = {item.id: item for item in task.part.held_out}
    for number, (id, prompt) in enumerate(judged.items()):
        look(stop)
        activate(prompt.context)
        sample = prompt.sample
        text = len(sample.ids) - sample.loss_start - (sample.ids[-1] == builder.end_id)
        old, new = (attention.nats(base.model, prompt, one, last=text) for one in (before and start, gains))
        if without_trace is not None:
            zeroed += attention.nats(base.model, prompt, without_trace, last=text)
        item = held_out[id]
        scored.append(Scored(file_of(item), len(item.final_text.encode()), old, new))
        meter.step(number + 1, len(judged))
    if base.digest() != digest:
        raise ModelError("Learning gains changed the base, which must never happen: the gains are thrown away.")
    details.keep(task.checkpoint, NAME, (), details.sources([one for one in task.part.learn if one.id in learn], ()))
    judgement = judge(scored, min_held_out=MIN_HELD_OUT, seed=sleep.seed)
    report = _report(task, len(learn), len(judged), position, judgement, time.monotonic() - began)
    if without_trace is not None:
        report = replace(report, nll_zeroed=zeroed / max(1, sum(one.utf8_bytes for one in scored)))
    meter.phase(Phase.PUBLISHING)
    version = _written(config, task, fingerprint, consolidation, gains, report)
    return Made(version, report)


def prompts_of(
    builder: PromptBuilder,
    experiences: Sequence[Experience],
    memories: Mapping[UUID, tuple[Snippet, ...]],
    config: Config,
    stop: threading.Event,
) -> dict[UUID, Remembered]:
    """The prompts as they were served, with what was remembered, and what the person ended up with, by experience."""
    from npllm.models.fim import PromptParts
    from npllm.sleep.attention import Remembered
    from npllm.sleep.objectives import Sample

    made = {}
    for item in experiences:
        look(stop)
        answer = builder.encode_middle(item.final_text)[: builder.context_tokens // 2 - 1]
        parts = PromptParts(item.place.path, item.prefix, item.suffix, memories[item.id])
        reserve = max(config.completion.max_new_tokens, len(answer) + 1)
        prompt = builder.build(parts, reserve=reserve, snippet_budget=config.memory.token_budget)
        ending = () if builder.end_id is None else (builder.end_id,)
        if prompt.spans and answer:
            sample = Sample((*prompt.ids, *answer, *ending), len(prompt.ids), weight(item))
            made[item.id] = Remembered(sample, prompt.spans, item.context, item.reward)
    return made


def _in_use(config: Config, parent: AttentionVersion | None, shape: tuple[int, int]) -> Gains | None:
    """The gains in use, where they are whole and fit."""
    from npllm.models.attention import read

    if parent is None:
        return None
    try:
        return read(config.home / parent.folder, parent.sha256, shape)
    except ModelError as error:
        log.warning("the gains in use cannot be learned on from: %s", error)
        return None


def _written(
    config: Config, task: Task, fingerprint: str, consolidation: UUID, gains: Gains, report: ContextReport
) -> AttentionVersion:
    """The gains in a folder of their own, whole or not at all, and the row that will say so."""
    from npllm.models.attention import CONTEXT, WEIGHTS, write

    folder = config.attention_dir / str(task.version_id)
    for left in config.attention_dir.glob(TEMPORARY + "*"):  # by a sleep that was killed
        shutil.rmtree(left, ignore_errors=True)
    names = ("nll_before", "nll_after", "gain", "gain_low", "gain_high", "steps", "seconds", "new", "held_out")
    metrics = {name: float(getattr(report, name)) for name in names}
    if report.nll_zeroed is not None:
        metrics["nll_zeroed"] = report.nll_zeroed
    metrics["until"] = max(item.created_at for item in task.part.all).timestamp()
    now = datetime.now(UTC)
    parent = task.parent.id if task.parent else None
    with whole_folder(folder) as temporary:
        write(temporary / WEIGHTS, gains)
        digest = sha256_file(temporary / WEIGHTS)
        data = {
            "learned": [str(item.id) for item in task.part.learn],
            "held_out": [str(item.id) for item in task.part.held_out],
            "remembered": sorted({str(one.experience_id) for found in task.memories.values() for one in found}),
        }
        write_manifest(
            temporary,
            Manifest(task.version_id, CONTEXT, fingerprint, parent, consolidation, digest, now, data, metrics),
        )
    return AttentionVersion(
        id=task.version_id,
        base_fingerprint=fingerprint,
        parent=parent,
        consolidation_id=consolidation,
        folder=folder.relative_to(config.home).as_posix(),
        sha256=digest,
        state=VersionState.PUBLISHED if report.verdict is Verdict.PUBLISHED else VersionState.REJECTED,
        reason=report.reason,
        metrics=metrics,
        created_at=now,
    )


def _report(
    task: Task, learned: int, judged: int, position: Position, judgement: Judgement, seconds: float
) -> ContextReport:
    return ContextReport(
        context=NAME,
        verdict=Verdict.PUBLISHED if judgement.passed else Verdict.REJECTED,
        reason=judgement.reason,
        version=str(task.version_id),
        parent=str(task.parent.id) if task.parent else "",
        new=learned,
        files=len({file_of(item) for item in task.part.learn}),
        held_out=judged,
        held_out_files=len({file_of(item) for item in task.part.held_out}),
        nll_before=judgement.nll_before,
        nll_after=judgement.nll_after,
        gain=judgement.gain,
        gain_low=judgement.gain_low,
        gain_high=judgement.gain_high,
        steps=position.step,
        tokens=position.tokens,
        tokens_per_s=position.tokens / max(position.seconds, 1e-6),
        seconds=seconds,
    )


def acting(adapters: AdapterSet, context: str, config: Config) -> AdapterChoice:
    """What acts in a context while gains are learned and judged: what the rules would have act awake."""
    return adapters.choose((context,), config.adapters.strength if config.adapters.enabled else 0.0)

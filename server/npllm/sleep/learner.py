"""One context's training where torch is: load the base, train the adapter, judge it, write it down.

Runs in a thread of the child, looks at `stop` between any two pieces of work, and does not touch the database. The base
is loaded anew for each context, and its parameters are hashed before and after.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import torch
from peft import PeftModel

from npllm.config import Config
from npllm.models import examples
from npllm.models.adapters import (
    WEIGHTS,
    Manifest,
    sha256_file,
    whole_folder,
    write_manifest,
)
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import in_use, leftover, lora, mas, preferences
from npllm.sleep.apart import Apart
from npllm.sleep.dataset import weight
from npllm.sleep.gate import Judgement
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.judging import Exam
from npllm.sleep.lora import Shape
from npllm.sleep.mas import Importance, Penalty
from npllm.sleep.meter import Meter
from npllm.sleep.objectives import Sample, answer_nats
from npllm.sleep.plan import STATE, Plan
from npllm.sleep.preferences import Preference
from npllm.sleep.process import threads
from npllm.sleep.project import Passage, files_of
from npllm.sleep.protocol import Phase
from npllm.sleep.quotes import quotes
from npllm.sleep.recipe import recipe_of
from npllm.sleep.record import Quote
from npllm.sleep.rehearsal import between
from npllm.sleep.trainer import Outcome, Step, Trainer
from npllm.types import Experience, ModelError

log = logging.getLogger(__name__)

SUMS = "sums.safetensors"  # in the checkpoint folder: an estimate of importance that was interrupted
MEASURE_SHARE = 0.1  # of the training's time, at most, to estimate what matters
TAKEN_BACK = (0.5, 0.25)  # shares of the way from what is in use to what was learned that are tried when all is too far


@dataclass(frozen=True, slots=True)
class Task:
    """What one context's training works with.

    Attributes:
        experiences: those that the plan names, by id.
        checkpoint: the folder where its state is kept.
        parent: the folder of the version in use, or None.
        passages: of the project's files, to be learned beside the experiences.
        apart: what earlier sleeps held out.
        general: passages of general code, to be rehearsed.
    """

    plan: Plan
    experiences: Mapping[UUID, Experience]
    checkpoint: Path
    parent: Path | None
    passages: tuple[Passage, ...] = ()
    apart: tuple[Experience, ...] = ()
    general: tuple[Passage, ...] = ()

    def of(self, ids: Sequence[UUID]) -> list[Experience]:
        """The experiences with these ids."""
        return [self.experiences[id] for id in ids]


class Learner:
    """One context's.

    Args:
        stop: set when the person is back; every method then raises Interrupted soon.
    """

    def __init__(self, config: Config, task: Task, stop: threading.Event, meter: Meter) -> None:
        self._config = config
        self._task = task
        self._stop = stop
        self._meter = meter
        look(stop)
        self.base = Base.load(
            config.base.model,
            device=config.base.device,
            threads=threads(config.sleep.threads),
            cache=config.home / "cache",
            asleep=True,
        )
        self._recipe = recipe_of(config, self.base.info.parameters)
        self._parent = (
            task.parent if task.parent is not None and in_use.usable(task.parent, self.base.info.fingerprint) else None
        )
        self._recipe = replace(self._recipe, shape=self._shape())
        self.passages = task.passages  # those that were learned: when the time is short, fewer
        self.rehearsed = task.general  # likewise
        self._apart = Apart((*task.apart, *task.of((*task.plan.held_out, *task.plan.inner))))
        self.marks: dict[str, float] = {}  # for the next sleeps' gates; once judged
        self.notes: tuple[str, ...] = ()  # what the gate could not look at
        self.untrained: tuple[UUID, ...] = ()  # new ones for which there was no time; once trained
        self._preferred: tuple[UUID, ...] = ()  # whose preferences may have been learned; once trained
        self._adapted: PeftModel | None = None
        self._origin: dict[str, torch.Tensor] | None = (
            None  # the adapter's weights as the training began; None: the base
        )
        self._learned: list[Sample] = []
        self._taught: frozenset[UUID] = frozenset()
        self._stopped_by = ""
        self._importance: Importance | None = None

    def train(self) -> Outcome:
        """Train the adapter, from the version in use where there is one, or go on with it.

        Raises:
            Interrupted: the person is back; the checkpoint is written.
            ModelError: the version in use does not fit, or a frozen parameter changed.
        """
        plan, sleep = self._task.plan, self._config.sleep
        builder = self._builder(sleep.max_tokens)
        wanted = (*plan.learn, *plan.replay)
        learn = self._samples(self._task.of(wanted), builder)
        general = [self._passage(passage, builder) for passage in self._task.general]
        distilled = self._recipe.kl_weight > 0
        beside = between(self._task.passages, () if distilled else self._task.general)
        learn += [self._passage(passage, builder) for passage in beside]
        inner = self._samples(self._task.of(plan.inner), builder)
        digest = self.base.digest()
        adapted = self._adapted = lora.attach(self.base.model, self._recipe.shape, seed=self._recipe.seed)
        if self._parent is not None and self._continues:
            lora.load(adapted, self._parent)
            self._origin = {name: tensor.clone() for name, tensor in lora.weights(adapted).items()}
        preferred = self._preferences(self._task.of((*wanted, *plan.negatives)), builder, len(wanted))
        trainer = Trainer(
            adapted,
            learn,
            inner,
            self._recipe,
            control=control_tokens(self.base, builder),
            pad=builder.end_id or 0,
            file=self._task.checkpoint / STATE,
            stop=self._stop,
            optional=len(beside),
            rehearsed=general if distilled else (),
            preferred=preferred,
            penalty=self._penalty(adapted),
            checkpoint_s=sleep.checkpoint_s,
            on_step=self._stepped,
        )
        self._meter.phase(Phase.LEARNING)
        outcome = trainer.run(plan.budget_s)
        learned = trainer.learned
        self._taught = frozenset(id for number, id in enumerate(wanted) if number in learned)
        self.untrained = tuple(id for id in plan.learn if id not in self._taught)
        self._preferred = tuple(id for number, id in enumerate(wanted) if number in trainer.preferring)
        self._stopped_by = outcome.stopped_by
        read = {one for number, one in enumerate(beside, len(wanted)) if number in learned}
        self.passages = tuple(one for one in self._task.passages if one in read)
        self.rehearsed = tuple(one for one in self._task.general if one in read)
        if distilled:
            self.rehearsed = self._task.general[: len(trainer.rehearsed)]
        self._learned = [learn[number] for number in sorted(learned)]
        if self.base.digest() != digest:
            raise ModelError("Training changed the base, which must never happen: its result is thrown away.")
        return outcome

    def taught(self, ids: Sequence[UUID]) -> tuple[UUID, ...]:
        """Those of these experiences that the adapter has learned from."""
        return tuple(id for id in ids if id in self._taught)

    def judge(self) -> Judgement:
        """The gate: new and older held-out texts and general code, under what is in use (the parent, or the bare base)
        and the new adapter. Where it gains but forgets too much, the adapter goes back a part of its way, `TAKEN_BACK`.

        Raises:
            Interrupted: the person is back.
        """
        adapted = self._trained()
        self._meter.phase(Phase.JUDGING)
        exam = Exam.of(self._task.plan, self._task.of)
        tokens = self._config.base.context_tokens
        builder = self._builder(tokens)  # as it serves
        samples = self._samples(exam.experiences, builder)
        samples += [self._passage(passage, builder) for passage in exam.passages]
        adapted.eval()
        after = self._nats(adapted, samples, builder, 0)
        if self._parent is None:
            with adapted.disable_adapter():
                before = self._nats(adapted, samples, builder, len(samples))
        else:
            with warnings.catch_warnings():  # of merging, which nobody does
                warnings.simplefilter("ignore")
                adapted.load_adapter(str(self._parent), "parent")
            adapted.set_adapter("parent")
            before = self._nats(adapted, samples, builder, len(samples))
            adapted.set_adapter("default")
            adapted.delete_adapter("parent")
        judgement, self.marks = exam.judged(before, after, self._config.sleep, tokens=tokens)
        waiting = leftover.words(len(self.untrained), len(self._task.plan.learn)) if self._stopped_by == "time" else ""
        self.notes = tuple(note for note in (waiting, exam.note) if note)
        if judgement.passed or judgement.gain_low <= 0:
            return judgement
        trained = {name: tensor.clone() for name, tensor in lora.weights(adapted).items()}
        for share in TAKEN_BACK:
            lora.put(adapted, lora.between(self._origin, trained, share))
            nats = self._nats(adapted, samples, builder, None)
            milder, found = exam.judged(before, nats, self._config.sleep, tokens=tokens)
            if milder.passed:
                self.marks = found
                self.notes += (f"It goes {share:.0%} of the way it learned: all of it forgot too much.",)
                return milder
        lora.put(adapted, trained)
        return judgement

    def surprise(self, ids: Sequence[UUID], *, within_s: float) -> dict[UUID, float]:
        """What experiences' texts cost now, in nats per UTF-8 byte, under the adapter that was trained.

        Ends early, with what it has, when the time is over or the person is back.
        """
        adapted = self._trained()
        builder = self._builder(self._config.sleep.max_tokens)
        until = time.monotonic() + within_s
        found: dict[UUID, float] = {}
        for item in self._task.of(ids):
            if time.monotonic() > until:
                break
            try:
                sample = self._samples([item], builder)[0]
            except Interrupted:
                break
            nats = answer_nats(adapted, sample, last=_text(sample, builder))
            if math.isfinite(nats):
                found[item.id] = nats / max(1, len(item.final_text.encode()))
        return found

    def measure(self, outcome: Outcome) -> None:
        """Estimate what matters for what was learned, so that the next sleep can hold it; see `mas`.

        Of samples drawn evenly, as many as a tenth of the training's time allows; none if the penalty is off.

        Raises:
            Interrupted: the person is back; how far it came is kept.
        """
        if not self._recipe.mas_lambda:
            return
        position, learned = outcome.position, self._learned
        length = sum(len(sample.ids) for sample in learned) / len(learned)
        affordable = MEASURE_SHARE * self._task.plan.budget_s * position.tokens / max(position.seconds, 1e-6) / length
        count = max(1, min(mas.EXAMPLES, len(learned), int(affordable)))
        most = min(mas.EXAMPLES, len(learned))
        order = [learned[at * len(learned) // most] for at in range(most)]
        file, adapted = self._task.checkpoint / SUMS, self._trained()
        key = _weights_key(adapted)
        sums = mas.load_sums(file, key)
        try:
            omega = mas.estimate(adapted, order[:count], stop=self._stop, sums=sums)
        except Interrupted:
            mas.save_sums(sums, file, key)
            raise
        self._importance = mas.accumulate(self._parents_importance(), omega)

    def quotes(self) -> tuple[Quote, ...]:
        """A few of the held-out lines, completed by what is in use and by the new adapter.

        Raises:
            Interrupted: the person is back.
        """
        plan = self._task.plan
        builder = self._builder(self._config.base.context_tokens)
        held_out, seed = self._task.of(plan.held_out), str(plan.version_id)
        return quotes(self.base, self._trained(), self._parent, held_out, builder, self._stop, seed=seed)

    def write(self, folder: Path, consolidation: UUID, metrics: Mapping[str, float]) -> str:
        """Write the adapter with its manifest to `folder`, whole or not at all; returns the weights' sha256.

        Raises:
            ModelError: the disk refuses.
        """
        plan = self._task.plan
        with whole_folder(folder) as temporary:
            lora.save(self._trained(), temporary, self.base.info.name)
            digest = sha256_file(temporary / WEIGHTS)
            measured: dict[str, object] = {}
            if self._importance is not None:
                mas.save(self._importance, temporary / mas.IMPORTANCE)
                measured = {"importance_sha256": sha256_file(temporary / mas.IMPORTANCE)}
            manifest = Manifest(
                version_id=plan.version_id,
                context=plan.context,
                base_fingerprint=plan.base_fingerprint,
                parent=plan.parent,
                consolidation_id=consolidation,
                sha256=digest,
                created_at=datetime.now(UTC),
                data={
                    "until": plan.until.isoformat(),
                    "learned": [str(id) for id in self.taught((*plan.learn, *plan.replay))],
                    leftover.UNTRAINED: [str(id) for id in self.untrained],
                    "preferred": [str(id) for id in self._preferred],
                    "negatives": [str(id) for id in plan.negatives],
                    "validated": [str(id) for id in plan.inner],
                    "held_out": [str(id) for id in plan.held_out],
                    "judged_again": {str(item.version): [str(id) for id in item.ids] for item in plan.slices},
                    "project_files": files_of((*self.passages, *self.rehearsed)),
                    **measured,
                },
                metrics=metrics,
            )
            write_manifest(temporary, manifest)
        return digest

    def _trained(self) -> PeftModel:
        if self._adapted is None:
            raise RuntimeError("train() comes first")
        return self._adapted

    def _builder(self, tokens: int) -> PromptBuilder:
        most = min(tokens, self.base.info.context_tokens)
        return PromptBuilder(self.base.tokenizer, choose(self.base.tokenizer), most)

    def _samples(self, experiences: Sequence[Experience], builder: PromptBuilder) -> list[Sample]:
        """Prompts and answers, with weights whose mean is 1."""
        importance = self._task.plan.importance
        weights = [weight(item) * importance.get(item.id, 1.0) for item in experiences]
        mean = sum(weights) / len(weights) if weights else 1.0
        samples = []
        for item, own in zip(experiences, weights, strict=True):
            look(self._stop)
            made = examples.encode(builder, item.prefix, item.suffix, item.place.path, item.final_text)
            unlearned = self._apart.positions(item, made.ids[: made.loss_start], builder.codec)
            samples.append(Sample(made.ids, made.loss_start, own / mean, unlearned))
        return samples

    def _passage(self, passage: Passage, builder: PromptBuilder) -> Sample:
        look(self._stop)
        made = examples.encode(builder, passage.prefix, passage.suffix, passage.path, passage.line)
        return Sample(made.ids, made.loss_start)

    def _preferences(
        self, experiences: Sequence[Experience], builder: PromptBuilder, learned: int = 0
    ) -> list[Preference]:
        """What the experiences say about their suggestions, where the settings give that a weight.

        Args: learned: the first so many are samples, too.
        """

        def encode(item: Experience, text: str) -> Sample:
            made = examples.encode(builder, item.prefix, item.suffix, item.place.path, text)
            return Sample(made.ids, made.loss_start)

        recipe = self._recipe
        wanted = {"pairs": recipe.dpo_weight > 0, "singles": recipe.kto_weight > 0}
        return preferences.gather(experiences, encode, **wanted, stop=self._stop, learned=learned)

    def _penalty(self, adapted: PeftModel) -> Penalty | None:
        """On moving what mattered for the version that the training begins at."""
        importance = self._parents_importance() if self._recipe.mas_lambda else None
        if importance is None:
            return None
        rate = self._recipe.learning_rate * max(1.0, self._recipe.b_ratio)
        return Penalty(self._recipe.mas_lambda, importance, lora.trainable(adapted), rate=rate)

    def _parents_importance(self) -> Importance | None:
        """What mattered for the version in use, if that was measured and the training goes on from it."""
        return in_use.importance(self._parent) if self._parent is not None and self._continues else None

    def _shape(self) -> Shape:
        """That of the version in use, so that what it knows is kept; else what the settings want."""
        wanted = self._recipe.shape
        found = lora.shape_of(self._parent, self.base.model) if self._parent is not None else None
        self._continues = found is not None
        if self._parent is not None and found is None:
            log.warning("the adapter in %s sits on layers of its own choice: training begins anew", self._parent)
        elif found is not None and found != wanted:
            log.info("training goes on in the shape of the version in use, %s, rather than %s", found, wanted)
        return found or wanted

    def _nats(
        self, adapted: PeftModel, samples: Sequence[Sample], builder: PromptBuilder, first: int | None
    ) -> list[float]:
        """Of each sample's text; the token that ends it is learned, but is not the person's text.

        Args:
            first: how many were done before these, for the meter; None: it has heard of them.
        """
        found = []
        for number, sample in enumerate(samples):
            look(self._stop)
            found.append(answer_nats(adapted, sample, last=_text(sample, builder)))
            if first is not None:
                self._meter.step(first + number + 1, 2 * len(samples))
        return found

    def _stepped(self, step: Step) -> None:
        self._meter.step(step.step, step.total, step.loss, step.tokens_per_s)


def _text(sample: Sample, builder: PromptBuilder) -> int:
    """How many of a sample's answer tokens are the person's text: not the one that ends it."""
    return len(sample.ids) - sample.loss_start - (sample.ids[-1] == builder.end_id)


def control_tokens(base: Base, builder: PromptBuilder) -> frozenset[int]:
    """Ids that are no text."""
    named = {builder.codec.token_id(name) for name in builder.format.requires}
    return frozenset(id for id in named if id is not None) | builder.end_ids | set(base.tokenizer.all_special_ids)


def _weights_key(adapted: PeftModel) -> str:
    """Tells one adapter's weights from another's."""
    total = hashlib.sha256()
    for name, tensor in sorted(lora.weights(adapted).items()):
        total.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()

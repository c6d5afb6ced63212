"""The cerebellum's part of a sleep where torch is: train it, let its plastic layer live through the day, judge it.

In this order: all parameters learn (`cerebellum_trainer`); what they have not learned decides how far they go
(`cerebellum_exam`); over the network as it then is, the plastic layer learns through the mornings and is rolled through
the newest one (`backpropamine`); what it has not learned decides whether it is published and what its confidence is
worth. Runs in a thread of the child, looks at `stop` between any two pieces of work, and does not touch the database.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import shutil
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from safetensors.torch import save_file

from npllm.config import Config
from npllm.models import examples, hub, plastic
from npllm.models.base import Base
from npllm.models.cerebellum import CONTEXT, WEIGHTS, Calibration
from npllm.models.fim import PromptBuilder, choose
from npllm.models.manifest import Manifest, sha256_file, whole_folder, write_manifest
from npllm.sleep import details, in_use, leftover, mas, patterns, plastic_days
from npllm.sleep.apart import Apart
from npllm.sleep.backpropamine import Moment
from npllm.sleep.cerebellum_exam import CerebellumExam
from npllm.sleep.cerebellum_trainer import CerebellumTrainer, Recipe
from npllm.sleep.checkpoint import Position
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.judging import Exam
from npllm.sleep.learner import control_tokens
from npllm.sleep.meter import Meter
from npllm.sleep.objectives import Sample, answer_nats
from npllm.sleep.plan import STATE, Plan
from npllm.sleep.process import threads
from npllm.sleep.project import Passage, files_of, set_aside
from npllm.sleep.protocol import Phase
from npllm.sleep.quotes import quotes_of_two
from npllm.sleep.record import Quote
from npllm.sleep.saying import projects_of
from npllm.sleep.trainer import Step
from npllm.sleep.verdict import Verdict
from npllm.types import Experience, Pattern

log = logging.getLogger(__name__)

ASIDE = 6  # one passage in so many is not learned: it chooses its say, and confidence is judged by it
MOST_MOMENTS = 1000  # the newest ones, of the mornings


class CerebellumLearner:
    """One sleep's.

    Args:
        start: the folder of the version in use, or of the model as it came.
        plan, experiences, passages: as of an adapter's learner.
        folder: for the training's state.
        off_limits: files and folders that are never read.
        apart: what earlier sleeps held out; `lineage`: the metrics of their versions.
    """

    def __init__(
        self,
        config: Config,
        start: Path,
        plan: Plan,
        experiences: Mapping[UUID, Experience],
        passages: Sequence[Passage],
        folder: Path,
        stop: threading.Event,
        meter: Meter,
        off_limits: Collection[str] = (),
        apart: Sequence[Experience] = (),
        lineage: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self._config, self._start, self._plan, self._folder = config, start, plan, folder
        self._stop, self._meter = stop, meter
        look(stop)
        device = config.base.device
        count = threads(config.sleep.threads)
        self._before = Base.load(str(start), device=device, threads=count, shared=False, asleep=True)
        self._base = Base.load(str(start), device=device, shared=False, asleep=True)
        self._base.model.float()
        most = min(config.cerebellum.context_tokens, self._base.info.context_tokens)
        self._builder = PromptBuilder(self._base.tokenizer, choose(self._base.tokenizer), most)
        self._learn = [experiences[id] for id in plan.learn]
        self._replay = [experiences[id] for id in plan.replay]
        self._held_out = [experiences[id] for id in plan.held_out]
        self._aside, self.passages = set_aside(passages, [*self._learn, *self._replay], ASIDE)
        self._apart = Apart((*apart, *self._held_out))
        self._order()
        self._exam = CerebellumExam(
            config,
            *(start, plan.parent, self._before, self._base, self._builder),
            exam=Exam.of(plan, lambda ids: [experiences[id] for id in ids]),
            lineage=lineage,
            passed_over=self._aside,
            off_limits=off_limits,
            stop=stop,
            meter=meter,
        )
        self.untrained: tuple[UUID, ...] = ()  # new ones for which there was no time; once trained
        self._importance: mas.Importance | None = None
        self._plastic: dict[str, torch.Tensor] | None = None

    def train(self) -> Position:
        """Train everything, or go on. Raises Interrupted: the person is back; the checkpoint is written."""
        settings, sleep = self._config.cerebellum, self._config.sleep
        recipe = Recipe(
            learning_rate=settings.learning_rate,
            batch_tokens=settings.batch_tokens,
            epochs=settings.epochs,
            mas_lambda=settings.mas_lambda,
            seed=sleep.seed,
        )
        trainer = CerebellumTrainer(
            self._base.model,
            self._samples(),
            recipe,
            key=self._before.info.fingerprint,
            control=control_tokens(self._base, self._builder),
            pad=self._builder.end_id or 0,
            file=self._folder / STATE,
            stop=self._stop,
            checkpoint_s=sleep.checkpoint_s,
            on_step=self._stepped,
            penalty=self._penalty(),
        )
        self._meter.phase(Phase.LEARNING)
        position = trainer.run(self._plan.budget_s)
        self._account(trainer.learned)
        return position

    def _order(self) -> None:
        ordered = sorted((*self._replay, *self._learn), key=lambda item: (item.created_at, item.id))
        self._mornings = ordered[-MOST_MOMENTS:]
        self._seen = patterns.count(ordered, self.passages)

    def _account(self, learned: Collection[int]) -> None:
        """Go on with what the training has reached, by its numbers among the samples: nothing else was learned."""
        items = [*self._learn, *self._replay]
        taught = {item.id for number, item in enumerate(items) if number in learned}
        self.passages = tuple(one for number, one in enumerate(self.passages, len(items)) if number in learned)
        self.untrained = tuple(item.id for item in self._learn if item.id not in taught)
        self._learn = [item for item in self._learn if item.id in taught]
        self._replay = [item for item in self._replay if item.id in taught]
        self._order()

    @property
    def counts(self) -> tuple[int, int]:
        """How many new and old experiences are learned."""
        return len(self._learn), len(self._replay)

    def judge(self) -> Verdict:
        """The gate; in it the plastic layer learns. Afterwards the model serves as it will. Raises Interrupted."""
        verdict = self._exam.judge(self._layers)
        if self._config.cerebellum.mas_lambda > 0 and verdict.passed and self._learn:
            self._importance = self._measure_importance()
        return verdict

    def tell(self) -> None:
        """After `judge`: keep what the report shows: held-out lines before and after, and the files learned from.

        Raises:
            Interrupted: the person is back.
        """
        quotes: tuple[Quote, ...] = ()
        try:
            quotes = quotes_of_two(
                self._before, self._base, self._held_out, self._builder, self._stop, seed=str(self._plan.version_id)
            )
        except Interrupted:
            raise
        except Exception:  # no memory for it, too: what was learned is worth more than this
            log.exception("the report will quote no line of the cerebellum")
        learned = details.sources([*self._learn, *self._replay], self.passages)
        details.keep(self._folder, CONTEXT, quotes, learned)

    def calibrate(self, verdict: Verdict) -> Calibration:
        """What its confidence is worth on lines that it has not learned. Raises Interrupted."""
        return replace(self._exam.calibrate(verdict), projects=self._projects())

    def _projects(self) -> tuple[str, ...]:
        """The projects that it has learned of, in this sleep and before."""
        found = {item.place.project for item in (*self._learn, *self._replay)}
        found |= {passage.project for passage in self.passages}
        return tuple(sorted(found | set(projects_of(self._start) if self._plan.parent else ())))

    def surprise(self, *, within_s: float) -> dict[UUID, float]:
        """What the texts that were learned cost now, in nats per UTF-8 byte, by id.

        Ends early, with what it has, when the time is over or the person is back.
        """
        until, found = time.monotonic() + within_s, dict[UUID, float]()
        for item in (*self._learn, *self._replay):
            if time.monotonic() > until or self._stop.is_set():
                break
            sample = self._sample(item.prefix, item.suffix, item.place.path, item.final_text)
            last = len(sample.ids) - sample.loss_start - (sample.ids[-1] == self._builder.end_id)
            nats = answer_nats(self._base.model, sample, last=last)
            if math.isfinite(nats):
                found[item.id] = nats / max(1, len(item.final_text.encode()))
        return found

    def known(self) -> list[Pattern]:
        """The frequent patterns that it would now write itself, token by token, where the person wrote them last."""
        found = []
        for pattern, item in patterns.frequent(self._seen):
            look(self._stop)
            sample = self._sample(item.prefix, item.suffix, item.place.path, item.final_text.strip("\n").split("\n")[0])
            ids = torch.tensor([sample.ids], device=self._base.device)
            with torch.inference_mode():
                rows = self._base.model(input_ids=ids, use_cache=False).logits[0, sample.loss_start - 1 : -1]
            last = -1 if sample.ids[-1] == self._builder.end_id else None
            if torch.equal(rows.argmax(-1)[:last], ids[0, sample.loss_start :][:last]):
                found.append(pattern)
        return found

    def write(
        self, folder: Path, consolidation: UUID, metrics: Mapping[str, float], calibration: Calibration, lives: bool
    ) -> str:
        """Write the model with its manifest to `folder`, whole or not at all; returns the weights' sha256.

        Args:
            lives: whether the plastic layer serves; it is kept in any case, to be learned on.

        Raises:
            ModelError: the disk refuses.
        """
        plan = self._plan
        with whole_folder(folder) as temporary:
            self._base.model.save_pretrained(str(temporary), safe_serialization=True, max_shard_size="1TB")
            for name in (*hub.TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
                if (self._start / name).is_file():
                    shutil.copyfile(self._start / name, temporary / name)
            data: dict[str, Any] = {
                "until": plan.until.isoformat(),
                "learned": [str(item.id) for item in (*self._learn, *self._replay)],
                leftover.UNTRAINED: [str(id) for id in self.untrained],
                "validated": [str(id) for id in plan.inner],
                "held_out": [str(id) for id in plan.held_out],
                "judged_again": {str(item.version): [str(id) for id in item.ids] for item in plan.slices},
                "project_files": files_of((*self.passages, *self._aside)),
                "way": metrics["way"],
                "calibration": calibration.to_json(),
            }
            if self._importance is not None:
                mas.save(self._importance, temporary / mas.IMPORTANCE)
                data["importance_sha256"] = sha256_file(temporary / mas.IMPORTANCE)
            if self._plastic is not None:
                save_file(self._plastic, temporary / plastic.WEIGHTS)
                if lives:
                    content = (temporary / plastic.WEIGHTS).read_bytes()
                    data["plastic_sha256"] = hashlib.sha256(content).hexdigest()
            digest = sha256_file(temporary / WEIGHTS)
            manifest = Manifest(
                version_id=plan.version_id,
                context=CONTEXT,
                base_fingerprint=plan.base_fingerprint,
                parent=plan.parent,
                consolidation_id=consolidation,
                sha256=digest,
                created_at=datetime.now(UTC),
                data=data,
                metrics=metrics,
            )
            write_manifest(temporary, manifest)
        return digest

    # -- what mattered before ----------------------------------------------------------------------------------

    def _penalty(self) -> mas.Penalty | None:
        """What holds the parameters that mattered in earlier sleeps; None where it is off, or nothing is known yet."""
        settings = self._config.cerebellum
        if settings.mas_lambda <= 0 or (importance := in_use.importance(self._start)) is None:
            return None
        anchor = {name: parameter.detach() for name, parameter in self._base.model.named_parameters()}
        return mas.Penalty(settings.mas_lambda, importance, anchor, rate=settings.learning_rate)

    def _measure_importance(self) -> mas.Importance:
        samples = [
            self._sample(item.prefix, item.suffix, item.place.path, item.final_text)
            for item in self._learn[-mas.EXAMPLES :]
        ]
        model = self._base.model.requires_grad_(True)
        try:
            return mas.accumulate(in_use.importance(self._start), mas.estimate(model, samples, stop=self._stop))
        finally:
            model.requires_grad_(False)

    # -- samples ---------------------------------------------------------------------------------------------

    def _samples(self) -> list[Sample]:
        """Experiences, the frequent ones weighing more, and passages; the mean weight is 1.

        The lines that are kept apart are read where they stand above, and not learned.
        """
        items = [*self._learn, *self._replay]
        importance = self._plan.importance
        weights = [patterns.weight_of(item, self._seen) * importance.get(item.id, 1.0) for item in items]
        mean = sum(weights) / len(weights)
        made = []
        for item, own in zip(items, weights, strict=True):
            look(self._stop)
            sample = self._sample(item.prefix, item.suffix, item.place.path, item.final_text, own / mean)
            unlearned = self._apart.positions(item, sample.ids[: sample.loss_start], self._builder.codec)
            made.append(replace(sample, unlearned=unlearned))
        for passage in self.passages:
            look(self._stop)
            made.append(self._sample(passage.prefix, passage.suffix, passage.path, passage.line))
        return made

    def _sample(self, prefix: str, suffix: str, path: str, text: str, weight: float = 1.0) -> Sample:
        made = examples.encode(self._builder, prefix, suffix, path, text)
        return Sample(made.ids, made.loss_start, weight)

    def _stepped(self, step: Step) -> None:
        self._meter.step(step.step, step.total, step.loss, step.tokens_per_s)

    # -- the plastic layer ------------------------------------------------------------------------------------

    def _live_through(self) -> dict[str, torch.Tensor]:
        """What the plastic layer has become, having learned through the mornings and lived through what is new."""
        plastic.attach(self._base.model, None)
        moments = {item.id: self._moment(item) for item in self._mornings}
        days = [list(day) for _, day in itertools.groupby(self._mornings, key=lambda item: item.created_at.date())]
        return plastic_days.live_through(
            self._base,
            [[moments[item.id] for item in day] for day in days],
            [moments[item.id] for item in self._learn if item.id in moments],
            start=self._start,
            seed=self._config.sleep.seed,
            stop=self._stop,
        )

    def _moment(self, item: Experience) -> Moment:
        """An experience as the plastic layer lives through it."""
        look(self._stop)
        sample = self._sample(item.prefix, item.suffix, item.place.path, item.final_text)
        return plastic_days.moment(self._base, sample, item.reward)

    def _layers(self) -> dict[str, plastic.PlasticLayer]:
        """The plastic layer, learned over the weights that will serve, and the same with its trace zeroed; {}: off."""
        off = not self._config.cerebellum.plastic or not self._mornings
        if off or self._base.model.get_output_embeddings() is None:
            return {}
        self._plastic = self._live_through()
        return {"plastic": plastic.of(self._plastic), "zeroed": plastic.of(self._plastic, zeroed=True)}

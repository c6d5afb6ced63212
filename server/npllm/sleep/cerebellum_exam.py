"""The gate's questions to a cerebellum that has learned, on texts that it has not.

How far of its way it goes and how much of a say it gets is chosen on lines of the project that were set aside
(`saying`); held-out texts decide whether it is then better than the version in use, alone and beside the base, and
whether its plastic layer is better than none and than its own trace zeroed; both together tell what its confidence is
worth (`confidence`; of the lines set aside, up to 60 had a word in which of four s it is). Runs in a thread of the
child; does not touch the database.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import torch

from npllm.config import Config
from npllm.models import examples, plastic
from npllm.models.base import Base
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import confidence, plastic_days
from npllm.sleep.confidence import Unseen
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.judging import Exam
from npllm.sleep.knowledge import Knowledge, same_tokens
from npllm.sleep.meter import Meter
from npllm.sleep.objectives import Sample, answer_nats
from npllm.sleep.process import threads
from npllm.sleep.project import Passage
from npllm.sleep.protocol import Phase
from npllm.sleep.saying import FEWEST_LINES, MOST_LINES, Saying, calibration_of, share_in_use, unless_harmful
from npllm.sleep.verdict import Verdict
from npllm.sleep.ways import usual, ways

log = logging.getLogger(__name__)

BESIDE = "beside."  # before the name of a slice, in metrics: what it costs beside that base
NO_SAY = "the cerebellum gets no say in what the base writes"

T = TypeVar("T")


class CerebellumExam:
    """One sleep's.

    Args:
        start: the folder that it began with; `parent`: the version in use, if there is one.
        before, base: the model as it began, and (in float32) as it is now; `builder` is of both.
        exam: what the gate judges by; `lineage`: the metrics of the earlier versions.
        passed_over: passages that were not learned either.
        off_limits: files and folders that are never read.
        stop: set when the person is back; every method then raises Interrupted.
    """

    def __init__(
        self,
        config: Config,
        start: Path,
        parent: UUID | None,
        before: Base,
        base: Base,
        builder: PromptBuilder,
        *,
        exam: Exam,
        lineage: Sequence[Mapping[str, float]] = (),
        passed_over: Sequence[Passage],
        off_limits: Collection[str],
        stop: threading.Event,
        meter: Meter,
    ) -> None:
        self._config, self._start, self._parent = config, start, parent
        self._before, self._base, self._builder = before, base, builder
        self._exam, self._lineage = replace(exam, passages=()), lineage
        self._off_limits, self._stop, self._meter = off_limits, stop, meter
        texts = tuple(
            Unseen(item.place.project, item.place.language, item.place.path, item.prefix, item.suffix, item.final_text)
            for item in exam.experiences
        )
        self._unseen = texts[: len(exam.plan.held_out)]
        self._judged_by = texts
        self._passed_over = tuple(
            Unseen(one.project, one.language, one.path, one.prefix, one.suffix, one.line) for one in passed_over
        )
        self._small = Cerebellum(base, context_tokens=builder.context_tokens)

    def judge(self, layers: Callable[[], Mapping[str, plastic.PlasticLayer]]) -> Verdict:
        """The gate; afterwards the model serves as it will.

        Args:
            layers: gives the plastic layer as "plastic", and with its trace "zeroed"; or none. Asked when the model is
                where it will be.
        """
        self._meter.phase(Phase.JUDGING)
        model = self._base.model
        plastic.attach(model, None)
        there = ways(model, self._before.model)
        saying = self._spared(self._saying)
        choice = None
        if saying is not None:
            choice = self._spared(partial(saying.chosen, self._small, self._passed_over, self._meter.step, there))
        if choice is None:
            saying, choice = None, (self._way(there), 0.0)
        way, share = choice
        few = len(self._unseen)
        size = max(1, sum(self._exam.sizes[:few]))
        plastic.attach(self._before.model, plastic_days.layer_in(self._start))
        before = self._nats(self._before, self._judged_by)
        tried = {"plain": None, **(self._spared(layers, "there is no plastic layer") or {})}
        nats: dict[str, list[float]] = {}
        for name, layer in tried.items():
            plastic.attach(model, layer)
            nats[name] = self._nats(self._base, self._judged_by)
        mean = {name: sum(found[:few]) / size for name, found in nats.items()}
        lives = len(tried) > 1 and mean["plastic"] < min(mean["plain"], mean["zeroed"])
        chosen = "plastic" if lives else "plain"
        plastic.attach(model, tried[chosen])
        tokens = self._config.cerebellum.context_tokens
        alone, marks = self._exam.judged(before, nats[chosen], self._config.sleep, tokens=tokens)
        verdict = Verdict(alone, lives, mean, way=way, marks=marks)
        if saying is None:
            return verdict
        saying.anew(self._small)
        return self._spared(partial(self._judge_beside, verdict, saying, None if lives else share)) or verdict

    def calibrate(self, verdict: Verdict) -> Calibration:
        """What its confidence is worth on lines that it has not learned."""
        places = (*self._unseen, *self._passed_over)
        precision, step = self._config.cerebellum.precision, self._meter.step
        made = confidence.calibrated(self._small, places, self._knowledge, precision, self._stop, on_step=step)
        return replace(made, share=verdict.share if verdict.passed else 0.0, base=verdict.base)

    def _spared(self, ask: Callable[[], T], lost: str = NO_SAY) -> T | None:
        """What can be done without; None where it fails: there is no memory for it, too, and what was learned is worth
        more than this."""
        try:
            return ask()
        except Interrupted:
            raise
        except Exception:
            log.exception(lost)
            return None

    def _way(self, there: Mapping[float, Callable[[], None]]) -> float:
        """How far of its way the model goes, where it then is, by what it says alone."""
        few = self._passed_over[:MOST_LINES]
        if len(few) < FEWEST_LINES:
            there[way := usual(there)]()
            return way
        nats: dict[float, float] = {}
        for way, go in there.items():
            go()
            nats[way] = sum(self._nats(self._base, few))
        best = min(nats, key=lambda way: nats[way])
        there[best]()
        return best

    def _judge_beside(self, verdict: Verdict, saying: Saying, chosen: float | None) -> Verdict:
        """The gate once more, on what the base writes with the cerebellum's say: with that of the version in use, and
        with the new one's, which lines have chosen that are not judged by. One that is better alone, but for which it
        was chosen badly, keeps the say that the version in use has. Where nothing could choose, these texts have a
        veto: the say is 0 if the base alone costs less."""
        if chosen is None:  # it was, without the layer that is in it now
            chosen = saying.chosen(self._small, self._passed_over, self._meter.step)[1]
        tokens = self._builder.context_tokens
        known_to = calibration_of(self._start) if self._parent else None  # where it has its say
        former = Cerebellum(self._before, context_tokens=tokens, calibration=known_to)
        now = share_in_use(self._start, self._parent, saying.fingerprint)
        few = len(self._passed_over) < FEWEST_LINES
        if now is None:
            now = 0.0 if few else saying.chosen(former, self._passed_over, self._meter.step)[1]
        shares: Sequence[float] = list(dict.fromkeys([chosen, now, *[0.0] * few]))
        # older texts without what the project says: that changes with its files, and bests would not compare
        before, *after = saying.costs(
            [(former, now), *((self._small, share) for share in shares)],
            self._judged_by,
            self._meter.step,
            looked_up=len(self._unseen),
        )
        sizes = [saying.utf8_bytes(place) for place in self._judged_by]
        costs: Sequence[Sequence[float]] = after
        if few:
            shares, costs = unless_harmful(shares, costs, len(self._unseen))
        found = []
        for share, nats in zip(shares, costs, strict=True):
            beside, marks = self._exam.judged(
                before,
                nats,
                self._config.sleep,
                tokens=self._config.base.context_tokens,
                sizes=sizes,
                way=f"{BESIDE}{saying.fingerprint[:12]}.{tokens}.weights.",
                lineage=self._lineage,
            )
            found.append(
                replace(
                    verdict,
                    beside=beside,
                    share=share,
                    base=saying.fingerprint,
                    marks={**verdict.marks, **marks},
                )
            )
        return next((one for one in found if one.passed), found[0])

    def _nats(self, base: Base, places: Sequence[Unseen]) -> list[float]:
        """Of each text, the token that ends it left out."""
        found = []
        for place in places:
            look(self._stop)
            made = examples.encode(self._builder, place.prefix, place.suffix, place.path, place.text)
            text = len(made.ids) - made.loss_start - (made.ids[-1] == self._builder.end_id)
            found.append(answer_nats(base.model, Sample(made.ids, made.loss_start), last=text))
        return found

    def _saying(self) -> Saying | None:
        """The base as it serves; None: the cerebellum has no say, since that is off or it has other tokens."""
        if not (self._config.cerebellum.blend and self._same_tokens):
            return None
        settings = self._config.base
        gc.collect()  # the base that an adapter was learned for
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        base = Base.load(
            settings.model,
            device=settings.device,
            threads=threads(self._config.sleep.threads),
            cache=self._config.home / "cache",
            asleep=True,
        )
        if int(base.model.config.vocab_size) != int(self._base.model.config.vocab_size):
            return None
        most = min(settings.context_tokens, base.info.context_tokens)
        builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), most)
        return Saying(base, builder, self._knowledge, self._stop)

    @cached_property
    def _same_tokens(self) -> bool:
        return same_tokens(self._start, self._config.base.model)

    @cached_property
    def _knowledge(self) -> Knowledge | None:
        """What the project says word for word, where that is looked up and can be read."""
        memory = self._config.memory
        if not (memory.enabled and memory.continuations and self._same_tokens):
            return None
        vocabulary = int(self._base.model.config.vocab_size)
        return Knowledge(self._builder.codec, vocabulary, self._off_limits, self._stop, ignore=memory.ignore)

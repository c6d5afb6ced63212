"""What a say of the cerebellum's version in use is worth beside a base that it was not found for.

The say is chosen on lines of the project that were set aside, as in a sleep that learns (`saying`), and judged on what
the version had held out, against the base alone; it is 0 where it is not shown to be better. Runs in a thread of the
child, looks at `stop` between any two pieces of work, and does not touch the database.
"""

from __future__ import annotations

import gc
import logging
import math
import shutil
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import torch

from npllm.config import Config
from npllm.models import plastic
from npllm.models.base import Base
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.fim import PromptBuilder, choose
from npllm.models.manifest import read_manifest, whole_folder, write_manifest
from npllm.sleep import confidence, plastic_days
from npllm.sleep.cerebellum_learner import ASIDE
from npllm.sleep.confidence import Unseen
from npllm.sleep.dataset import Part, file_of
from npllm.sleep.gate import Judgement, Scored, judge
from npllm.sleep.interruption import Interrupted
from npllm.sleep.knowledge import Knowledge
from npllm.sleep.meter import Meter
from npllm.sleep.process import threads
from npllm.sleep.project import Passage, set_aside
from npllm.sleep.protocol import Phase
from npllm.sleep.saying import Saying, projects_of
from npllm.types import Experience, ModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the texts said: with the say against without, and what serves from then on."""

    judgement: Judgement
    calibration: Calibration

    @property
    def metrics(self) -> dict[str, float]:
        """As those of a version that has learned."""
        one = self.judgement
        said = {"before": one.nll_before, "after": one.nll_after, "low": one.gain_low, "high": one.gain_high}
        return {f"beside_{name}": value for name, value in said.items()}

    @property
    def text(self) -> str:
        """One sentence or two."""
        before, after = (nats / math.log(2) for nats in (self.judgement.nll_before, self.judgement.nll_after))
        told = "Another base writes by now, so the say of what is in use was asked about anew. "
        if not self.calibration.share:
            return f"{told}The held-out texts are not shown to be likelier with it, so the base writes without it."
        return (
            f"{told}Beside the base the held-out texts went from {before:.3f} to {after:.3f} bits per byte; in what "
            f"the base writes it has {self.calibration.share:.0%} of the say."
        )


def ask(
    config: Config,
    folder: Path,
    part: Part,
    passages: Sequence[Passage],
    off_limits: Collection[str],
    stop: threading.Event,
    meter: Meter,
) -> Answer:
    """Choose the say of the version in a folder, and judge it.

    Args:
        part: what it had learned and held out.
        passages: of the project; those that are set aside choose.
        off_limits: files and folders that are never read.
        stop: set when the person is back.

    Raises:
        Interrupted: they are.
        ModelError: it cannot be asked.
    """
    try:
        return _answer(config, folder, part, passages, off_limits, stop, meter)
    except (Interrupted, ModelError):
        raise
    except Exception as error:  # no memory for both models, too
        log.exception("the say beside this base")
        raise ModelError(f"What its say beside this base is worth could not be asked: {error}") from error


def _answer(
    config: Config,
    folder: Path,
    part: Part,
    passages: Sequence[Passage],
    off_limits: Collection[str],
    stop: threading.Event,
    meter: Meter,
) -> Answer:
    meter.phase(Phase.JUDGING)
    small = Cerebellum(_load(config, str(folder), shared=False), context_tokens=config.cerebellum.context_tokens)
    plastic.attach(small.base.model, plastic_days.layer_in(folder))
    base = _load(config, config.base.model, shared=True)
    found = base.info.fingerprint
    unseen = [Unseen(*_where(one), one.prefix, one.suffix, one.final_text) for one in part.held_out]
    aside, _ = set_aside(passages, part.learn, ASIDE)
    others = [Unseen(one.project, one.language, one.path, one.prefix, one.suffix, one.line) for one in aside]
    memory, knowledge = config.memory, None
    if memory.enabled and memory.continuations:
        knowledge = Knowledge(small.builder.codec, small.vocabulary, off_limits, stop, ignore=memory.ignore)
    share, judgement = 0.0, Judgement(False, "It tells other tokens apart.", 0.0, 0.0, 0.0, 0.0, 0.0)
    if int(base.model.config.vocab_size) == small.vocabulary:
        most = min(config.base.context_tokens, base.info.context_tokens)
        saying = Saying(base, PromptBuilder(base.tokenizer, choose(base.tokenizer), most), knowledge, stop)
        _, share = saying.chosen(small, others, meter.step)
        alone, beside = saying.costs([(small, 0.0), (small, share)], unseen, meter.step)
        sizes = [saying.utf8_bytes(place) for place in unseen]
        scored = [
            Scored(file_of(item), size, one, other)
            for item, size, one, other in zip(part.held_out, sizes, alone, beside, strict=True)
        ]
        judgement = judge(scored, min_held_out=config.sleep.min_holdout, seed=config.sleep.seed)
    precision = config.cerebellum.precision
    calibration = confidence.calibrated(small, [*unseen, *others], knowledge, precision, stop, meter.step)
    share = share if judgement.passed else 0.0
    return Answer(judgement, replace(calibration, share=share, base=found, projects=projects_of(folder) or None))


def write(
    start: Path, folder: Path, id: UUID, consolidation: UUID, answer: Answer, metrics: Mapping[str, float]
) -> str:
    """Put a version of the weights in `start`, with what was found, into `folder`; the weights' sha256.

    Raises:
        ModelError: the disk refuses.
    """
    former = read_manifest(start)
    with whole_folder(folder) as temporary:
        shutil.copytree(start, temporary, dirs_exist_ok=True)
        temporary.chmod(0o700)
        manifest = replace(
            former,
            version_id=id,
            parent=former.version_id,
            consolidation_id=consolidation,
            created_at=datetime.now(UTC),
            data={**former.data, "calibration": answer.calibration.to_json()},
            metrics=metrics,
        )
        write_manifest(temporary, manifest)
    return former.sha256


def _load(config: Config, model: str, *, shared: bool) -> Base:
    """A model as it serves, with the sleep's threads."""
    gc.collect()  # what an adapter was learned for
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Base.load(
        model,
        device=config.base.device,
        threads=threads(config.sleep.threads),
        cache=config.home / "cache",
        shared=shared,
        asleep=True,
    )


def _where(item: Experience) -> tuple[str, str, str]:
    return item.place.project, item.place.language, item.place.path

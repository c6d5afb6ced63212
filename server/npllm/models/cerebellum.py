"""The cerebellum, awake: a small model of its own that answers alone where it is sure, and drafts for the base.

How sure it is of the rest of a line is the probability that it gives to the line as it wrote it, its end included:

    c = prod_t p(y_t | y_<t, place).

What that is worth was measured in sleep on lines that it had not seen (`Calibration`). A version is a plain model
folder with a manifest, and `plastic.safetensors` where it has a plastic layer. It knows nothing of the base: another
base leaves it alone. Used from the engine's thread; nothing here learns.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import npllm
from npllm.models import locate, plastic
from npllm.models.base import Base
from npllm.models.blend import Blend
from npllm.models.codec import TextCodec
from npllm.models.decoding import Known, best
from npllm.models.engine import Cancel, Cancelled
from npllm.models.fim import PromptBuilder, PromptParts, choose
from npllm.models.manifest import read_manifest, sha256_file
from npllm.models.reading import Reader
from npllm.models.stops import StopRules
from npllm.models.torch_engine import TorchEngine
from npllm.types import ModelError

log = logging.getLogger(__name__)

CONTEXT = "cerebellum"  # what stands in the place of an adapter's context
WEIGHTS = "model.safetensors"
MOST_TOKENS = 48  # of a line; one that does not end by then is no reflex


@dataclass(frozen=True, slots=True)
class Calibration:
    """What its confidence was worth on held-out lines.

    Attributes:
        threshold: the least confidence of a reflex; None where none is precise enough.
        lines: how many lines it was judged by; `answered` of them at or above the threshold, `right` of those exactly.
        trust: in what the project says word for word (see `continuations`); 0 = the model alone.
        alone: the threshold where nothing of the project is known; it is `threshold` where `trust` is 0.
        share: of its prediction in the base's (see `blend`); 0 = the base alone.
        base: the fingerprint of the base that the share was found for; another one writes alone.
        projects: that it has learned of, by their folders: in others the base writes alone, and there
            are no calibrated reflexes. None: not known, so in all.
    """

    threshold: float | None
    lines: int
    answered: int
    right: int
    trust: float = 0.0
    alone: float | None = None
    share: float = 0.0
    base: str = ""
    projects: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """What `to_json` gave. Raises ValueError, TypeError, KeyError: it is none."""
        threshold, share = data["threshold"], float(data.get("share", 0.0))
        if not 0.0 <= share < 1.0:
            raise ValueError(f"share {share}")
        return cls(
            None if threshold is None else float(threshold),
            int(data["lines"]),
            int(data["answered"]),
            int(data["right"]),
            float(data.get("trust", 0.0)),
            None if data.get("alone") is None else float(data["alone"]),
            share,
            str(data.get("base", "")),
            None if data.get("projects") is None else tuple(map(str, data["projects"])),
        )

    def knows(self, project: str) -> bool:
        """Whether it has learned of a project."""
        return self.projects is None or project in self.projects


@dataclass(frozen=True, slots=True)
class Line:
    """The rest of a line as the cerebellum would write it."""

    text: str
    confidence: float  # c, in (0, 1]
    mean_logprob: float  # nats per token, its end included


class Cerebellum:
    """A loaded cerebellum; make it with `load`.

    Attributes:
        version_id: of the version, or None: the model as it came, which has not slept.
        calibration: None: not known, so there are no reflexes but at a confidence that is set by hand.
    """

    def __init__(
        self,
        base: Base,
        *,
        context_tokens: int,
        version_id: UUID | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.base = base
        self.version_id = version_id
        self.calibration = calibration
        self.builder = PromptBuilder(
            base.tokenizer, choose(base.tokenizer), min(context_tokens, base.info.context_tokens)
        )
        self._engine = TorchEngine(base)
        self.reader = Reader(self.builder.codec)

    @classmethod
    def load(cls, folder: Path, *, context_tokens: int, device: str = "auto", version: bool = True) -> Cerebellum:
        """The version in a folder.

        Args:
            version: False = a model as it came; a manifest in its folder is its maker's own.

        Raises:
            ModelError: it is not there, is damaged, or cannot be used.
        """
        if not version:
            return cls(Base.load(str(folder), device=device, shared=False), context_tokens=context_tokens)
        manifest = read_manifest(folder)
        if manifest.context != CONTEXT:
            raise ModelError(f"{folder} holds an adapter, not a cerebellum.")
        try:
            if sha256_file(folder / WEIGHTS) != manifest.sha256:
                raise ModelError(
                    f"{folder / WEIGHTS} is not what its manifest says (sha256 differs), so it is not loaded. The next "
                    "sleep trains a new one."
                )
            calibration = Calibration.from_json(manifest.data["calibration"])
        except OSError as error:
            raise ModelError(
                f"{folder / WEIGHTS} cannot be read ({error.strerror}). The next sleep trains a new one."
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"The manifest in {folder} has no calibration ({error!r}).") from error
        base = Base.load(str(folder), device=device, shared=False)
        digest = manifest.data.get("plastic_sha256")
        if digest:
            plastic.attach(base.model, read_plastic(folder, str(digest)))
        return cls(base, context_tokens=context_tokens, version_id=manifest.version_id, calibration=calibration)

    def drafter(self, tokenizer: Any) -> TorchEngine | None:
        """An engine of its own for drafts, if a base's tokens are its tokens; else None."""
        if tokenizer.get_vocab() != self.base.tokenizer.get_vocab():
            return None
        return TorchEngine(self.base)

    def reads_as(self, codec: TextCodec) -> bool:
        """Whether another model's tokens are its tokens."""
        return self.builder.codec.vocabulary == codec.vocabulary

    @property
    def vocabulary(self) -> int:
        """How many tokens it tells apart."""
        return int(self.base.model.config.vocab_size)

    def beside(self, parts: PromptParts, cancel: Cancel, known: Known | None = None) -> Blend | None:
        """What it has to say about each token that the base writes at a place; None: nothing, as was found in sleep.

        Args:
            cancel: of the request.
            known: has its say after that.
        """
        share = self.calibration.share if self.calibration is not None else 0.0
        if share <= 0:
            return None
        prompt = self.builder.build(parts, reserve=MOST_TOKENS)  # as for a reflex: keys and values serve both
        return Blend(self._engine, prompt.ids, share, self.builder.context_tokens, cancel, known)

    def answers(self, by_hand: float, project: str) -> bool:
        """Whether it may give reflexes in a project: anywhere by hand, as calibrated where it has learned.

        Args:
            by_hand: the least confidence that the settings say; 0 = as calibrated.
        """
        return by_hand > 0 or (self.calibration is not None and self.calibration.knows(project))

    def least(self, by_hand: float, *, alone: bool = False) -> float | None:
        """The least confidence of a reflex; None: there are no reflexes.

        Args:
            by_hand: what the settings say; 0 = as calibrated.
            alone: nothing is known of what the project says, although it trusts that.
        """
        if by_hand > 0:
            return by_hand
        if self.calibration is None:
            return None
        return self.calibration.alone if alone else self.calibration.threshold

    def line(
        self,
        parts: PromptParts,
        stop: StopRules,
        cancel: Cancel,
        *,
        floor: float = 0.0,
        most: int = MOST_TOKENS,
        known: Known | None = None,
    ) -> Line | None:
        """The rest of a line, greedily; None as soon as its confidence is below `floor`, or if `cancel` is set.

        Args:
            stop: the place's rules, for one line.
            most: tokens; a line that has not ended by then is none.
            known: has its say about each token.
        """
        prompt = self.builder.build(parts, reserve=most)
        try:
            logits = self._engine.prefill(prompt.ids, cancel)
        except Cancelled:
            return None
        least = math.log(floor) if floor > 0 else -math.inf
        total, ids, text, count = 0.0, list[int](), "", 0
        while True:
            if cancel.is_set():
                return None
            token, logprob = best(known.mix(logits, ids) if known else logits)
            total += logprob
            count += 1
            if total < least:
                return None
            if token in stop.end_ids:
                break
            ids.append(token)
            text = self._engine.text(ids)
            if stop.check(text) is not None:
                break
            if len(ids) == most:
                return None
            logits = self._engine.step(token)
        return Line(stop.trim(text), math.exp(total), total / count)

    def stops(self, prefix: str, suffix: str) -> StopRules:
        """The rules for one line at a place."""
        return StopRules(prefix, suffix, end_ids=self.builder.end_ids, multiline=False)


def origin(spec: str) -> Path:
    """The folder of the model that a cerebellum begins with.

    Args:
        spec: "starter", a folder, or a Hugging Face id.

    Raises:
        ModelError: there is none; the message says what to do.
    """
    if spec != "starter":
        return locate.resolve(spec)
    folder = Path(npllm.__file__).parent / "starter" / "cerebellum"
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"There is no cerebellum: the starter's small sister is not in {folder}. Everything else works without it. "
            "Build it with `npllm starter build --preset cerebellum-cpu`, or set cerebellum.model to a small model."
        )
    return locate.resolve(str(folder))


def read_plastic(folder: Path, digest: str) -> plastic.PlasticLayer:
    """A version's plastic layer, whose hash is the manifest's.

    Raises:
        ModelError: it is not.
    """
    file = folder / plastic.WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}). The next sleep makes a new one.") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(f"{file} is not what its manifest says (sha256 differs). The next sleep makes a new one.")
    return plastic.read(content, file)

"""How far of its way a cerebellum goes, how much of a say it gets in what the base writes, and what that is worth.

    W = W0 + s (W1 - W0)                                          s of `WAYS` (`ways`)
    p(w) ~ p_base(w)^(1 - lambda) p_cerebellum(w)^lambda          (`models.blend`; from the second token on)

s and lambda are what make lines likeliest that this sleep has not learned, as the cerebellum says them alone and as the
base does beside it (continuations in both), added up, since it serves in both ways. Where too few are there to choose
by, s is `ways.USUAL` and lambda `UNCHOSEN`. What a version is worth beside the base is asked on the held-out ones
that the gate judges by, which do not choose (but have a veto on `UNCHOSEN`): nats with the version in use and its
lambda, as it serves now, and with the new one. The base has no adapters here, so that its own sleep does not decide
about the cerebellum's.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

import torch

from npllm.models.base import Base
from npllm.models.blend import SHARES, of_answer
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.decoding import Known
from npllm.models.engine import Cancelled
from npllm.models.fim import PromptBuilder, PromptParts
from npllm.models.manifest import read_manifest
from npllm.models.torch_engine import TorchEngine
from npllm.sleep.confidence import Unseen
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.knowledge import Knowledge
from npllm.sleep.ways import usual
from npllm.types import ModelError

MOST_LINES = 60  # that lambda is chosen by
FEWEST_LINES = 20  # with less it is not chosen
UNCHOSEN = max(SHARES)
MOST_ASKED = 32  # tokens of a text
AS_IT_IS: Mapping[float, Callable[[], None]] = {1.0: lambda: None}


class Saying:
    """A base and what the project says word for word, beside which a cerebellum has its say.

    Args:
        base, builder: as it serves, without adapters; it has the cerebellum's tokens.
        knowledge: None: nothing of the project is looked up.
        stop: set when the person is back; every method then raises Interrupted.
    """

    def __init__(self, base: Base, builder: PromptBuilder, knowledge: Knowledge | None, stop: threading.Event) -> None:
        self._base, self._builder, self._knowledge, self._stop = base, builder, knowledge, stop
        self._engine = TorchEngine(base)
        self._engines: dict[int, TorchEngine] = {}  # by cerebellum

    @property
    def fingerprint(self) -> str:
        """The base's."""
        return self._base.info.fingerprint

    def chosen(
        self,
        small: Cerebellum,
        places: Sequence[Unseen],
        on_step: Callable[[int, int], None] = lambda *_: None,
        ways: Mapping[float, Callable[[], None]] = AS_IT_IS,
    ) -> tuple[float, float]:
        """(s, lambda), of `ways` and `blend.SHARES`, by up to `MOST_LINES` of the places; of fewer than `FEWEST_LINES`
        (`ways.USUAL`, `UNCHOSEN`). The cerebellum is left there.

        Args:
            on_step: told of the lines done, of how many.
            ways: s -> what brings the cerebellum there.
        """
        if len(places) < FEWEST_LINES:
            way = usual(ways)
            ways[way]()
            self._of(small).forget()
            return way, UNCHOSEN
        few = places[:: -(-len(places) // MOST_LINES) or 1]
        nats: dict[tuple[float, float], float] = dict.fromkeys(itertools.product(ways, SHARES), 0.0)
        for number, place in enumerate(few, 1):
            answer, own, known = self._asked(place)
            for way, go in ways.items():
                go()
                self._of(small).forget()  # keys and values of other weights
                said = self._rows(self._of(small), small.builder, place, answer)
                alone = _cost(said.log_softmax(-1), answer, known)
                for share in SHARES:
                    look(self._stop)
                    nats[way, share] += alone + _cost(of_answer(own, said, share), answer, known)
            on_step(number, len(few))
        best = min(nats, key=lambda one: nats[one])
        ways[best[0]]()
        self._of(small).forget()
        return best

    def costs(
        self,
        ways: Sequence[tuple[Cerebellum, float]],
        places: Sequence[Unseen],
        on_step: Callable[[int, int], None] = lambda *_: None,
        looked_up: int | None = None,
    ) -> list[list[float]]:
        """Nats of each place's text (its first `MOST_ASKED` tokens) in each way: a cerebellum and its lambda.

        As it serves: one whose calibration does not know a place's project has no say there.

        Args:
            looked_up: at so many places, the first, what the project says has its say; None: at all.
        """
        found: list[list[float]] = [[] for _ in ways]
        for number, place in enumerate(places):
            answer, own, known = self._asked(place, looked_up is None or number < looked_up)
            there = [(small, share if _heard(small, place) else 0.0) for small, share in ways]
            others = {id(small): small for small, share in there if share > 0}
            said = {name: self._rows(self._of(one), one.builder, place, answer) for name, one in others.items()}
            for nats, (small, share) in zip(found, there, strict=True):
                look(self._stop)
                nats.append(_cost(of_answer(own, said.get(id(small), own), share), answer, known))
            on_step(number + 1, len(places))
        return found

    def _asked(self, place: Unseen, look_up: bool = True) -> tuple[list[int], torch.Tensor, Known | None]:
        """The first tokens of a place's text, the base's logits [T, V] for them, and what is known there."""
        answer = list(self._builder.encode_middle(place.text)[:MOST_ASKED])
        own = self._rows(self._engine, self._builder, place, answer)
        if self._knowledge is None or not look_up:
            return answer, own, None
        sides = (place.prefix, place.suffix)
        return answer, own, self._knowledge.at(place.project, place.language, place.path, sides, 1.0)

    def anew(self, small: Cerebellum) -> None:
        """After a layer was put into a cerebellum or taken out of it, which a forward would not see."""
        self._engines.pop(id(small), None)

    def utf8_bytes(self, place: Unseen) -> int:
        """Of what `costs` asks at a place."""
        return len(self._builder.codec.decode(self._builder.encode_middle(place.text)[:MOST_ASKED]).encode())

    def _of(self, small: Cerebellum) -> TorchEngine:
        if id(small) not in self._engines:
            self._engines[id(small)] = TorchEngine(small.base)
        return self._engines[id(small)]

    def _rows(self, engine: TorchEngine, builder: PromptBuilder, place: Unseen, answer: Sequence[int]) -> torch.Tensor:
        """A model's logits [T, V] for each token of an answer; in pieces, as it serves."""
        prompt = builder.build(PromptParts(place.path, place.prefix, place.suffix), reserve=len(answer)).ids
        look(self._stop)
        try:
            first = engine.prefill(prompt, self._stop)
        except Cancelled:
            raise Interrupted from None
        look(self._stop)
        rows = torch.cat([first[None], engine.verify(answer)])[:-1] if answer else first[None][:0]
        engine.crop(len(prompt))
        return rows.float().cpu()


def _heard(small: Cerebellum, place: Unseen) -> bool:
    """Whether a cerebellum may have its say at a place; one that is not calibrated yet is being judged there."""
    return small.calibration is None or small.calibration.knows(place.project)


def _cost(rows: torch.Tensor, answer: Sequence[int], known: Known | None) -> float:
    """Nats of an answer by log-probabilities [T, V], and what is known after them."""
    if known is None:
        return -float(rows[range(len(answer)), list(answer)].sum())
    return -sum(float(known.mix(row, answer[:at])[answer[at]]) for at, row in enumerate(rows))


def unless_harmful(
    shares: Sequence[float], costs: Sequence[Sequence[float]], most: int
) -> tuple[Sequence[float], Sequence[Sequence[float]]]:
    """Shares and the nats of each line with them, of which the first was not chosen by any line: only the base alone is
    left, whose share is 0, if that costs less than the first on the first `most` lines."""
    alone = shares.index(0.0)
    if sum(costs[0][:most]) > sum(costs[alone][:most]):
        return [0.0], [costs[alone]]
    return shares, costs


def calibration_of(folder: Path) -> Calibration | None:
    """That of the version in a folder; None where it cannot be read."""
    try:
        return Calibration.from_json(read_manifest(folder).data["calibration"])
    except (ModelError, KeyError, TypeError, ValueError):
        return None


def projects_of(folder: Path) -> tuple[str, ...]:
    """The projects that the version in a folder has learned of; of one that does not list them, those whose files it
    read."""
    found = calibration_of(folder)
    if found is None or found.projects is not None:
        return found.projects or () if found else ()
    return tuple(sorted({str(project) for project, _ in read_manifest(folder).data.get("project_files", ())}))


def share_in_use(start: Path, parent: UUID | None, base: str) -> float | None:
    """How much of a say the version in use, `parent`, has beside a base; None: never asked, since another base wrote.

    Args:
        start: the folder that the sleep begins with; the parent's own, unless that is damaged.
        base: its fingerprint.
    """
    if parent is None:
        return 0.0
    try:
        manifest = read_manifest(start)
        found = Calibration.from_json(manifest.data["calibration"])
    except (ModelError, KeyError, TypeError, ValueError):  # it was damaged, so this began with the model as it came
        return 0.0
    if manifest.version_id != parent:
        return 0.0
    return found.share if found.base == base else None

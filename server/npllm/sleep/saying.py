"""How much of a say the cerebellum gets in what the base writes, and what that is worth on unseen lines.

    p(w) = (1 - lambda) p_base(w) + lambda p_cerebellum(w)        (`models.blend`; continuations come after it)

lambda is what makes lines likeliest that nothing has learned, or `UNCHOSEN` where there are too few of those to choose.
What a version is worth beside the base is asked on the held-out ones that the gate judges by, which do not choose (but
have a veto on `UNCHOSEN`): nats with the version in use and its lambda, as it serves now, and with the new one. The
base has no adapters here, so that its own sleep does not decide about the cerebellum's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import torch

from npllm.models.base import Base
from npllm.models.blend import SHARES, mixed
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.engine import Cancelled
from npllm.models.fim import PromptBuilder, PromptParts
from npllm.models.manifest import read_manifest
from npllm.models.torch_engine import TorchEngine
from npllm.sleep.confidence import Unseen
from npllm.sleep.interruption import Interrupted, look
from npllm.sleep.knowledge import Knowledge
from npllm.types import ModelError

MOST_LINES = 60  # that lambda is chosen by
FEWEST_LINES = 20  # with less it is not chosen
UNCHOSEN = 0.1  # better than 0 and 0.2 for the shipped pair as it came, on four projects (docs/experiments.md)
MOST_ASKED = 32  # tokens of a text


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

    def share(
        self, small: Cerebellum, places: Sequence[Unseen], on_step: Callable[[int, int], None] = lambda *_: None
    ) -> float:
        """lambda, of `blend.SHARES`, by up to `MOST_LINES` of the places; of fewer than `FEWEST_LINES`, `UNCHOSEN`.

        Args:
            on_step: told of the lines done, of how many.
        """
        if len(places) < FEWEST_LINES:
            return UNCHOSEN
        few = places[:: -(-len(places) // MOST_LINES) or 1]
        costs = self.costs([(small, share) for share in SHARES], few, on_step)
        return min(zip(SHARES, costs, strict=True), key=lambda pair: sum(pair[1]))[0]

    def costs(
        self,
        ways: Sequence[tuple[Cerebellum, float]],
        places: Sequence[Unseen],
        on_step: Callable[[int, int], None] = lambda *_: None,
    ) -> list[list[float]]:
        """Nats of each place's text (its first `MOST_ASKED` tokens) in each way: a cerebellum and its lambda."""
        found: list[list[float]] = [[] for _ in ways]
        for number, place in enumerate(places, 1):
            answer = self._builder.encode_middle(place.text)[:MOST_ASKED]
            own = self._rows(self._engine, self._builder, place, answer)
            others = {id(small): small for small, share in ways if share > 0}
            said = {name: self._rows(self._of(one), one.builder, place, answer) for name, one in others.items()}
            known = None
            if self._knowledge is not None:
                sides = (place.prefix, place.suffix)
                known = self._knowledge.at(place.project, place.language, place.path, sides, 1.0)
            for nats, (small, share) in zip(found, ways, strict=True):
                total = 0.0
                for at, token in enumerate(answer):
                    look(self._stop)
                    row = mixed(own[at], said[id(small)][at], share) if share > 0 else own[at].log_softmax(-1)
                    total -= float((known.mix(row, answer[:at]) if known is not None else row)[token])
                nats.append(total)
            on_step(number, len(places))
        return found

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


def unless_harmful(
    shares: Sequence[float], costs: Sequence[Sequence[float]]
) -> tuple[Sequence[float], Sequence[Sequence[float]]]:
    """Shares and the nats of each line with them, of which the first was not chosen by any line: only the base alone is
    left, whose share is 0, if that costs less than the first."""
    alone = shares.index(0.0)
    if sum(costs[0]) > sum(costs[alone]):
        return [0.0], [costs[alone]]
    return shares, costs


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

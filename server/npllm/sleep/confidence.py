"""How sure the cerebellum is of lines that it has not learned, and how far it should trust what is known.

As it will answer awake: with what the project says word for word (`models.continuations`) beside what it learned. How
far it trusts that is chosen here, by what makes those lines likeliest; then `calibration` finds its threshold. What its
say in the base's writing is worth is told by `saying`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from npllm.models import examples
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.fim import PromptParts, unix_lines
from npllm.sleep.calibration import calibrate
from npllm.sleep.interruption import look
from npllm.sleep.knowledge import Knowledge

MOST_JUDGED = 200  # lines that confidence is judged by
TRUSTS = (0.0, 0.5, 1.0, 2.0, 4.0)  # of which one is chosen
MOST_TRUSTED = 60  # lines that it is chosen by


class Unseen(NamedTuple):
    """A line that it has not learned, and where it stands."""

    project: str
    language: str
    path: str
    prefix: str
    suffix: str
    text: str


def calibrated(
    small: Cerebellum,
    places: Sequence[Unseen],
    knowledge: Knowledge | None,
    precision: float,
    stop: threading.Event,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> Calibration:
    """From which confidence on it may answer alone, and how far it trusts what is known (not at all: None).

    Args:
        precision: the share of reflexes that should be exactly right.
        on_step: told of the lines done, of how many.

    Raises:
        Interrupted: the person is back.
    """
    places = places[:MOST_JUDGED]
    few = places[:: -(-len(places) // MOST_TRUSTED) or 1]
    trust = _trust(small, few, knowledge, stop) if knowledge is not None else 0.0
    total = len(places) if trust == 0 else 2 * len(places)
    alone = calibrate(_judged(small, places, None, 0.0, stop, lambda done: on_step(done, total)), precision)
    if knowledge is None or trust == 0:
        return replace(alone, alone=alone.threshold)
    judged = _judged(small, places, knowledge, trust, stop, lambda done: on_step(len(places) + done, total))
    return replace(calibrate(judged, precision), trust=trust, alone=alone.threshold)


def _judged(
    small: Cerebellum,
    places: Sequence[Unseen],
    knowledge: Knowledge | None,
    trust: float,
    stop: threading.Event,
    on_step: Callable[[int], None],
) -> list[tuple[float, bool]]:
    """How sure it is of each line, and whether it is right."""
    judged: list[tuple[float, bool]] = []
    for number, place in enumerate(places):
        look(stop)
        known = None
        if knowledge is not None:
            known = knowledge.at(place.project, place.language, place.path, (place.prefix, place.suffix), trust)
        with torch.inference_mode():
            rules = small.stops(unix_lines(place.prefix), unix_lines(place.suffix))
            line = small.line(PromptParts(place.path, place.prefix, place.suffix), rules, stop, known=known)
        wanted = unix_lines(place.text).split("\n")[0].rstrip()
        if line is not None and line.text:
            judged.append((line.confidence, line.text.rstrip() == wanted))
        on_step(number + 1)
    return judged


def _trust(small: Cerebellum, places: Sequence[Unseen], knowledge: Knowledge, stop: threading.Event) -> float:
    """What makes the lines likeliest."""
    nats = dict.fromkeys(TRUSTS, 0.0)
    for place in places:
        look(stop)
        made = examples.encode(small.builder, place.prefix, place.suffix, place.path, place.text)
        begin, end = made.loss_start, len(made.ids) - (made.ids[-1] == small.builder.end_id)
        answer = made.ids[begin:end]
        ids = torch.tensor([made.ids], device=small.base.device)
        with torch.inference_mode():
            rows = small.base.model(input_ids=ids, use_cache=False).logits[0, begin - 1 : end - 1]
            for trust in TRUSTS:
                known = knowledge.at(place.project, place.language, place.path, (place.prefix, place.suffix), trust)
                for at, row in enumerate(rows):
                    look(stop)
                    nats[trust] -= float(known.mix(row, answer[:at])[answer[at]])
    return min(TRUSTS, key=lambda trust: nats[trust])

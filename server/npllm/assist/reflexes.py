"""Reflexes: the rest of a line from the cerebellum alone, where it is sure enough. Otherwise the base is asked.

Runs in `EngineWorker`'s thread, under `torch.inference_mode()`.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from npllm import contexts
from npllm.assist.filters import worth_showing
from npllm.assist.worker import Desk
from npllm.types import Suggestion, new_id

if TYPE_CHECKING:
    from npllm.assist.library import Shelf
    from npllm.assist.writing import Request
    from npllm.models.cerebellum import Cerebellum
    from npllm.models.continuations import Continuations

SOURCE = "reflex"


def suggest(desk: Desk, request: Request, cancel: threading.Event, kind: str) -> Suggestion | None:
    """A reflex at a place; None where there is no cerebellum, it has not learned of the project (and no confidence is
    set by hand), it is not sure, or what it says is not wanted."""
    settings, small, by_hand = request.config.cerebellum, desk.cerebellum, request.config.cerebellum.min_confidence
    if small is None or not (settings.enabled and settings.reflex and small.answers(by_hand, request.place.project)):
        return None
    from npllm.models.fim import PromptParts, unix_lines

    started = time.perf_counter()
    parts = PromptParts(request.place.path, request.prefix, request.suffix)
    stop = small.stops(unix_lines(request.prefix), unix_lines(request.suffix))
    said = known(desk, small, request.document or (request.prefix, request.suffix), request.shelf)
    trusts = small.calibration is not None and small.calibration.trust > 0
    floor = small.least(by_hand, alone=trusts and said is None)
    if floor is None:
        return None
    line = small.line(parts, stop, cancel, floor=floor, known=said)
    if line is None or not worth_showing(line.text, line.mean_logprob, request.suffix, request.config.completion):
        return None
    text = request.with_line_ends(line.text)
    if request.unwanted(text):
        return None
    return Suggestion(
        id=new_id(),
        place=request.place,
        text=text,
        prefix=request.prefix,
        suffix=request.suffix,
        context=contexts.language(request.place.language),
        base_fingerprint=desk.info.fingerprint,
        adapter_versions=() if small.version_id is None else (small.version_id,),
        memory_ids=(),
        mean_logprob=line.mean_logprob,
        latency_ms=(time.perf_counter() - started) * 1000,
        created_at=datetime.now(UTC),
        source=SOURCE,
        kind=kind,
    )


def known(desk: Desk, small: Cerebellum, document: tuple[str, str], shelf: Shelf | None) -> Continuations | None:
    """What the project and the document say word for word, as far as the cerebellum trusts it.

    None where it does not, or has other tokens than the base, or nothing is known (yet).
    """
    from npllm.models.fim import unix_lines
    from npllm.models.reading import known_at

    trust = small.calibration.trust if small.calibration is not None else 0.0
    if trust <= 0 or shelf is None or not desk.alike or shelf.codec is not desk.reader.codec:
        return None
    above, below = map(unix_lines, document)
    return known_at(small.reader, above, below, small.vocabulary, shelf.index, shelf.without, trust)

"""A few held-out lines as the version in use before and the new one would have completed them, for the report.

Drawn by chance, not chosen. Greedy, by the decoder that serves, after the same prompt that the gate judges with.
Bounded in number and time. Knows nothing of the database.
"""

from __future__ import annotations

import random
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel

from npllm.models import examples
from npllm.models.base import Base
from npllm.models.decoding import complete
from npllm.models.fim import PromptBuilder
from npllm.models.stops import StopRules
from npllm.models.torch_engine import TorchEngine
from npllm.sleep.interruption import look
from npllm.sleep.record import Quote
from npllm.types import Experience

MOST = 5
WITHIN_S = 20.0  # for each of the two versions; on a large base fewer lines are quoted
TOKENS = 48
_ABOVE = (3, 240)  # lines and characters before the cursor that are shown
_SHOWN = 400  # characters of a text that are shown


class _Until:
    """Set when the person is back or the time is over."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        self._stop = stop
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        return self._stop.is_set() or time.monotonic() > self._end


def quotes(
    base: Base,
    adapted: PeftModel,
    parent: Path | None,
    held_out: Sequence[Experience],
    builder: PromptBuilder,
    stop: threading.Event,
    *,
    seed: str,
) -> tuple[Quote, ...]:
    """Complete some of the held-out places with both versions.

    Args:
        adapted: `base.model` with the new version as its adapter "default", which acts again afterwards.
        parent: the folder of the version in use before; None: the bare base.
        seed: another one draws others.

    Raises:
        Interrupted: the person is back.
    """
    chosen = _drawn(held_out, seed)
    engine = TorchEngine(base, lean=False)  # the lean forward knows the adapters of serving alone
    after = _completed(engine, chosen, builder, stop)
    with former(adapted, parent):
        before = _completed(engine, chosen, builder, stop)
    return _quoted(chosen, before, after)


def quotes_of_two(
    before: Base,
    after: Base,
    held_out: Sequence[Experience],
    builder: PromptBuilder,
    stop: threading.Event,
    *,
    seed: str,
) -> tuple[Quote, ...]:
    """Complete some of the held-out places with two models as they are now; `builder` is of both.

    Raises:
        Interrupted: the person is back.
    """
    chosen = _drawn(held_out, seed)
    made = (_completed(TorchEngine(model, lean=False), chosen, builder, stop) for model in (before, after))
    return _quoted(chosen, *made)


def _drawn(held_out: Sequence[Experience], seed: str) -> list[Experience]:
    pool = sorted(held_out, key=lambda item: item.id)
    return random.Random(seed).sample(pool, min(MOST, len(pool)))


def _quoted(chosen: Sequence[Experience], before: Sequence[str], after: Sequence[str]) -> tuple[Quote, ...]:
    return tuple(
        Quote(
            id=str(item.id),
            project=item.place.project,
            path=item.place.path,
            above="\n".join(item.prefix[-_ABOVE[1] :].split("\n")[-_ABOVE[0] :]),
            wrote=item.final_text[:_SHOWN],
            before=old[:_SHOWN],
            after=new[:_SHOWN],
        )
        for item, old, new in zip(chosen, before, after)  # where the time was over, fewer
    )


@contextmanager
def former(adapted: PeftModel, parent: Path | None) -> Iterator[None]:
    """Inside, the version in use before acts: the adapter in `parent`, or nothing but the base."""
    if parent is None:
        with adapted.disable_adapter():
            yield
        return
    with warnings.catch_warnings():  # of merging, which nobody does
        warnings.simplefilter("ignore")
        adapted.load_adapter(str(parent), "former")
    adapted.set_adapter("former")
    try:
        yield
    finally:
        adapted.set_adapter("default")
        adapted.delete_adapter("former")


def _completed(
    engine: TorchEngine, chosen: Sequence[Experience], builder: PromptBuilder, stop: threading.Event
) -> list[str]:
    engine.forget()  # keys and values of the other version
    until = _Until(stop, WITHIN_S)
    found = []
    for item in chosen:
        look(stop)
        made = examples.encode(builder, item.prefix, item.suffix, item.place.path, item.final_text)
        rules = StopRules(item.prefix, item.suffix, end_ids=builder.end_ids, multiline="\n" in item.final_text)
        room = min(TOKENS, engine.info.context_tokens - made.loss_start)
        done = complete(engine, made.ids[: made.loss_start], stop=rules, max_new_tokens=room, cancel=until)
        if done.finished == "cancelled":
            break
        found.append(done.text)
    look(stop)
    return found

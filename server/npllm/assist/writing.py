"""What the model's thread does for one request: build the prompt, decode, judge. Pure functions of their arguments.

Runs in `EngineWorker`'s thread, under `torch.inference_mode()`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from npllm import contexts
from npllm.assist import reflexes
from npllm.assist.filters import worth_showing
from npllm.assist.library import Shelf
from npllm.assist.worker import Desk
from npllm.config import Config
from npllm.types import Modulation, Place, Snippet, Suggestion, new_id

if TYPE_CHECKING:
    from npllm.models.continuations import Continuations
    from npllm.models.decoding import Known
    from npllm.models.engine import AdapterChoice
    from npllm.models.fim import Prompt
    from npllm.models.stops import StopRules

VERDICTS = 64  # on what is remembered, that are kept
PROBE_LINES = 4  # the last lines of the prefix, by which what is remembered is judged
MIN_SPARE = 16  # tokens kept free behind a rewritten selection's own length


@dataclass(frozen=True, slots=True)
class Request:
    """One place, and everything that goes into its prompt; `unwanted` says what the person does not want there."""

    place: Place
    prefix: str
    suffix: str
    snippets: tuple[Snippet, ...]
    config: Config
    contexts: tuple[str, ...] = ()  # all that the place belongs to; without any, those that the prefix tells
    unwanted: Callable[[str], bool] = lambda _: False
    document: tuple[str, str] | None = None  # more of the document before and after the cursor than prefix and suffix
    shelf: Shelf | None = None  # what the project says word for word
    working: tuple[Snippet, ...] = ()  # what else is on the desk

    def with_line_ends(self, text: str) -> str:
        """Generated text with the document's line ends."""
        return text.replace("\n", "\r\n") if "\r\n" in self.prefix or "\r\n" in self.suffix else text


@dataclass(frozen=True, slots=True)
class LineScore:
    """The negative log-likelihood of a text the person wrote, as serving would have predicted it."""

    nats: float
    tokens: int
    utf8_bytes: int
    memories: int  # pieces of remembered code in the prompt


def suggest(desk: Desk, request: Request, cancel: threading.Event, kind: str) -> Suggestion | None:
    """The completion of a place, or None where there is none worth showing or the request was cancelled.

    A reflex where the cerebellum is sure, else what the base writes.
    """
    if (reflex := reflexes.suggest(desk, request, cancel, kind)) is not None:
        return reflex
    from npllm.models.fim import unix_lines
    from npllm.models.stops import StopRules

    settings = request.config.completion
    stop = StopRules(
        unix_lines(request.prefix),
        unix_lines(request.suffix),
        end_ids=desk.builder.end_ids,
        multiline=settings.multiline,
    )
    made = _write(desk, request, stop, settings.max_new_tokens, cancel, kind)
    if made is None or not worth_showing(made.text, made.mean_logprob, request.suffix, settings):
        return None
    return made


def rewrite(desk: Desk, request: Request, cancel: threading.Event, selected: str) -> Suggestion | None:
    """What the base would write in place of a selection, by infilling; None where it would write the same."""
    from npllm.models.fim import unix_lines
    from npllm.models.stops import StopRules

    length = 2 * len(desk.builder.encode_middle(selected)) + MIN_SPARE
    room = desk.builder.context_tokens // 2
    stop = StopRules(
        unix_lines(request.prefix), unix_lines(request.suffix), end_ids=desk.builder.end_ids, multiline="\n" in selected
    )
    made = _write(desk, request, stop, min(length, room), cancel, "rewrite")
    if made is None or made.text.strip() in ("", selected.strip()):
        return None
    return made


def score(desk: Desk, request: Request, target: str, cancel: threading.Event) -> LineScore:
    """How well the base predicts `target` at a place, with the prompt and the adapters of `suggest`."""
    from npllm.models import decoding

    _choose_adapters(desk, request, explore=False)
    request = _recalled(desk, request, cancel)
    prompt = _prompt(desk, request, request.config.completion.max_new_tokens)
    ids, known = desk.builder.encode_middle(target), _beside(desk, request, cancel)
    made = decoding.score(desk.engine, prompt.ids, ids, target, cancel, prompt.spans, known)
    return LineScore(made.nats, made.tokens, made.utf8_bytes, prompt.pieces)


def _write(
    desk: Desk, request: Request, stop: StopRules, max_new_tokens: int, cancel: threading.Event, kind: str
) -> Suggestion | None:
    from npllm.models import decoding

    started = time.perf_counter()
    choice, modulation = _choose_adapters(desk, request)
    request = _recalled(desk, request, cancel)
    prompt = _prompt(desk, request, max_new_tokens)
    decoded = decoding.complete(
        desk.engine,
        prompt.ids,
        stop=stop,
        max_new_tokens=max_new_tokens,
        cancel=cancel,
        spans=prompt.spans,
        drafts=desk.drafting,
        known=_beside(desk, request, cancel),
    )
    if decoded.finished == "cancelled" or not decoded.text:
        return None
    return Suggestion(
        id=new_id(),
        place=request.place,
        text=request.with_line_ends(decoded.text),
        prefix=request.prefix,
        suffix=request.suffix,
        context=contexts.language(request.place.language),
        base_fingerprint=desk.info.fingerprint,
        adapter_versions=(*choice.versions, *_says(desk, request)),
        memory_ids=prompt.used_snippets,
        mean_logprob=decoded.mean_logprob,
        latency_ms=(time.perf_counter() - started) * 1000,
        created_at=datetime.now(UTC),
        kind=kind,
        contexts=_contexts(request),
        modulation=modulation,
    )


def _recalled(desk: Desk, request: Request, cancel: threading.Event) -> Request:
    """The request with what is remembered, and on the desk, only if that makes the lines just written likelier.

    The base is asked itself: log p(last lines | snippets, what stands above) against the same without snippets. A
    snippet that does not help to predict what the person has just written will hardly help with what comes next. It
    is asked once a line: two prompts in turn at every key would each time displace the other's keys and values.
    """
    from npllm.models import decoding
    from npllm.models.engine import Cancelled
    from npllm.models.fim import PromptParts, unix_lines

    if not (request.snippets or request.working):
        return request
    without = replace(request, snippets=(), working=())
    prefix = unix_lines(request.prefix)
    lines = prefix.splitlines(keepends=True)
    above, tail = "".join(lines[:-PROBE_LINES]), "".join(lines[-PROBE_LINES:])
    if not above.strip() or not tail.strip():
        return request
    told = tuple((snippet.path, snippet.text) for snippet in (*request.snippets, *request.working))
    key = (request.place.uri, prefix[: prefix.rfind("\n") + 1], told)
    if (known := desk.verdicts.get(key)) is not None:
        return request if known else without
    ids = desk.builder.encode_middle(tail)
    nats = []
    for asked in (without, request):  # in this order: the kept keys and values then serve the request itself
        parts = PromptParts(request.place.path, above, request.suffix, asked.snippets, asked.working)
        prompt = desk.builder.build(
            parts,
            reserve=len(ids) + request.config.completion.max_new_tokens,
            snippet_budget=request.config.memory.token_budget,
        )
        try:
            nats.append(decoding.score(desk.engine, prompt.ids, ids, tail, cancel, prompt.spans).nats)
        except Cancelled:
            return request
    desk.verdicts[key] = nats[1] < nats[0]
    while len(desk.verdicts) > VERDICTS:
        desk.verdicts.popitem(last=False)
    return request if desk.verdicts[key] else without


def _beside(desk: Desk, request: Request, cancel: threading.Event) -> Known | None:
    """What has its say about each token beside the base: the cerebellum, as far as a sleep found that good, and
    what is known word for word."""
    from npllm.models.fim import PromptParts

    known = _known(desk, request)
    if not _says(desk, request):
        return known
    assert desk.cerebellum is not None
    parts = PromptParts(request.place.path, request.prefix, request.suffix)
    return desk.cerebellum.beside(parts, cancel, known) or known


def _says(desk: Desk, request: Request) -> tuple[UUID, ...]:
    """The version of the cerebellum that has its say in what this base writes; none where there is none, it has other
    tokens, it has learned nothing of this project, or the sleep asked about another base."""
    settings, small = request.config.cerebellum, desk.cerebellum
    if small is None or small.calibration is None or not (settings.enabled and settings.blend and desk.alike):
        return ()
    if not small.calibration.knows(request.place.project):
        return ()
    same = small.calibration.base == desk.info.fingerprint and small.vocabulary == int(
        desk.base.model.config.vocab_size
    )
    return (small.version_id,) if same and small.calibration.share > 0 and small.version_id is not None else ()


def _known(desk: Desk, request: Request) -> Continuations | None:
    """What the project and the document say word for word; None where that is off."""
    from npllm.models.fim import unix_lines
    from npllm.models.reading import known_at

    memory = request.config.memory
    if not (memory.enabled and memory.continuations):
        return None
    above, below = map(unix_lines, request.document or (request.prefix, request.suffix))
    size = int(desk.base.model.config.vocab_size)
    if request.shelf is None or request.shelf.codec is not desk.reader.codec:
        return known_at(desk.reader, above, below, size)
    return known_at(desk.reader, above, below, size, request.shelf.index, request.shelf.without)


def _prompt(desk: Desk, request: Request, reserve: int) -> Prompt:
    from npllm.models.fim import PromptParts

    parts = PromptParts(request.place.path, request.prefix, request.suffix, request.snippets, request.working)
    return desk.builder.build(parts, reserve=reserve, snippet_budget=request.config.memory.token_budget)


def _choose_adapters(desk: Desk, request: Request, *, explore: bool = True) -> tuple[AdapterChoice, Modulation | None]:
    """Make those adapters act that the modulator wants; also what it decided."""
    from npllm.models.modulator import Sight, choice_of

    settings = request.config.adapters
    place, belongs = request.place, _contexts(request)
    fitting = desk.adapters.fitting(belongs) if settings.enabled and settings.strength > 0 else ()
    sight = Sight(place.uri, place.language, place.offset, request.prefix, request.suffix, belongs)
    decided = desk.modulator.decide(fitting, sight, desk.engine, request.config.modulator, explore=explore)
    choice = choice_of(decided, fitting, settings.strength)
    desk.engine.use_adapters(choice)
    return choice, decided


def _contexts(request: Request) -> tuple[str, ...]:
    return request.contexts or contexts.of(request.place, request.prefix)

"""The first engine: transformers' forward (or a lean one), a key-value cache of our own, `torch.inference_mode`.

Between two requests it keeps the tokens and their keys and values, one such state for each of the last few choices
of adapters (a key computed with one adapter is wrong with another; adapters on the output layer alone change no key
and need no other state). With neuromodulated attention a key also depends on how satisfying the memories before it
are: that is kept beside each token, and only where both agree is a key still good. Logits are computed for the
positions that are asked for and no others. Used from one thread.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch

from npllm.models.attention import Bias, acting
from npllm.models.base import Base, BaseInfo
from npllm.models.codec import TextCodec
from npllm.models.engine import NO_ADAPTERS, AdapterChoice, Cancel, Cancelled, Logits
from npllm.models.fim import Span
from npllm.models.kvcache import can_truncate, new_cache, truncate
from npllm.models.lean import LeanForward, fits
from npllm.types import ModelError

_STATES = 2  # choices of adapters whose keys and values are kept


@dataclass
class _State:
    """One sequence: its tokens, how satisfying the memory is that each belongs to, and their keys and values."""

    cache: Any
    ids: list[int] = field(default_factory=list)
    felt: list[float] = field(default_factory=list)


class TorchEngine:
    """Implements `Engine` over a `Base`.

    Args:
        lean: use our own forward where it fits the model.

    Attributes:
        prefilled: tokens that the last `prefill` had to compute (the others were still there).
    """

    def __init__(self, base: Base, *, lean: bool = True) -> None:
        self._base = base
        self._model = base.model
        self._codec = TextCodec(base.tokenizer)
        self._states: OrderedDict[AdapterChoice, _State] = OrderedDict()
        self._choice = NO_ADAPTERS
        self._inner = NO_ADAPTERS  # the part of it that keys and values depend on
        self._state = self._fresh()
        self._hidden: torch.Tensor | None = None
        self._recurrent = not can_truncate(self._state.cache)
        self._chunk = base.info.context_tokens if self._recurrent else _chunk(base.info)
        accepts = inspect.signature(self._model.forward).parameters
        self._keeps_logits = "logits_to_keep" in accepts
        self._cache_name = "past_key_values" if "past_key_values" in accepts else "cache_params"
        self.prefilled = 0
        self._may_lean = lean
        self._lean: LeanForward | None = None
        self._generation = -1
        self._gains: UUID | None = None  # the version that keys and values were computed with
        head = self._model.get_output_embeddings()
        if head is not None:
            head.register_forward_pre_hook(self._look)

    @property
    def info(self) -> BaseInfo:
        return self._base.info

    @property
    def length(self) -> int:
        return len(self._state.ids)

    def prefill(self, ids: Sequence[int], cancel: Cancel, spans: Sequence[Span] = ()) -> Logits:
        if not ids:
            raise ModelError("An empty prompt cannot be continued.")
        if len(ids) > self.info.context_tokens:
            raise ModelError(f"The prompt has {len(ids)} tokens, the base takes {self.info.context_tokens}.")
        felt = self._felt(len(ids), spans)
        kept = min(_common(self._state.ids, ids), _common(self._state.felt, felt))
        kept = min(kept, len(ids) - 1)  # the last one is computed for its logits
        if not self._truncate(kept):
            self._state, kept = self._fresh(), 0
        self.prefilled = len(ids) - kept
        logits: torch.Tensor | None = None
        for begin in range(kept, len(ids), self._chunk):
            if cancel.is_set():
                raise Cancelled
            logits = self._forward(ids[begin : begin + self._chunk], 1, felt[begin : begin + self._chunk])
        assert logits is not None
        return logits[0]

    def step(self, token: int) -> Logits:
        return self._forward((token,), 1)[0]

    def verify(self, tokens: Sequence[int]) -> Logits:
        return self._forward(tokens, len(tokens))

    def crop(self, length: int) -> None:
        if not self._truncate(length):  # a recurrent state cannot be taken back: begin again
            kept, self._state = self._state.ids[:length], self._fresh()
            for begin in range(0, length, self._chunk):  # (neuromodulated attention does not fit such a base)
                self._forward(kept[begin : begin + self._chunk], 1)

    def use_adapters(self, choice: AdapterChoice) -> None:
        self._base.activate(choice)  # always: a version may have been unloaded, and loaded again, since
        if choice == self._choice:
            return
        self._choice = choice
        self._generation = -1
        inner = self._base.before_output(choice)
        if inner == self._inner:
            return
        self._states[self._inner] = self._state
        self._inner = inner
        self._state = self._states.pop(inner) if inner in self._states else self._fresh()
        while len(self._states) >= _STATES:
            self._states.popitem(last=False)

    def forget(self) -> None:
        self._states.clear()
        self._state = self._fresh()

    def hidden(self) -> torch.Tensor:
        if self._hidden is None:
            raise ModelError("The base has not computed anything yet.")
        return self._hidden

    def text(self, ids: Sequence[int]) -> str:
        return self._codec.decode(ids)

    def _felt(self, length: int, spans: Sequence[Span]) -> list[float]:
        """How satisfying the memory is that each token belongs to; what was computed with other gains is dropped."""
        modulation = self._base.neuromodulation
        version = None if modulation is None else modulation.version
        if version != self._gains:
            self._gains = version
            self.forget()
        return [0.0] * length if modulation is None else modulation.felt(length, spans)

    def _forward(self, tokens: Sequence[int], rows: int, felt: Sequence[float] = ()) -> torch.Tensor:
        """Append tokens (of no memory, unless `felt` says so); logits [rows, V] of the last `rows` positions. A
        failure in the middle loses the cache."""
        state = self._state
        if self._recurrent and state.ids and len(tokens) > 1:  # such forwards take a kept state one token at a time
            return torch.cat([self._forward((token,), 1) for token in tokens])[-rows:]
        if self._generation != self._base.generation:  # adapters have come, gone or changed
            self._generation = self._base.generation
            self._lean = LeanForward(self._model, self._choice) if self._may_lean and fits(self._model) else None
        felt = [*state.felt, *(felt or [0.0] * len(tokens))]
        modulation = self._base.neuromodulation
        bias = None if modulation is None else modulation.bias(felt)
        if self._lean is not None:
            logits = self._forward_lean(self._lean, tokens, rows, bias)
            state.felt = felt
            return logits
        options: dict[str, Any] = {self._cache_name: state.cache, "use_cache": True}
        if self._keeps_logits:
            options["logits_to_keep"] = rows
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=self._base.device)
            try:
                with acting(bias):
                    out = self._model(input_ids=ids, **options)
            except BaseException:
                self.forget()
                raise
            state.ids.extend(tokens)
            state.felt = felt
            made: torch.Tensor = out.logits[0, -rows:].float()
            return made

    def _forward_lean(self, forward: LeanForward, tokens: Sequence[int], rows: int, bias: Bias | None) -> torch.Tensor:
        state = self._state
        with torch.inference_mode():
            try:
                logits, self._hidden = forward(tokens, state.cache, len(state.ids), rows, bias)
            except BaseException:
                self.forget()
                raise
        state.ids.extend(tokens)
        return logits

    def _truncate(self, length: int) -> bool:
        """Keep the first `length` tokens; False, with nothing done, where the cache cannot."""
        state = self._state
        if length >= len(state.ids):
            return True
        with torch.inference_mode():
            if not truncate(state.cache, length):
                return False
        del state.ids[length:], state.felt[length:]
        return True

    def _fresh(self) -> _State:
        return _State(new_cache(self._model.config))

    def _look(self, _head: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._hidden = args[0].reshape(-1, args[0].shape[-1])[-1]


def _common(a: Sequence[float], b: Sequence[float]) -> int:
    """How many first tokens two sequences share."""
    for index, (one, other) in enumerate(zip(a, b)):
        if one != other:
            return index
    return min(len(a), len(b))


def _chunk(info: BaseInfo) -> int:
    """Tokens prefilled between two looks at `cancel`: about a tenth of a second, and the same every time."""
    if info.device != "cpu":
        return 1024
    return 256 if info.parameters < 50e6 else 128 if info.parameters < 500e6 else 64

"""The base model: where it is, what it is, and loading it so that nothing can ever train it.

safetensors only, never pickle; no code from a model folder is run; no parameter has `requires_grad`;
weights that do not fit the architecture are refused rather than made up. Where it computes, and in what, says `placed`.
On a CPU all processes map one copy of the weights (`weights`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from npllm.config import default_home
from npllm.models import network
from npllm.models.codec import TextCodec
from npllm.models.fim import choose
from npllm.models.fingerprints import fingerprint, stamp
from npllm.models.folder import check_weights, context_tokens, extent, quiet, read_config, read_tokenizer
from npllm.models.locate import resolve
from npllm.types import ModelError

if TYPE_CHECKING:
    from npllm.models.attention import Neuromodulation
    from npllm.models.engine import AdapterChoice

__all__ = ["Base", "BaseInfo", "device_of", "fingerprint", "placed", "resolve"]

SMALL = 100_000_000  # parameters; fewer are a small base: answers from a CPU, adapters on the output layer alone


@dataclass(frozen=True, slots=True)
class BaseInfo:
    """What a loaded base is."""

    name: str  # as it was asked for
    folder: Path
    fingerprint: str  # hex sha256, see `fingerprint`
    parameters: int
    context_tokens: int
    format_name: str  # the fill-in-the-middle format
    dtype: str
    device: str


class AdapterSwitch(Protocol):
    """Makes a choice of adapters act on the model; `AdapterSet` is one."""

    def apply(self, choice: AdapterChoice) -> None: ...

    def before_output(self, choice: AdapterChoice) -> AdapterChoice: ...


class Base:
    """A loaded base: model in eval mode without `requires_grad`, tokenizer, info. Make it with `load`."""

    def __init__(self, model: Any, tokenizer: Any, info: BaseInfo, device: torch.device) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.info = info
        self.device = device
        self.adapters: AdapterSwitch | None = None
        self.neuromodulation: Neuromodulation | None = None
        self.generation = 0  # rises whenever adapters come, go or change; for who keeps what they computed
        # Held by identity: adapters are injected around these tensors, which stay the ones that were loaded.
        self._parameters: tuple[tuple[str, torch.Tensor], ...] = tuple(
            (name, tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())
        )

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        device: str = "auto",
        threads: int = 0,
        cache: Path | None = None,
        shared: bool = True,
        asleep: bool = False,
    ) -> Base:
        """Load a base.

        Args:
            spec: "starter", a folder, or a Hugging Face id (downloaded once).
            device: "auto", "cpu" or "cuda".
            threads: torch threads for the whole process; 0 leaves them as they are.
            cache: folder for what is derived from a base: the shared copy of its weights, fingerprints of large
                files. By default one in the data folder.
            shared: map the weights that all processes share, on a CPU; False gives it weights of its own.
            asleep: to learn beside it, not to serve; see `placed`.

        Raises:
            ModelError: it is not there or cannot be used; the message says why and what to do.
        """
        device_of(device)  # a wrong name is told before anything is fetched
        folder = resolve(spec)
        if threads > 0:
            torch.set_num_threads(threads)
        seen = stamp(folder)
        with quiet():
            config = read_config(folder)
            check_weights(folder)
            target, dtype = placed(device, extent(folder, config).parameters, asleep=asleep)
            tokenizer = read_tokenizer(folder)
            digest = fingerprint(folder, cache)
            if target.type == "cpu" and shared:
                model = network.share(folder, config, digest, cache or default_home() / "cache", seen)
            else:
                model = network.load(folder, config, dtype).to(target)
        model.eval()
        model.requires_grad_(False)
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise ModelError(
                f"{folder}: the tokenizer knows {len(tokenizer)} tokens, the model {rows}. "
                "They do not belong together: fetch the folder again."
            )
        TextCodec(tokenizer)  # refuses a tokenizer that prompts cannot be made with, here and not at the first request
        info = BaseInfo(
            name=spec,
            folder=folder,
            fingerprint=digest,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            context_tokens=context_tokens(config),
            format_name=choose(tokenizer).name,
            dtype=str(dtype).removeprefix("torch."),
            device=target.type,
        )
        return cls(model, tokenizer, info, target)

    def activate(self, choice: AdapterChoice) -> None:
        """Make these adapters act from now on.

        Raises:
            ModelError: one of them is not loaded.
        """
        if self.adapters is not None:
            self.adapters.apply(choice)
        elif choice.strengths:
            raise ModelError(f"Adapter {choice.versions[0]} is not loaded.")

    def before_output(self, choice: AdapterChoice) -> AdapterChoice:
        """The part of a choice that acts before the output layer, and so changes keys and values."""
        return choice if self.adapters is None else self.adapters.before_output(choice)

    def digest(self) -> str:
        """Hex sha256 over every parameter and buffer of the base as they are in memory now."""
        total = hashlib.sha256()
        for name, tensor in self._parameters:
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


def placed(device: str, parameters: int, *, asleep: bool = False) -> tuple[torch.device, torch.dtype]:
    """Where a base of so many parameters computes, and in what.

    At "auto" on the GPU, if there is one; but a small base answers from a CPU. Writing token by token it has so little
    to compute that the calls to a GPU take longer than the computing: the starter wrote a line in 534 ms on an H200 and
    in 114 ms on one core beside it. Asleep, where most of the work is whole batches, it is on the GPU, too. In bfloat16
    on a GPU, in float32 where it is small or on a CPU.

    Args:
        device: the setting "auto", "cpu" or "cuda".
        asleep: to learn beside it, not to serve.

    Raises:
        ModelError: no such device.
    """
    small = parameters < SMALL
    target = device_of("cpu" if device == "auto" and small and not asleep else device)
    return target, torch.float32 if small or target.type == "cpu" else torch.bfloat16


def device_of(name: str) -> torch.device:
    """What a device's name stands for: "auto" is the GPU if there is one.

    Raises:
        ModelError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError('base.device is "cuda", but torch sees no GPU. Set it to "auto" or "cpu".')
    if name not in ("cpu", "cuda"):
        raise ModelError(f'base.device must be "auto", "cpu" or "cuda", not {name!r}.')
    return torch.device(name)

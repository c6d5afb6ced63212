"""What a base is and needs, told from its folder before it is loaded; and whether it works, once it is.

Reads configuration, tokenizer and the headers of the weights. Knows no settings file and no database.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from npllm.config import Config
from npllm.models.base import Base, placed
from npllm.models.codec import TextCodec
from npllm.models.fim import choose
from npllm.models.fingerprints import fingerprint, known_fingerprint
from npllm.models.folder import (
    architecture,
    check_weights,
    context_tokens,
    extent,
    quiet,
    read_config,
    read_tokenizer,
)
from npllm.types import ModelError

_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}  # of the largest logit


@dataclass(frozen=True, slots=True)
class Profile:
    """A base that could be served.

    Attributes:
        memory_bytes: of its weights as they are served.
        learns_on: the device that sleeps use.
        fills: whether its prompts have what stands behind the cursor.
        fingerprint: None where it was not asked for.
    """

    folder: Path
    architecture: str
    parameters: int
    disk_bytes: int
    memory_bytes: int
    dtype: str
    device: str
    learns_on: str
    context_tokens: int
    format_name: str
    fills: bool
    fingerprint: str | None


def check_form(folder: Path) -> None:
    """Look at configuration and tokenizer, which is all that is there before the weights are fetched.

    Raises:
        ModelError: no causal language model that transformers knows, or no tokenizer that prompts can be made with.
    """
    with quiet():
        read_config(folder)
        TextCodec(read_tokenizer(folder))


def profile(folder: Path, *, device: str, cache: Path, hashed: bool) -> Profile:
    """What a folder holds.

    Args:
        device: the setting "auto", "cpu" or "cuda".
        cache: folder of the book of fingerprints.
        hashed: find the fingerprint, even if all weights must be read for it.

    Raises:
        ModelError: it cannot be served; with cause and mend.
    """
    with quiet():
        config = read_config(folder)
        tokenizer = read_tokenizer(folder)
    TextCodec(tokenizer)
    check_weights(folder)
    size = extent(folder, config)
    target, dtype = placed(device, size.parameters)
    format = choose(tokenizer)
    return Profile(
        folder=folder,
        architecture=architecture(folder),
        parameters=size.parameters,
        disk_bytes=size.disk_bytes,
        memory_bytes=size.parameters * dtype.itemsize,
        dtype=str(dtype).removeprefix("torch."),
        device=target.type,
        learns_on=placed(device, size.parameters, asleep=True)[0].type,
        context_tokens=context_tokens(config),
        format_name=format.name,
        fills=format.fills,
        fingerprint=fingerprint(folder, cache) if hashed else known_fingerprint(folder, cache),
    )


def check_room(name: str, parameters: int, device: str) -> str:
    """Whether the weights fit into memory: "" or what to think of.

    Args:
        device: the setting "auto", "cpu" or "cuda".

    Raises:
        ModelError: this machine never has so much, or no such device.
    """
    target, dtype = placed(device, parameters)
    memory_bytes = parameters * dtype.itemsize
    if target.type == "cpu":
        memory = psutil.virtual_memory()
        free, total, where = memory.available, memory.total, "this machine"
    else:
        free, total = torch.cuda.mem_get_info()
        where = "the GPU"
    need = f"{name} needs {gigabytes(memory_bytes)} for its weights in {str(dtype).removeprefix('torch.')}"
    if memory_bytes > total:
        raise ModelError(f"{need}, and {where} has {gigabytes(total)}. Choose a smaller base.")
    if memory_bytes > free:
        return f"{need}, and {where} has {gigabytes(free)} free now: close something, or choose a smaller base."
    return ""


def try_out(base: Base, settings: Config) -> str:
    """Run a loaded base on a few tokens, and look for layers to learn in: "" or what it cannot.

    Raises:
        ModelError: it gives no numbers, or what stands later changes what it says of what stood before.
    """
    text = "def area(width, height):\n    return width * height\n"
    ids = torch.tensor([base.tokenizer(text)["input_ids"][:12]], device=base.device)
    with torch.inference_mode():
        whole = base.model(input_ids=ids).logits[0, :-1].float()
        begun = base.model(input_ids=ids[:, :-1]).logits[0].float()
    if not bool(torch.isfinite(whole).all()):
        raise ModelError(f"{base.info.name} computes no numbers: its weights are damaged. Fetch the model again.")
    allowed = _CLOSE[getattr(torch, base.info.dtype)] * float(whole.abs().max())
    if float((whole - begun).abs().max()) > allowed:
        raise ModelError(
            f"{base.info.name} looks at what stands later, so it is not a causal language model. Choose another base."
        )
    from npllm.sleep import lora, recipe

    layers = recipe.recipe_of(settings, base.info.parameters).shape.layers
    try:
        lora.targets(base.model, layers)
    except ModelError:
        return "It has no linear layers that an adapter could be put on: it can be served, but nothing is learned."
    return ""


def gigabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

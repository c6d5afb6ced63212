"""The network of a model folder: read into memory, or put together over weights that all processes share.

Both give the same bits; the second is used only where that was seen when the shared copy was written. Parameters that
are computed and not stored (rotary angles, tied heads) are transformers' business either way.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from npllm.models.causes import mend
from npllm.models.fingerprints import file_hash, stamp
from npllm.models.folder import check_weights, first_line
from npllm.models.weights import Key, SharedWeights
from npllm.types import ModelError

log = logging.getLogger(__name__)

_LAYOUT = 1  # of the shared copies; a change of it makes them anew


def load(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    """The network of a folder with weights of its own in memory.

    Raises:
        ModelError: the weights are damaged, or not those of this architecture.
    """
    check_weights(folder)
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(
            f"The weights in {folder} cannot be loaded: {first_line(error)}. {mend(error, 'Fetch the model again.')}"
        ) from error
    wrong = [*report["missing_keys"], *(item[0] for item in report["mismatched_keys"])]
    if wrong:
        raise ModelError(
            f"The weights in {folder} are incomplete: {len(wrong)} do not fit, e.g. {wrong[0]}. Fetch the model again."
        )
    return model


def share(folder: Path, config: Any, fingerprint: str, cache: Path, seen: tuple[str, ...] | None) -> Any:
    """The network in fp32 over the shared copy of its weights, which is written if it is not there yet.

    Where it cannot be shared (no room, read-only, an architecture that transformers does not put together from given
    tensors), the network has weights of its own.

    Args:
        fingerprint: of the folder's weights.
        cache: where the copies are kept, see `weights`.
        seen: the folder's `stamp` before configuration and fingerprint were read; if it is another once the weights
            are, they need not be those of the fingerprint, and no copy is written.

    Raises:
        ModelError: as `load`.
    """
    if not _shareable(config):
        return load(folder, config, torch.float32)
    copies = SharedWeights(cache)
    key = Key(fingerprint, _rest(folder))
    file = copies.find(key)
    if file is not None:
        found = _over(copies, file, folder, config)
        if found is not None:
            copies.prune(file)
            return found
        if file.exists():  # nothing is wrong with it; memory or open files ran out
            return load(folder, config, torch.float32)
    own = load(folder, copy.deepcopy(config), torch.float32)
    if seen is None or stamp(folder) != seen:
        log.warning("%s was changed while it was read; no shared copy is written", folder)
        return own
    tensors = _stored(own)
    if not _fits(folder, config, tensors):
        return own
    file = copies.write(key, tensors)
    if file is None:
        return own
    found = _over(copies, file, folder, config)
    if found is not None and _same(own, found):
        copies.prune(file)
        return found
    log.warning("%s is not what was written; the base is served without it", file)
    copies.discard(file)
    return own


def _over(copies: SharedWeights, file: Path, folder: Path, config: Any) -> Any | None:
    """The network over a copy; None where that cannot be, and the copy is gone if it is the reason."""
    tensors = copies.map(file)
    if tensors is None:
        return None
    try:
        return _assembled(folder, config, tensors)
    except _NotThese as error:
        log.warning("%s is whole and yet not what it should be: %s", file, error)
        copies.discard(file)
    except Exception as error:  # noqa: BLE001 - the base is served with weights of its own
        log.warning("%s cannot be used now: %s", file, first_line(error))
    return None


def _fits(folder: Path, config: Any, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether transformers puts the network together over given tensors."""
    try:
        _assembled(folder, config, tensors)
    except Exception as error:  # noqa: BLE001 - the base is served with weights of its own
        log.info("%s cannot be put together over given weights: %s", folder, first_line(error))
        return False
    return True


class _NotThese(Exception):
    """The tensors are not those of the network, or would be copied."""


def _assembled(folder: Path, config: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """A network over given tensors, none of them copied.

    Raises:
        _NotThese: the tensors are the wrong ones.
        Exception: whatever transformers raises.
    """
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    made, report = kind.from_pretrained(
        None,
        config=copy.deepcopy(config),
        dtype=torch.float32,
        state_dict=dict(tensors),
        local_files_only=True,
        output_loading_info=True,
    )
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        raise _NotThese(str(report))
    places = {tensor.data_ptr() for tensor in tensors.values()}
    if any(parameter.data_ptr() not in places for parameter in made.parameters()):
        raise _NotThese("transformers copies them")
    made.name_or_path = made.config.name_or_path = str(folder)
    return made


def _shareable(config: Any) -> bool:
    """Whether the class to be loaded is told by the configuration alone, and its weights are plain numbers."""
    return (
        isinstance(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), type)
        and config.get_text_config() is config
        and getattr(config, "quantization_config", None) is None
    )


def _rest(folder: Path) -> str:
    """What tensors and their names depend on beside the weights."""
    parts = [_LAYOUT, transformers.__version__, file_hash(folder / "config.json")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stored(network: Any) -> dict[str, torch.Tensor]:
    """Every tensor that is not computed, once: a tied one under its first name."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    state = network.state_dict()
    for name, _ in (*network.named_parameters(), *network.named_buffers()):
        tensor = state.get(name)
        if tensor is not None and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two networks have the same tensors, bit for bit."""
    if type(one) is not type(other):
        return False
    ours = dict((*one.named_parameters(), *one.named_buffers()))
    theirs = dict((*other.named_parameters(), *other.named_buffers()))
    return ours.keys() == theirs.keys() and all(_same_bits(ours[name], theirs[name]) for name in ours)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(*(t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))

"""A model folder before it is loaded: its configuration, its tokenizer, the headers of its weights.

Refuses, in one sentence each, what npllm cannot or will not serve. No weight is read here, no code from the folder
is run, and pickles are never opened.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from npllm.models import hub
from npllm.models.causes import mend, refusal
from npllm.models.locate import weight_files
from npllm.types import ModelError

_NO_CONTEXT = 2048  # tokens, for a base that does not say how many it takes
_MOST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a folder's weights are."""

    parameters: int  # a matrix that serves as embedding and head counts once
    disk_bytes: int


def architecture(folder: Path) -> str:
    """The class that `config.json` asks for, e.g. "LlamaForCausalLM".

    Raises:
        ModelError: it cannot be read, or is not one of a causal language model that transformers knows.
    """
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json, so it is no Hugging Face model folder.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}). {mend(error, 'Fetch the model again.')}") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{file} is not a model's configuration. Fetch the model again.")
    kind = raw.get("model_type")
    architectures = raw.get("architectures") or []
    if not isinstance(kind, str | None) or not isinstance(architectures, list):
        raise ModelError(f"{file} is not a model's configuration. Fetch the model again.")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if raw.get("auto_map"):
            raise ModelError(f"{folder} needs code of its own ({kind}), which npllm never runs. Choose another base.")
        raise ModelError(f"{folder} is a {kind!r} model, not a causal language model. Choose another base.")
    names = [str(name) for name in architectures]
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()).intersection(names)
    if names and not known:
        raise ModelError(f"{folder} holds {', '.join(names)}, not a causal language model. Choose another base.")
    return names[0] if names else str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])


def read_config(folder: Path) -> Any:
    """The configuration, as transformers wants it.

    Raises:
        ModelError: as `architecture`, or it makes no sense.
    """
    architecture(folder)
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"{folder / 'config.json'} cannot be used: {first_line(error)}. {mend(error, 'Fetch the model again.')}"
        ) from error


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    if not any((folder / name).is_file() for name in hub.TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json). Fetch the model again.")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"The tokenizer in {folder} cannot be read: {first_line(error)}. {mend(error, 'Fetch the model again.')}"
        ) from error


def check_weights(folder: Path) -> None:
    """Look at the headers of the weight files: whether each is safetensors and as long as it says.

    Raises:
        ModelError: one is not.
    """
    for file in weight_files(folder):
        try:
            with safetensors.safe_open(file, framework="pt"):
                pass
        except (OSError, safetensors.SafetensorError) as error:
            raise _unreadable(file, error) from error


def extent(folder: Path, config: Any) -> Extent:
    """Parameters and bytes on disk, from the headers that `check_weights` has passed.

    Raises:
        ModelError: a header cannot be read.
    """
    parameters = disk = 0
    tied = bool(getattr(config, "tie_word_embeddings", False))
    for file in weight_files(folder):
        disk += file.stat().st_size
        for name, shape in _shapes(file):
            if not (tied and name == "lm_head.weight"):
                parameters += math.prod(shape)
    return Extent(parameters, disk)


def context_tokens(config: Any) -> int:
    """How many tokens the model takes, prompt and answer together."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return _NO_CONTEXT


def first_line(error: BaseException) -> str:
    """What an exception says, without its long story."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice; what is wrong comes as an exception."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)


def _shapes(file: Path) -> list[tuple[str, list[int]]]:
    """Names and shapes in a safetensors file: eight bytes of length, then JSON (the format's own description)."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > _MOST_HEADER:
                raise ValueError("header too large")
            header = json.loads(stream.read(size))
        return [(name, item["shape"]) for name, item in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: BaseException) -> ModelError:
    what = "is damaged" if refusal(error) is None else "cannot be read"
    return ModelError(f"{file} {what} ({first_line(error)}). {mend(error, 'Fetch the model again.')}")

"""The base model: where it is, what it is, and loading it so that nothing can ever train it.

safetensors only, never pickle; no code from a model folder is run; no parameter has `requires_grad`;
weights that do not fit the architecture are refused rather than made up. On a CPU the weights are fp32, on
a GPU bf16.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import safetensors
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from npllm.config import default_home
from npllm.models.codec import TextCodec
from npllm.models.fim import choose
from npllm.models.locate import resolve, weight_files
from npllm.types import ModelError

if TYPE_CHECKING:
    from npllm.models.engine import AdapterChoice

__all__ = ["Base", "BaseInfo", "fingerprint", "resolve"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_CACHED_ABOVE = 1 << 28  # bytes; hashing less than this takes a moment only
_NO_CONTEXT = 2048  # tokens, for a base that does not say how many it takes


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


class Base:
    """A loaded base: model in eval mode without `requires_grad`, tokenizer, info. Make it with `load`."""

    def __init__(self, model: Any, tokenizer: Any, info: BaseInfo, device: torch.device) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.info = info
        self.device = device
        self.adapters: AdapterSwitch | None = None
        self.generation = 0  # rises whenever adapters come, go or change; for who keeps what they computed
        # Held by identity: adapters are injected around these tensors, which stay the ones that were loaded.
        self._parameters: tuple[tuple[str, torch.Tensor], ...] = tuple(
            (name, tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())
        )

    @classmethod
    def load(cls, spec: str, *, device: str = "auto", threads: int = 0, cache: Path | None = None) -> Base:
        """Load a base.

        Args:
            spec: "starter", a folder, or a Hugging Face id (downloaded once).
            device: "auto", "cpu" or "cuda".
            threads: torch threads for the whole process; 0 leaves them as they are.
            cache: folder for fingerprints of large files; by default one in the data folder.

        Raises:
            ModelError: it is not there or cannot be used; the message says why and what to do.
        """
        folder = resolve(spec)
        target = _device(device)
        if threads > 0:
            torch.set_num_threads(threads)
        dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
        with _quiet():
            config = _config(folder)
            tokenizer = _tokenizer(folder)
            model = _model(folder, config, dtype).to(target)
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
            fingerprint=fingerprint(folder, cache),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            context_tokens=_context(config),
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

    def digest(self) -> str:
        """Hex sha256 over every parameter and buffer of the base as they are in memory now."""
        total = hashlib.sha256()
        for name, tensor in self._parameters:
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()


def fingerprint(folder: Path, cache: Path | None = None) -> str:
    """Hex sha256 over the contents of a folder's weight files (in the order of their names).

    Hashes of files above 256 MB are remembered by path, size and time of change in `cache`/fingerprints.json.

    Raises:
        ModelError: no weights.
    """
    total = hashlib.sha256()
    for file in weight_files(folder):
        total.update(bytes.fromhex(_hash(file, cache)))
    return total.hexdigest()


def _hash(file: Path, cache: Path | None) -> str:
    stat = file.stat()
    if stat.st_size < _CACHED_ABOVE:
        return _hash_content(file)
    book = (cache or default_home() / "cache") / "fingerprints.json"
    key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    try:
        known = json.loads(book.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}  # not there yet, or torn: it is only a saving of time
    found = known.get(key) if isinstance(known, dict) else None
    if isinstance(found, str):
        return found
    found = _hash_content(file)
    book.parent.mkdir(parents=True, exist_ok=True)
    temporary = book.with_suffix(f".{found[:12]}.tmp")
    temporary.write_text(json.dumps({**(known if isinstance(known, dict) else {}), key: found}), encoding="utf-8")
    temporary.replace(book)
    return found


def _hash_content(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError('base.device is "cuda", but torch sees no GPU. Set it to "auto" or "cpu".')
    if name not in ("cpu", "cuda"):
        raise ModelError(f'base.device must be "auto", "cpu" or "cuda", not {name!r}.')
    return torch.device(name)


def _config(folder: Path) -> Any:
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json, so it is no Hugging Face model folder.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}). Fetch the model again.") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{file} is not a model's configuration. Fetch the model again.")
    kind = raw.get("model_type")
    architectures = raw.get("architectures") or []
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if raw.get("auto_map"):
            raise ModelError(f"{folder} needs code of its own ({kind}), which npllm never runs. Choose another base.")
        raise ModelError(f"{folder} is a {kind!r} model, not a causal language model. Choose another base.")
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if architectures and not known.intersection(architectures):
        raise ModelError(
            f"{folder} holds {', '.join(map(str, architectures))}, not a causal language model. Choose another base."
        )
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{file} cannot be used: {_first_line(error)}. Fetch the model again.") from error


def _tokenizer(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json). Fetch the model again.")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"The tokenizer in {folder} cannot be read: {_first_line(error)}. Fetch the model again."
        ) from error


def _model(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    for file in weight_files(folder):
        try:
            with safetensors.safe_open(file, framework="pt"):
                pass
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{file} is damaged ({_first_line(error)}). Fetch the model again.") from error
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
            f"The weights in {folder} cannot be loaded: {_first_line(error)}. Fetch the model again."
        ) from error
    wrong = [*report["missing_keys"], *(item[0] for item in report["mismatched_keys"])]
    if wrong:
        raise ModelError(
            f"The weights in {folder} are incomplete: {len(wrong)} do not fit, e.g. {wrong[0]}. Fetch the model again."
        )
    return model


def _context(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return _NO_CONTEXT


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
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

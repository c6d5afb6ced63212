"""The Hugging Face hub: what of a model lies on this machine, and fetching the rest.

Fetched are configuration and tokenizer first, then the weights that these name, as safetensors: no pickle, no code,
nothing else that lies beside them. Every question to the network has its time; what was fetched when one fails is kept
and not fetched again.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import logging as client_log
from tqdm import tqdm  # type: ignore[import-untyped]

from npllm.models.causes import NO_ROOM, NOT_ALLOWED, refusal
from npllm.types import ModelError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
ROOM = 1 << 30  # bytes that are left free on the disk
_TIMEOUT_S = 15.0
_WIDEST = 4  # bytes, of a weight
_WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "merges.txt",
    "*.spm",
    *TOKENIZERS,
    INDEX,
)

Meter = Callable[[int, int], None]  # bytes there, bytes in all
# Raises ModelError for a folder (still without weights) that is not wanted; the number is that of its parameters, or a
# lower bound.
Look = Callable[[Path, int], object]


def local(repo: str) -> Path | None:
    """The folder of what was fetched before, perhaps not whole; None if nothing was.

    Raises:
        ModelError: it is no id.
    """
    try:
        found = huggingface_hub.try_to_load_from_cache(repo, "config.json")
    except errors.HFValidationError as error:
        raise ModelError(f"{repo!r} is no Hugging Face id: {error}") from error
    return Path(found).parent if isinstance(found, str) else None


def fetch(repo: str, *, meter: Meter | None = None, look: Look | None = None) -> Path:
    """Fetch a model, or what is missing of it; its folder.

    Args:
        meter: told how far it is.
        look: called when configuration and tokenizer are there and before the weights are fetched.

    Raises:
        ModelError: the hub cannot be reached, has no such model, or has it without safetensors; or what `look` raised.
    """
    with _quiet():
        with _explained(repo, f"{repo} is not on this machine and the hub cannot be reached"):
            sizes, parameters = _listed(repo)
        with _explained(repo, f"Fetching {repo} broke off"):
            return _fetch(repo, sizes, parameters, meter, look)


def _fetch(repo: str, sizes: Mapping[str, int], parameters: int, meter: Meter | None, look: Look | None) -> Path:
    folder = Path()
    for name in sorted(sizes):
        if any(fnmatch.fnmatchcase(name, wanted) for wanted in _WANTED):
            folder = _get(repo, name)
    names = sorted(_weights(repo, folder, sizes))
    total = sum(sizes[name] for name in names)
    if look is not None:
        look(folder, parameters or total // _WIDEST)
    _check_room(repo, sum(sizes[name] for name in names if not (folder / name).exists()))
    there = 0
    for name in names:
        folder = _get(repo, name, _told(meter, there, total))
        there += sizes[name]
        if meter is not None:
            meter(there, total)
    return folder


@contextmanager
def _explained(repo: str, otherwise: str) -> Iterator[None]:
    """What the hub's client raises, as one sentence with a mend."""
    try:
        yield
    except ModelError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repo} is gated: accept its licence on its page on the hub, then run `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {repo!r} on the hub (or it is private: `hf auth login`). Mend the id."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(
            f'{otherwise}, because HF_HUB_OFFLINE is set. Unset it, or choose a folder or "starter".'
        ) from error
    except Exception as error:
        number = refusal(error)
        if number in NO_ROOM:
            raise ModelError(
                f"{otherwise}: the disk of {constants.HF_HUB_CACHE} is full. Make room (what has been fetched is "
                "kept), or set HF_HOME to a folder on another disk."
            ) from error
        if number in NOT_ALLOWED and getattr(error, "filename", None) is not None:  # a file, and no connection
            raise ModelError(
                f"{otherwise}: {_short(error)}. Mend the permissions there, or set HF_HOME to a folder of your own."
            ) from error
        raise ModelError(
            f"{otherwise} ({_short(error)}). Try again when the network is there (what has been fetched is kept), or "
            'choose a folder or "starter".'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the hub's client says while it tries again; what is wrong in the end comes as an exception."""
    level = client_log.get_verbosity()
    client_log.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        client_log.set_verbosity(level)


def _listed(repo: str) -> tuple[Mapping[str, int], int]:
    """The repository's files (those in folders within it aside) and their sizes in bytes; and how many parameters the
    hub counts, 0 where it does not. One question with no second try: the answer comes at once.
    """
    info = huggingface_hub.HfApi().model_info(repo, timeout=_TIMEOUT_S, files_metadata=True)
    counted = info.safetensors.total if info.safetensors is not None else 0
    return {one.rfilename: one.size or 0 for one in info.siblings or [] if "/" not in one.rfilename}, counted


def _weights(repo: str, folder: Path, listed: Collection[str]) -> set[str]:
    if INDEX in listed:
        try:
            names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(
                f"{repo}: {INDEX} cannot be read ({type(error).__name__}). Choose another base."
            ) from error
        missing = sorted(names - set(listed))
        if missing:
            raise ModelError(f"{repo} lacks {missing[0]}, a part of its weights. Choose another base.")
        return names
    if WEIGHTS in listed:
        return {WEIGHTS}
    kind = "pickled weights only" if any(name.endswith(PICKLES) for name in listed) else "no weights"
    raise ModelError(f"{repo} has {kind}; npllm reads {WEIGHTS} and nothing else. Choose another base.")


def _check_room(repo: str, size: int) -> None:
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size and size + ROOM > free:
        raise ModelError(
            f"{repo} needs {size / 1e9:.1f} GB on the disk, and {place} has {free / 1e9:.1f} GB free. Make room, or "
            "set HF_HOME to a folder on another disk."
        )


def _get(repo: str, name: str, bar: type[Any] | None = None) -> Path:
    file = huggingface_hub.hf_hub_download(repo, name, etag_timeout=_TIMEOUT_S, tqdm_class=bar or _told(None, 0, 0))
    return Path(file).parent


def _told(meter: Meter | None, before: int, total: int) -> type[Any]:
    """A bar that shows nothing itself and tells the meter, for one file.

    The hub's client may make two for a file, of what came over the network and of what is written; the further counts.
    """
    most = 0

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, initial: float = 0, **options: Any) -> None:
            super().__init__(*args, initial=initial, **{**options, "disable": True})
            self._there = initial

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal most
            self._there += n or 0
            most = max(most, int(self._there))
            if meter is not None:
                meter(min(before + most, total), total)
            return None

    return Silent


def _short(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__

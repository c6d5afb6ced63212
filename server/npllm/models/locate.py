"""Finding a base: the shipped starter, a folder, or a Hugging Face id, of which only safetensors are ever
fetched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

import npllm
from npllm.types import ModelError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INDEX = "model.safetensors.index.json"
_HUB_TIMEOUT_S = 15.0
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_WANTED = ["*.safetensors", "*.json", "tokenizer.model", "*.spm", "merges.txt", "vocab.txt"]


def resolve(spec: str) -> Path:
    """The folder of a base.

    Raises:
        ModelError: nothing is there, it has no safetensors weights, or it cannot be downloaded.
    """
    if spec == "starter":
        folder = Path(npllm.__file__).parent / "starter" / "model"
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"The starter model is not in {folder}. Build it with `npllm starter build`, "
                "or set base.model to a folder or a Hugging Face id."
            )
    else:
        folder = Path(spec).expanduser()
        if not folder.exists():
            looks_like_path = spec.startswith((".", "~")) or folder.is_absolute()
            if looks_like_path or not _HUB_ID.fullmatch(spec):
                raise ModelError(
                    f"There is no model folder {folder}. Set base.model to a folder that has config.json and "
                    'safetensors weights, to a Hugging Face id, or to "starter".'
                )
            folder = _download(spec)
        elif not folder.is_dir():
            raise ModelError(f"{folder} is a file; base.model wants the folder that holds config.json.")
    weight_files(folder)
    return folder.resolve()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name.

    Raises:
        ModelError: there are none (or only pickled ones), or one that the index names is missing.
    """
    index = folder / _INDEX
    try:
        if index.is_file():
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            files = [folder / Path(name).name for name in sorted(names)]
        elif (folder / "model.safetensors").is_file():
            files = [folder / "model.safetensors"]
        else:
            files = []
        others = [file.name for file in folder.iterdir() if file.suffix in _PICKLES]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{folder} cannot be read ({type(error).__name__}: {error}). Fetch the model again."
        ) from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {missing[0]}, a part of its weights. Fetch the model again.")
    if not files and others:
        raise ModelError(
            f"{folder} has its weights as pickle only ({sorted(others)[0]}), which can run code when read; "
            "npllm does not. Choose a base with safetensors, or convert it with transformers' save_pretrained."
        )
    if not files:
        raise ModelError(f"{folder} has no weights (model.safetensors). Choose another base, or fetch it again.")
    return files


def _download(repo: str) -> Path:
    """The local snapshot of a hub repository, fetched if it is not there yet."""
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, allow_patterns=_WANTED, local_files_only=True))
        weight_files(folder)
        return folder
    except (errors.LocalEntryNotFoundError, ModelError):
        pass  # not there, or not whole: ask the hub
    except errors.HFValidationError as error:
        raise ModelError(f"{repo!r} is no Hugging Face id: {error}") from error
    try:
        # One question with no second try: without a network the answer should come at once.
        siblings = huggingface_hub.HfApi().model_info(repo, timeout=_HUB_TIMEOUT_S).siblings or []
        names = [sibling.rfilename for sibling in siblings]
        if not any(name.endswith(".safetensors") for name in names):
            kind = "pickled weights only" if any(name.endswith(_PICKLES) for name in names) else "no weights"
            raise ModelError(f"{repo} has {kind}; npllm reads safetensors and nothing else. Choose another base.")
        return Path(huggingface_hub.snapshot_download(repo, allow_patterns=_WANTED))
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repo} is gated: accept its licence on its page on the hub, then run `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {repo!r} on the hub (or it is private: `hf auth login`). Mend base.model."
        ) from error
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{repo} is not on this machine and the hub cannot be reached ({_short(error)}). Connect to "
            'the network once, or set base.model to a folder or to "starter".'
        ) from error


def _short(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if str(error).strip() else type(error).__name__
    )

"""Finding a base: the shipped starter, a folder, or a Hugging Face id."""

from __future__ import annotations

import json
import re
from pathlib import Path

import npllm
from npllm.models import hub
from npllm.models.causes import mend
from npllm.types import ModelError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_MEND = (
    'Set base.model to a folder that has config.json and safetensors weights, to a Hugging Face id, or to "starter".'
)


def resolve(spec: str, *, meter: hub.Meter | None = None, look: hub.Look | None = None) -> Path:
    """The folder of a base.

    Args:
        spec: "starter", a folder, or a Hugging Face id, which is fetched where it is not there.
        meter, look: see `hub.fetch`.

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
        folder = expanded(spec)
        try:
            there = folder.exists()
        except OSError as error:
            raise ModelError(f"{folder} cannot be looked at ({error.strerror}). {mend(error, _MEND)}") from error
        if not there:
            if not names_id(spec):
                raise ModelError(f"There is no model folder {folder}. {_MEND}")
            folder = fetched(spec) or hub.fetch(spec, meter=meter, look=look)
        elif not folder.is_dir():
            raise ModelError(f"{folder} is a file; base.model wants the folder that holds config.json.")
    weight_files(folder)
    return folder.resolve()


def names_id(spec: str) -> bool:
    """Whether what is no folder on this machine can be a Hugging Face id, and does not look like a path."""
    looks_like_path = spec.startswith((".", "~")) or Path(spec).is_absolute()
    return not looks_like_path and _HUB_ID.fullmatch(spec) is not None


def expanded(spec: str) -> Path:
    """The folder that is meant, with ~ written out where it can be."""
    try:
        return Path(spec).expanduser()
    except RuntimeError:  # ~somebody, who is not known here
        return Path(spec)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by name.

    Raises:
        ModelError: there are none (or only pickled ones), or one that the index names is missing.
    """
    index = folder / hub.INDEX
    try:
        if index.is_file():
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            files = [folder / Path(name).name for name in sorted(names)]
        elif (folder / hub.WEIGHTS).is_file():
            files = [folder / hub.WEIGHTS]
        else:
            files = []
        others = [file.name for file in folder.iterdir() if file.suffix in hub.PICKLES]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{folder} cannot be read ({type(error).__name__}: {error}). {mend(error, 'Fetch the model again.')}"
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


def fetched(repo: str) -> Path | None:
    """The folder of a Hugging Face id that is wholly on this machine, or None. Asks no network.

    Raises:
        ModelError: it is no id.
    """
    folder = hub.local(repo)
    try:
        if folder is None or not any((folder / name).is_file() for name in hub.TOKENIZERS):
            return None
        weight_files(folder)
    except ModelError:
        return None
    return folder

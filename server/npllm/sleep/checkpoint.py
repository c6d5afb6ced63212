"""A training's state in one file, replaced atomically: at any moment the old one or the new one is there, whole.

safetensors with the tensors (adapter, best adapter so far, the optimizer's moments, the generator's state) and,
in its header, the numbers as JSON. Written to a temporary name, fsynced, renamed, its folder fsynced. Knows nothing
of what the tensors mean.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from npllm.sleep.files import sync_folder

log = logging.getLogger(__name__)

_TEMPORARY = ".tmp"


@dataclass(slots=True)
class Position:
    """Where a training is. Steps are optimizer steps; losses are nats per answer token.

    Attributes:
        step: steps done; the next one is this one, counting from 0.
        total: steps in all, fixed when the training began.
        samples: how many of the samples are learned, the first ones; fixed then, too.
        piece: how many tokens are computed between two looks at whether the person is back; fixed then, too.
        first_inner, best_inner: validation loss before the first step, and the best so far (inf: none yet).
        best_step: after how many steps that was.
        judged: after how many steps it was validated last.
        worse: validations in a row that were no better.
        over: the training has ended, early or not.
        tokens, seconds: spent so far, over all sleeps.
    """

    step: int = 0
    total: int = 0
    samples: int = 0
    piece: int = 0
    first_inner: float = float("inf")
    best_inner: float = float("inf")
    best_step: int = 0
    judged: int = 0
    worse: int = 0
    over: bool = False
    tokens: int = 0
    seconds: float = 0.0


def write(file: Path, tensors: dict[str, torch.Tensor], position: Position, key: str) -> None:
    """Replace `file`.

    Args:
        key: says what training this is; `read` wants the same one.
    """
    write_tensors(file, tensors, {"position": json.dumps(asdict(position)), "key": key})


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Replace `file` by one with these tensors and this header."""
    temporary = file.with_name(file.name + _TEMPORARY)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, temporary, header)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def read(file: Path, key: str) -> tuple[dict[str, torch.Tensor], Position] | None:
    """What `write` wrote with the same key, or None."""
    try:
        with safe_open(file, framework="pt") as stream:
            header = stream.metadata() or {}
            if header.get("key") != key:
                return None
            position = Position(**json.loads(header["position"]))
            return {name: stream.get_tensor(name) for name in stream.keys()}, position  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        log.warning("the checkpoint %s is of no use, the training begins anew: %s", file, error)
        return None

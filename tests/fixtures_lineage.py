"""Adapter versions made without a sleep: real PEFT folders with manifests, and their rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import UUID

import torch

from npllm.config import Config
from npllm.memory.store import Store
from npllm.models.base import fingerprint
from npllm.models.manifest import WEIGHTS, Manifest, sha256_file, write_manifest
from npllm.sleep import lora
from npllm.sleep.leftover import LEFT
from npllm.types import AdapterVersion, VersionState, new_id
from tests.fixtures_sleep import PYTHON


@cache
def fingerprint_of(model: Path) -> str:
    return fingerprint(model)


def write_adapter(folder: Path, model: Path, *, rank: int = 4, seed: int = 0, size: float = 0.05) -> None:
    """A plain PEFT folder around a tiny base, whose B is not zero."""
    from transformers import AutoModelForCausalLM

    adapted = lora.attach(AutoModelForCausalLM.from_pretrained(model), lora.Shape(rank, 2 * rank, False), seed=seed)
    chance = torch.Generator().manual_seed(seed)
    for parameter in lora.trainable(adapted).values():
        parameter.data = size * torch.randn(parameter.shape, generator=chance)
    folder.mkdir(parents=True)
    lora.save(adapted, folder, str(model))


async def make_version(
    store: Store,
    config: Config,
    *,
    parent: AdapterVersion | None = None,
    learned: Sequence[UUID] = (),
    held_out: Sequence[UUID] = (),
    judged_again: Sequence[UUID] = (),
    untrained: Sequence[UUID] = (),
    project_files: Sequence[tuple[str, str]] = (),
    until: datetime | None = None,
    context: str = PYTHON,
    rank: int = 4,
    seed: int = 0,
    publish: bool = True,
) -> AdapterVersion:
    """A version of the base in the settings, by default in use."""
    model = Path(config.base.model)
    id, sleep = new_id(), new_id()
    folder = config.adapters_dir / str(id)
    write_adapter(folder, model, rank=rank, seed=seed)
    metrics = {"gain": 0.05, LEFT: float(len(untrained))} | ({"until": until.timestamp()} if until else {})
    data = {
        "learned": [str(one) for one in learned],
        "validated": [],
        "held_out": [str(one) for one in held_out],
        "judged_again": {str(new_id()): [str(one) for one in judged_again]},
        "untrained": [str(one) for one in untrained],
        "project_files": [list(pair) for pair in project_files],
    }
    made = AdapterVersion(
        id=id,
        context=context,
        base_fingerprint=fingerprint_of(model),
        parent=parent.id if parent else None,
        consolidation_id=sleep,
        folder=folder.relative_to(config.home).as_posix(),
        sha256=sha256_file(folder / WEIGHTS),
        state=VersionState.PUBLISHED,
        reason="A test made it.",
        metrics=metrics,
        created_at=datetime.now(UTC),
    )
    write_manifest(
        folder,
        Manifest(id, context, made.base_fingerprint, made.parent, sleep, made.sha256, made.created_at, data, metrics),
    )
    if publish:
        await store.publish(made)
    else:
        await store.insert_adapter_version(made)
    return made

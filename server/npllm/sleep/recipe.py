"""Everything but the samples that decides what a training makes, from the settings; and a key that tells two trainings
apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from npllm.config import Config
from npllm.models.base import SMALL
from npllm.sleep.lora import Layers, Shape
from npllm.sleep.objectives import Sample
from npllm.sleep.preferences import Preference


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained.

    Attributes:
        learning_rate: AdamW's peak rate for A; `b_ratio` times that for B.
        mu: weight of the prompt's own tokens, see `objectives`.
        batch_tokens: tokens in an optimizer step; `micro_tokens` in one forward and backward (padding counted), or
            fewer where the machine is slow.
        epochs: passes over the samples, at most.
        patience: validations in a row without a better one after which it ends.
        mas_lambda: weight of the penalty on moving what mattered, see `mas`; 0 = none.
        kl_weight: of the distillation on general code, see `distillation`; 0 = none.
        dpo_weight, kto_weight, beta: of the preference terms, see `preferences`; 0 = none.
    """

    shape: Shape = field(default_factory=lambda: Shape(16, 32, False))
    learning_rate: float = 2e-3
    b_ratio: float = 1.0
    mu: float = 1.0
    batch_tokens: int = 2048
    micro_tokens: int = 512
    epochs: int = 6
    warmup: float = 0.08
    floor: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int = 2
    seed: int = 0
    mas_lambda: float = 0.0
    kl_weight: float = 0.0
    dpo_weight: float = 0.0
    kto_weight: float = 0.0
    beta: float = 0.1


def key(
    samples: Sequence[Sample], inner: Sequence[Sample], preferences: Sequence[Preference], recipe: Recipe, held: bool
) -> str:
    """Says what training this is.

    Args: held: whether a penalty holds what mattered.
    """
    total = hashlib.sha256(json.dumps([asdict(recipe), held], sort_keys=True).encode())
    for part in (samples, inner):
        for sample in part:
            total.update(f"{sample.loss_start} {sample.weight} {sample.ids} {sorted(sample.unlearned)}".encode())
        total.update(b"|")
    for preference in preferences:
        total.update(repr(preference).encode())
    return total.hexdigest()


def recipe_of(config: Config, parameters: int) -> Recipe:
    """The settings as a recipe for a base of so many parameters."""
    sleep = config.sleep
    output = sleep.layers == "output" or (sleep.layers == "auto" and parameters < SMALL)
    layers: Layers = "output" if output else "all"
    rank = sleep.rank or (64 if output else 16)
    return Recipe(
        shape=Shape(rank, sleep.alpha or (rank if output else 2 * rank), False, layers),
        learning_rate=sleep.learning_rate,
        batch_tokens=sleep.batch_tokens,
        epochs=sleep.epochs,
        seed=sleep.seed,
        mas_lambda=sleep.mas_lambda,
        kl_weight=sleep.kl_weight,
        dpo_weight=sleep.dpo_weight,
        kto_weight=sleep.kto_weight,
        beta=sleep.preference_beta,
    )

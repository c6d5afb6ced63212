"""The recipes by name: shape of the model, phases of the training, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A Llama's dimensions. The embeddings are tied to the output."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    positions: int = 2048


@dataclass(frozen=True)
class Phase:
    """A stretch of the training at one row length. `until` is the fraction of the whole budget at which it ends, and
    `deal` the share of the corpus that is packed for it, `snippets` the share of its pieces behind related snippets."""

    length: int
    batch: int
    until: float
    deal: float
    snippets: float = 0.4


@dataclass(frozen=True)
class Optimisation:
    """Rates of the two optimizers, and the trapezoid they follow: warm up, hold, fall linearly to zero."""

    muon_rate: float = 0.02
    adam_rate: float = 0.006
    momentum: float = 0.95
    weight_decay: float = 0.02
    warmup_steps: int = 100
    decay_from: float = 0.72  # fraction of the budget
    clip: float = 1.0


@dataclass(frozen=True)
class Preset:
    """Everything that decides what a build makes, beside the corpus."""

    name: str
    shape: Shape
    phases: tuple[Phase, ...]
    optimisation: Optimisation
    minutes: float
    package_cap: int
    seed: int = 0


STARTER_CPU = Preset(
    name="starter-cpu",
    shape=Shape(vocabulary=8192, hidden=256, intermediate=640, layers=6, heads=4, kv_heads=2),
    phases=(
        Phase(length=256, batch=12, until=0.58, deal=0.42),
        Phase(length=512, batch=10, until=0.82, deal=0.33),
        Phase(length=1024, batch=6, until=1.0, deal=0.25, snippets=0.75),
    ),
    optimisation=Optimisation(),
    minutes=80.0,
    package_cap=450_000,
)

STARTER = Preset(
    name="starter",
    shape=Shape(vocabulary=16384, hidden=448, intermediate=1216, layers=8, heads=7, kv_heads=7),
    phases=(
        Phase(length=512, batch=128, until=0.5, deal=0.5),
        Phase(length=1024, batch=64, until=1.0, deal=0.5, snippets=0.6),
    ),
    optimisation=Optimisation(),
    minutes=25.0,
    package_cap=3_000_000,
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (STARTER_CPU, STARTER)}

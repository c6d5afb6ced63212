"""The recipes by name: shape of the model, phases of the training, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


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


Role = Literal["model", "cerebellum"]


@dataclass(frozen=True)
class Preset:
    """Everything that decides what a build makes, beside the lists of packages. The caps are bytes of one package.

    `most_tokens` bounds the packed rows of all phases together, so that they can travel; the training goes through
    them as often as its time allows. `data` names the preset whose corpus, tokenizer and packed rows are used, where
    they are not its own; the phases' lengths and shares are then that one's too. `role` is the folder inside the
    package in which the result ships.
    """

    name: str
    shape: Shape
    phases: tuple[Phase, ...]
    optimisation: Optimisation
    minutes: float
    package_cap: int
    npm_cap: int = 200_000
    most_tokens: int | None = None
    seed: int = 0
    data: str | None = None
    role: Role = "model"


STARTER_CPU = Preset(
    name="starter-cpu",
    shape=Shape(vocabulary=16384, hidden=192, intermediate=512, layers=6, heads=3, kv_heads=3),
    phases=(
        Phase(length=256, batch=12, until=0.58, deal=0.42),
        Phase(length=512, batch=10, until=0.82, deal=0.33),
        Phase(length=1024, batch=6, until=1.0, deal=0.25, snippets=0.75),
    ),
    optimisation=Optimisation(),
    minutes=100.0,
    package_cap=450_000,
)

STARTER = Preset(
    name="starter",
    shape=Shape(vocabulary=16384, hidden=256, intermediate=704, layers=8, heads=4, kv_heads=4),
    phases=(
        Phase(length=512, batch=128, until=0.5, deal=0.5),
        Phase(length=1024, batch=64, until=1.0, deal=0.5, snippets=0.6),
    ),
    optimisation=Optimisation(),
    minutes=9.0,
    package_cap=3_000_000,
    npm_cap=1_300_000,
    most_tokens=81_000_000,  # about 57 MB compressed
)

CEREBELLUM_CPU = replace(
    STARTER_CPU,
    name="cerebellum-cpu",
    shape=Shape(vocabulary=16384, hidden=48, intermediate=128, layers=2, heads=2, kv_heads=2),
    minutes=30.0,
    data=STARTER_CPU.name,
    role="cerebellum",
)

CEREBELLUM = replace(
    STARTER,
    name="cerebellum",
    shape=Shape(vocabulary=16384, hidden=64, intermediate=176, layers=4, heads=2, kv_heads=2),
    minutes=2.5,
    data=STARTER.name,
    role="cerebellum",
)

PRESETS: dict[str, Preset] = {p.name: p for p in (STARTER_CPU, STARTER, CEREBELLUM_CPU, CEREBELLUM)}

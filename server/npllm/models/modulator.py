"""The modulator: which adapters act at a place, and how strongly. Inference only; its policy is learned in sleep.

Reads a few features of the place and the base's last hidden state of the request before, which costs nothing. Where a
policy was learned, an action is drawn by it, and logged with the probability with which it was; else the rules decide.
A choice is kept while the person stays about there, so that the cache survives typing. Knows nothing of rewards.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import torch
from torch import Tensor

from npllm.config import ModulatorConfig
from npllm.contexts import KINDS, kind
from npllm.models.engine import AdapterChoice, Engine
from npllm.models.policy import ACTIONS, LANGUAGES, MOST_HIDDEN, Policy, available, load_policy, rule, served, slots
from npllm.types import ModelError, Modulation, new_id

NEAR_LINES = 20  # the same place still


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a place, beside the model's state."""

    uri: str
    language: str
    offset: int
    prefix: str
    suffix: str
    contexts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A decision, and where it holds."""

    uri: str
    offset: int
    fitting: tuple[tuple[str, UUID], ...]
    policy: UUID | None
    settings: ModulatorConfig
    at: float
    modulation: Modulation


class Modulator:
    """One per engine, used in its thread.

    Args:
        hidden: the base's hidden size.
        fingerprint: the base's.
    """

    def __init__(self, hidden: int, fingerprint: str) -> None:
        self._hidden = hidden
        self._fingerprint = fingerprint
        self._untrained = Policy(hidden).requires_grad_(False)
        self._policy = self._untrained
        self._chance = random.Random()
        self._kept: _Kept | None = None
        self.version: UUID | None = None  # of the policy in use; None = nothing learned
        self._projection = _projection(hidden, fingerprint)

    def use(self, version: UUID | None, folder: Path) -> None:
        """Decide by the policy in a folder from now on; None: by the rules.

        Raises:
            ModelError: it is damaged or made for another base; the rules decide.
        """
        if version == self.version:
            return
        self._policy, self.version = self._untrained, None
        if version is not None:
            policy = load_policy(folder, version, self._hidden, self._fingerprint)
            self._policy, self.version = policy.requires_grad_(False), version

    def decide(
        self,
        fitting: Sequence[tuple[str, UUID]],
        sight: Sight,
        engine: Engine,
        settings: ModulatorConfig,
        *,
        explore: bool = True,
    ) -> Modulation | None:
        """What should act, or None where there is no adapter.

        Args:
            fitting: contexts of the place with their adapters, the most specific first.
            engine: for the base's last hidden state.
            explore: False where nothing is learned from the outcome: the likeliest action, and nothing is remembered.
        """
        fitting = tuple(fitting)
        if not fitting:
            return None
        now = time.monotonic()
        kept = self._kept
        if kept is not None and explore and self._holds(kept, fitting, sight, settings, now):
            return kept.modulation
        since = now - kept.at if kept is not None else math.inf
        made = self._choose([name for name, _ in fitting], sight, engine, settings, since, explore)
        if explore:
            here = (sight.uri, sight.offset, fitting)
            self._kept = _Kept(*here, self.version, settings, now, made)
        return made

    def _holds(
        self,
        kept: _Kept,
        fitting: tuple[tuple[str, UUID], ...],
        sight: Sight,
        settings: ModulatorConfig,
        now: float,
    ) -> bool:
        then = (kept.uri, kept.fitting, kept.policy, kept.settings)
        distance = sight.offset - kept.offset
        between = sight.prefix[-distance:] if distance > 0 else sight.suffix[:-distance]
        near = abs(distance) <= len(between) and between.count("\n") <= NEAR_LINES
        return then == (sight.uri, fitting, self.version, settings) and near and now - kept.at <= settings.sticky_s

    def _choose(
        self,
        families: Sequence[str],
        sight: Sight,
        engine: Engine,
        settings: ModulatorConfig,
        since: float,
        explore: bool,
    ) -> Modulation:
        possible = available(families)
        number, propensity = int(rule(possible)), 1.0
        features: tuple[float, ...] = ()
        if settings.policy == "learned":
            seen = (*_seen(sight, families, since), *self._state(engine))
            features = tuple(round(value, 4) for value in seen)
            log_pi = self._policy(torch.tensor([features]), possible[None])[0]
            if explore and settings.exploration > 0:
                mu: list[float] = served(log_pi, possible, settings.exploration).double().tolist()
                number = self._chance.choices(range(len(ACTIONS)), weights=mu)[0]
                propensity = mu[number] / sum(mu)
            else:
                number = int(log_pi.argmax())
        found = slots(families)
        action = [0.0] * len(families)
        for slot, strength in zip(found, ACTIONS[number]):
            if slot is not None:
                action[slot] = strength
        policy = self.version if settings.policy == "learned" else None
        return Modulation(new_id(), policy, tuple(families), tuple(action), propensity, features)

    def _state(self, engine: Engine) -> list[float]:
        """The hidden state at a root mean square of 1, narrowed to `MOST_HIDDEN` numbers; zeros if there is none."""
        try:
            x = engine.hidden().detach().float().cpu()
        except ModelError:  # nothing was computed yet
            return [0.0] * min(self._hidden, MOST_HIDDEN)
        x = x / x.square().mean().sqrt().clamp(min=1e-6)
        found: list[float] = (x if self._projection is None else x @ self._projection).tolist()
        return found


def choice_of(modulation: Modulation | None, fitting: Sequence[tuple[str, UUID]], strength: float) -> AdapterChoice:
    """The adapters that act by a decision, with `strength` times its strengths."""
    if modulation is None or strength == 0:
        return AdapterChoice()
    acting = dict(zip(modulation.families, modulation.action))
    return AdapterChoice(
        tuple((version, strength * acting[name]) for name, version in fitting if acting.get(name, 0.0) > 0)
    )


def _seen(sight: Sight, families: Sequence[str], since: float) -> list[float]:
    """`PLACE_FEATURES` numbers of about 0 to 1."""
    line = sight.prefix.rpartition("\n")[2]
    known = {kind(name) for name in sight.contexts}
    fits = slots(families)
    return [
        *(float(sight.language == name) for name in LANGUAGES),
        *(float(slot is not None) for slot in fits),
        *(float(wanted in known) for wanted in KINDS),
        math.exp(-since / 600.0),
        math.log1p(sight.offset) / 12.0,
        min(1.0, (len(line) - len(line.lstrip())) / 40.0),
        float(bool(line.strip())),
        float(not sight.suffix.strip()),
    ]


def _projection(hidden: int, fingerprint: str) -> Tensor | None:
    """Random directions [H, MOST_HIDDEN] (Johnson and Lindenstrauss 1984), the same for a base always."""
    if hidden <= MOST_HIDDEN:
        return None
    seed = int.from_bytes(hashlib.sha256(fingerprint.encode()).digest()[:8], "little") >> 1
    return torch.randn(hidden, MOST_HIDDEN, generator=torch.Generator().manual_seed(seed)) / math.sqrt(hidden)

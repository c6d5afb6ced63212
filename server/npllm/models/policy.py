"""The modulator's policy: its actions, its network, and the rules as its prior.

An action gives each kind of adapter (project, framework, language, generic) a strength of 0, 0.5 or 1, together at most
1, since each was trained to act alone. The policy is the rules and what was learned on top of them,

    pi(a | x) = softmax_a(log p0(a) + W3 silu(W2 silu(W1 x)))_a,

p0 the rules (the most specific adapter alone) and W3 = 0 at the start: untrained, it is the rules exactly. Knows
nothing of places, rewards or gradients.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from npllm.contexts import KINDS, kind
from npllm.models.manifest import read_manifest
from npllm.types import ModelError

POLICY_WEIGHTS = "policy.safetensors"
POLICY_CONTEXT = "modulator"  # in a policy's manifest
REST = 0.1  # of the rules' probability, for all actions but theirs
MOST_HIDDEN = 256  # numbers of the hidden state that are seen and logged; a wider one is projected at random
LANGUAGES = ("python", "javascript", "typescript", "typescriptreact", "java", "go", "rust", "c", "cpp")
PLACE_FEATURES = len(LANGUAGES) + 2 * len(KINDS) + 5

Strengths = tuple[float, ...]


def _actions() -> tuple[Strengths, ...]:
    """Every action: none, one adapter at half or full strength, two at half strength each."""
    count = len(KINDS)
    alone = [tuple(level * (slot == one) for slot in range(count)) for one in range(count) for level in (1.0, 0.5)]
    pairs = [tuple(0.5 * (slot in (one, two)) for slot in range(count)) for one in range(count) for two in range(one)]
    return ((0.0,) * count, *alone, *pairs)


ACTIONS = _actions()
_TABLE = torch.tensor(ACTIONS)  # [A, K]


class Policy(nn.Module):
    """The network. 5e4 parameters over a base of width 256, 1.3e6 over one of 2048 and more.

    Args:
        hidden: the base's hidden size.
    """

    def __init__(self, hidden: int, *, seed: int = 0) -> None:
        super().__init__()
        width = min(1024, max(64, hidden // 2))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(PLACE_FEATURES + min(hidden, MOST_HIDDEN), width)
            self.second = nn.Linear(width, width)
            self.head = nn.Linear(width, len(ACTIONS))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor, available: Tensor) -> Tensor:
        """log pi [N, A] for features [N, F]; `available` [N, A] says which actions there are."""
        x = functional.silu(self.second(functional.silu(self.first(features))))
        return log_prior(available).add(self.head(x)).log_softmax(-1)


def slots(families: Sequence[str]) -> tuple[int | None, ...]:
    """For each of `KINDS` which of the families it is: the first of that kind."""
    kinds = [kind(name) for name in families]
    return tuple(kinds.index(wanted) if wanted in kinds else None for wanted in KINDS)


def available(families: Sequence[str]) -> Tensor:
    """Which of `ACTIONS` [A] are possible with adapters for these families."""
    absent = torch.tensor([slot is None for slot in slots(families)])
    return ~((_TABLE > 0) & absent).any(-1)


def index_of(families: Sequence[str], action: Sequence[float]) -> int:
    """Which of `ACTIONS` gives these families these strengths. Raises ValueError: none does."""
    return ACTIONS.index(tuple(0.0 if slot is None else action[slot] for slot in slots(families)))


def log_prior(available: Tensor) -> Tensor:
    """The rules as log-probabilities [..., A]: the most specific adapter at full strength, a rest for all others."""
    wanted = rule(available).unsqueeze(-1)
    others = (available.sum(-1, keepdim=True) - 1).clamp(min=1)
    log_p = torch.full(available.shape, math.log(REST)) - others.log()
    log_p = log_p.scatter(-1, wanted, math.log(1 - REST))
    return log_p.masked_fill(~available, -torch.inf)


def rule(available: Tensor) -> Tensor:
    """The rules' action: full strength of the first kind that is there; none where none is."""
    full = torch.tensor([ACTIONS.index(tuple(float(slot == one) for slot in range(len(KINDS)))) for one in range(4)])
    there = available[..., full]
    return torch.where(there.any(-1), full[there.int().argmax(-1)], torch.zeros_like(full[0]))


def served(log_pi: Tensor, available: Tensor, exploration: float) -> Tensor:
    """The probabilities [..., A] that actions are drawn with: none below exploration / their number."""
    uniform = available / available.sum(-1, keepdim=True)
    return (1 - exploration) * log_pi.exp() + exploration * uniform


def load_policy(folder: Path, version: UUID, hidden: int, fingerprint: str) -> Policy:
    """A policy from its folder, with what its manifest says checked.

    Raises:
        ModelError: it is not whole, is another version, or was made for another base.
    """
    manifest = read_manifest(folder)
    file = folder / POLICY_WEIGHTS
    if (manifest.version_id, manifest.context) != (version, POLICY_CONTEXT):
        raise ModelError(f"{folder} does not hold policy {version}; it is not loaded.")
    if manifest.base_fingerprint != fingerprint:
        raise ModelError(f"Policy {version} was learned with another base, so it is not loaded; the rules decide.")
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest.sha256:
            raise ModelError(f"{file} is not what its manifest says (sha256 differs); the rules decide.")
        policy = Policy(hidden)
        policy.load_state_dict(safetensors.torch.load(content))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{file} cannot be used ({error}); the rules decide until the next sleep.") from error
    return policy.eval()

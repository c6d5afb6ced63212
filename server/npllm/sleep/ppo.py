"""Proximal policy optimization (Schulman et al. 2017, 1707.06347) of the modulator, as a bandit of one step.

From decisions (x, a, mu, r): what was seen, the action drawn, its logged probability, the reward. In rounds, each of
which stays near the policy nu that the one before it ended with (in the first, nu = mu). With the ratio
rho = pi(a | x) / nu and the advantage A = (r - b(x)) / std, b a ridge regression of the reward on the place,

    L = -E[nu / mu min(rho A, clip(rho, 1 - 0.2, 1 + 0.2) A)] - c_H E[H(pi)] + c_KL E[pi / mu - 1 - log(pi / mu)],

whose last term estimates KL(mu | pi) without negative values. pi is the distribution that is served, exploration and
all. Knows nothing of where decisions come from; whether the result is used decides `policy_gate`. Switch:
`modulator.policy = "learned"`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from npllm.memory.policies import Decided
from npllm.models.policy import PLACE_FEATURES, Policy, available, index_of, served
from npllm.sleep.interruption import look

CLIP = 0.2
ENTROPY = 0.01  # c_H
KL = 0.1  # c_KL
RATE = 3e-3  # of AdamW
DECAY = 0.5
ROUNDS = 8
PASSES = 10  # of a round
BATCH = 64  # decisions of a step
RIDGE = 10.0  # in decisions


@dataclass(frozen=True, slots=True)
class Batch:
    """N decisions as tensors."""

    features: Tensor  # [N, F]
    available: Tensor  # [N, A], which actions there were
    actions: Tensor  # [N]
    propensities: Tensor  # [N]
    rewards: Tensor  # [N]
    uris: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.uris)

    def pick(self, rows: Tensor) -> Batch:
        """Some of them."""
        return Batch(
            self.features[rows],
            self.available[rows],
            self.actions[rows],
            self.propensities[rows],
            self.rewards[rows],
            tuple(self.uris[row] for row in rows.tolist()),
        )


def batch(decisions: Sequence[Decided]) -> Batch:
    """Decisions as tensors. Raises ValueError: there is none, or one is not of this version's actions."""
    return Batch(
        torch.tensor([one.features for one in decisions]),
        torch.stack([available(one.families) for one in decisions]),
        torch.tensor([index_of(one.families, one.action) for one in decisions]),
        torch.tensor([one.propensity for one in decisions]),
        torch.tensor([one.reward for one in decisions]),
        tuple(one.uri for one in decisions),
    )


def improve(policy: Policy, data: Batch, *, exploration: float, seed: int, stop: threading.Event) -> Policy:
    """A better policy, learned from a copy of `policy`.

    Raises:
        Interrupted: `stop` is set.
    """
    made = copy.deepcopy(policy).train().requires_grad_(True)
    advantage = data.rewards - fitted(data.features[:, :PLACE_FEATURES], data.rewards)
    advantage = advantage / advantage.std().clamp(min=1e-6)
    optimizer = torch.optim.AdamW(made.parameters(), lr=RATE, weight_decay=DECAY)
    chance = torch.Generator().manual_seed(seed)
    for step in range(ROUNDS * PASSES):
        if step % PASSES == 0:
            near = data.propensities if step == 0 else taken(made, data, exploration).detach()
        for rows in torch.split(torch.randperm(len(data), generator=chance), BATCH):
            look(stop)
            loss = objective(made, data.pick(rows), near[rows], advantage[rows], exploration)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimizer.step()
    return made.eval().requires_grad_(False)


def objective(policy: Policy, data: Batch, near: Tensor, advantage: Tensor, exploration: float) -> Tensor:
    """The loss L, a scalar; `near` [N] is nu of the actions taken."""
    pi = served(policy(data.features, data.available), data.available, exploration)
    of_action = pi.gather(1, data.actions[:, None])[:, 0]
    rho = of_action / near
    surrogate = torch.minimum(rho * advantage, rho.clamp(1 - CLIP, 1 + CLIP) * advantage) * near / data.propensities
    entropy = -(pi * pi.clamp(min=1e-9).log()).sum(-1)
    moved = of_action / data.propensities
    kl = moved - 1 - moved.clamp(min=1e-6).log()
    loss: Tensor = -surrogate.mean() - ENTROPY * entropy.mean() + KL * kl.mean()
    return loss


def taken(policy: Policy, data: Batch, exploration: float) -> Tensor:
    """The probabilities [N] with which a policy would have drawn the actions that were taken."""
    pi = served(policy(data.features, data.available), data.available, exploration)
    return pi.gather(1, data.actions[:, None])[:, 0]


def fitted(x: Tensor, y: Tensor, at: Tensor | None = None) -> Tensor:
    """Ridge regression of y [N] on x [N, F] and a constant that is not shrunk, evaluated `at` [M, F] (default: x)."""
    centre, mean = x.mean(0), y.mean()
    deviation = (x - centre).double()
    gram = deviation.T @ deviation + RIDGE * torch.eye(x.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(gram, deviation.T @ (y - mean).double())
    found: Tensor = ((x if at is None else at) - centre) @ weights.float() + mean
    return found

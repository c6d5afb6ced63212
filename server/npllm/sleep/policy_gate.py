"""The policy gate: is a new policy better than the one in use, by decisions that it has not learned from?

Both are judged from decisions of others, doubly robustly (Dudik et al. 2011, 1103.4601): with a model q of the reward
and the weight w = pi(a | x) / mu,

    V(pi) = mean_i[ sum_a pi(a | x_i) q(x_i, a) + w_i (r_i - q(x_i, a_i)) ],

right if either q or mu is. q is a ridge regression on place and action, fitted on the other folds. The interval of the
difference is a bootstrap (Efron 1979) that draws documents. Beside it stand the self-normalised estimate (SNIPS,
Swaminathan and Joachims 2015), sum w r / sum w, and the effective sample size, (sum w)^2 / sum w^2: with too small a
one nothing is believed. A policy is accepted only if the whole interval is above `MIN_GAIN`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from npllm.models.policy import ACTIONS, PLACE_FEATURES, Policy, served
from npllm.sleep.ppo import Batch, fitted

FOLDS = 5
RESAMPLES = 2000
LEVEL = 0.9
MIN_DOCUMENTS = 5  # with fewer, single decisions are drawn
MIN_EFFECTIVE = 30.0
MIN_GAIN = 1e-3  # of reward; less is not worth a change


@dataclass(frozen=True, slots=True)
class Value:
    """What a policy is worth, in mean reward."""

    robust: float  # doubly robust
    snips: float
    effective: float  # decisions
    each: Tensor  # [N], whose mean is `robust`


@dataclass(frozen=True, slots=True)
class PolicyJudgement:
    """The gate's word; `gain` is the difference of the doubly robust values, with a 90 % interval."""

    passed: bool
    reason: str
    before: float
    after: float
    gain: float
    gain_low: float
    gain_high: float
    snips_before: float
    snips_after: float
    effective: float


def judge(new: Policy, old: Policy, data: Batch, *, exploration: float, seed: int = 0) -> PolicyJudgement:
    """Decide between two policies, both served with `exploration`."""
    reward = _model(data)
    after, before = (value(policy, data, reward, exploration) for policy in (new, old))
    difference = after.each - before.each
    low, high = _interval(difference, data.uris, seed)
    if not math.isfinite(after.robust):
        passed, reason = False, "The new policy's numbers are not finite."
    elif after.effective < MIN_EFFECTIVE:
        passed = False
        reason = f"The decisions tell too little of the new policy: they count as {after.effective:.0f}."
    elif low <= MIN_GAIN:
        passed, reason = False, "The new policy is not better beyond chance; the one in use stays."
    else:
        passed, reason = True, "The new policy earns more than the one in use."
    gain = float(difference.mean())
    return PolicyJudgement(
        *(passed, reason, before.robust, after.robust, gain, low, high),
        *(before.snips, after.snips, after.effective),
    )


def value(policy: Policy, data: Batch, reward: Tensor, exploration: float) -> Value:
    """What a policy earns.

    Args:
        reward: the model q [N, A].
    """
    with torch.no_grad():
        pi = served(policy(data.features, data.available), data.available, exploration)
    taken = data.actions[:, None]
    weights = pi.gather(1, taken)[:, 0] / data.propensities
    each = (pi * reward).sum(-1) + weights * (data.rewards - reward.gather(1, taken)[:, 0])
    total = weights.sum().clamp(min=1e-12)
    snips = (weights * data.rewards).sum() / total
    effective = total.square() / weights.square().sum().clamp(min=1e-12)
    return Value(float(each.mean()), float(snips), float(effective), each)


def _model(data: Batch) -> Tensor:
    """q [N, A]: the reward of each action at each decision, from the decisions of the other folds."""
    count, kinds = len(data), len(ACTIONS)
    place = data.features[:, :PLACE_FEATURES]
    one_hot = torch.eye(kinds)
    found = torch.empty(count, kinds)
    for fold in range(FOLDS):
        there = torch.arange(count) % FOLDS == fold
        known = torch.cat([place, one_hot[data.actions]], -1)[~there]
        asked = torch.cat(
            [place[there].repeat_interleave(kinds, 0), one_hot.repeat(int(there.sum()), 1)], -1
        )  # [n * A, F + A]
        found[there] = fitted(known, data.rewards[~there], asked).view(-1, kinds)
    return found


def _interval(difference: Tensor, uris: tuple[str, ...], seed: int) -> tuple[float, float]:
    names = {uri: number for number, uri in enumerate(dict.fromkeys(uris))}
    by_document = len(names) >= MIN_DOCUMENTS
    group = numpy.array([names[uri] for uri in uris]) if by_document else numpy.arange(len(uris))
    count = len(names) if by_document else len(uris)
    sums = numpy.bincount(group, weights=difference.numpy(), minlength=count)
    sizes = numpy.bincount(group, minlength=count)
    chance = numpy.random.default_rng(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = chance.integers(0, count, count)
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    low, high = numpy.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

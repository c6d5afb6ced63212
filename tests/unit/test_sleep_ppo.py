"""The modulator's learning on a simulated bandit whose best policy is known, with three adapters competing."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
import torch

from npllm.memory.policies import Decided
from npllm.models.policy import (
    ACTIONS,
    MOST_HIDDEN,
    PLACE_FEATURES,
    Policy,
    available,
    index_of,
    log_prior,
    served,
    slots,
)
from npllm.sleep import policy_gate, ppo
from npllm.sleep.interruption import Interrupted
from npllm.sleep.policy_learning import halves
from npllm.types import new_id

FAMILIES = ("project:/w", "language:python", "generic")
HIDDEN = 8
EXPLORATION = 0.2
NEVER = threading.Event()
MID_LINE = PLACE_FEATURES - 2  # a feature of the place


def strengths(*levels: float) -> int:
    return index_of(FAMILIES, levels)


BEST = {0.0: strengths(0, 1, 0), 1.0: strengths(0.5, 0, 0.5)}  # by the feature; the rules would take the project's


def worth(mid_line: float, action: int) -> float:
    """The true mean reward."""
    return 0.7 if action == BEST[mid_line] else 0.2 if action == strengths(1, 0, 0) else 0.0


def play(policy: Policy, count: int, seed: int, exploration: float = EXPLORATION) -> list[Decided]:
    """Decisions of a policy, and noisy rewards."""
    chance = random.Random(seed)
    features = torch.zeros(count, PLACE_FEATURES + HIDDEN)
    features[:, MID_LINE] = torch.tensor([float(chance.random() < 0.5) for _ in range(count)])
    features[:, PLACE_FEATURES:] = torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed))
    possible = available(FAMILIES).expand(count, -1)
    with torch.no_grad():
        mu = served(policy(features, possible), possible, exploration)
    made = []
    for number in range(count):
        action = chance.choices(range(len(ACTIONS)), weights=mu[number].tolist())[0]
        reward = worth(float(features[number, MID_LINE]), action) + chance.gauss(0, 0.3)
        by_family = tuple(ACTIONS[action][slot] for slot, there in enumerate(slots(FAMILIES)) if there is not None)
        made.append(
            Decided(
                decision=new_id(),
                uri=f"file:///{number % 20}.py",
                families=FAMILIES,
                action=by_family,
                propensity=float(mu[number, action]),
                features=tuple(features[number].tolist()),
                reward=reward,
            )
        )
    return made


def true_value(policy: Policy, exploration: float = EXPLORATION) -> float:
    data = ppo.batch(play(policy, 2000, seed=99))
    with torch.no_grad():
        pi = served(policy(data.features, data.available), data.available, exploration)
    rewards = torch.tensor([[worth(float(x), a) for a in range(len(ACTIONS))] for x in data.features[:, MID_LINE]])
    return float((pi * rewards).sum(-1).mean())


def test_untrained_the_policy_is_the_rules() -> None:
    policy = Policy(HIDDEN)
    features = torch.randn(5, PLACE_FEATURES + HIDDEN)
    for families in (FAMILIES, FAMILIES[1:], FAMILIES[2:], ("framework:pytest", "language:python")):
        possible = available(families).expand(5, -1)
        log_pi = policy(features, possible)
        torch.testing.assert_close(log_pi, log_prior(possible).log_softmax(-1))
        torch.testing.assert_close(log_pi.exp().sum(-1), torch.ones(5))
        first = (1.0, *(0.0 for _ in families[1:]))
        assert (log_pi.argmax(-1) == index_of(families, first)).all(), "the most specific adapter, alone, at full"
        assert (log_pi.exp()[~possible] == 0).all(), "an adapter that is not there is never chosen"
    assert int(available(FAMILIES).sum()) == 1 + 3 * 2 + 3
    assert available(()).sum() == 1, "without adapters there is nothing to choose"


@pytest.mark.parametrize(("hidden", "least", "most"), [(256, 4e4, 1e5), (2560, 1e6, 5e6)])
def test_the_policy_s_size_is_in_proportion_to_the_base(hidden: int, least: float, most: float) -> None:
    policy = Policy(hidden)
    assert policy.first.in_features == PLACE_FEATURES + MOST_HIDDEN
    assert least <= sum(weights.numel() for weights in policy.parameters()) <= most


def test_it_finds_the_best_policy_from_what_the_rules_did_with_some_exploration() -> None:
    policy = Policy(HIDDEN)
    began = true_value(policy)
    best = 0.7 * (1 - EXPLORATION) + EXPLORATION * (0.7 + 0.2) / 10
    accepted = 0
    for night in range(4):
        learned_from, judged_by = halves(play(policy, 2000, seed=night))
        learned = ppo.improve(policy, ppo.batch(learned_from), exploration=EXPLORATION, seed=night, stop=NEVER)
        judged = policy_gate.judge(learned, policy, ppo.batch(judged_by), exploration=EXPLORATION)
        if judged.passed:
            policy, accepted = learned, accepted + 1
    assert accepted >= 2
    assert began < 0.3 and true_value(policy) > began + 0.9 * (best - began)


def test_one_step_stays_near_the_policy_that_made_the_decisions() -> None:
    policy = Policy(HIDDEN)
    data = ppo.batch(play(policy, 1000, seed=1))
    learned = ppo.improve(policy, data, exploration=EXPLORATION, seed=0, stop=NEVER)
    with torch.no_grad():
        pi = served(learned(data.features, data.available), data.available, EXPLORATION)
    rho = pi.gather(1, data.actions[:, None])[:, 0] / data.propensities
    common = data.actions == strengths(1, 0, 0)
    assert (1 - ppo.CLIP) ** (ppo.ROUNDS + 1) < float(rho[common].mean()) < 1.0, (
        "the rules' action loses, within bounds"
    )
    assert torch.equal(policy.head.weight, torch.zeros_like(policy.head.weight)), "the one in use is not touched"


def test_the_doubly_robust_value_is_close_to_the_true_one() -> None:
    logging, other = Policy(HIDDEN), Policy(HIDDEN)
    with torch.no_grad():
        other.head.bias[BEST[0.0]] += 4.0
    data = ppo.batch(play(logging, 6000, seed=3))
    judged = policy_gate.judge(other, logging, data, exploration=EXPLORATION)
    assert abs(judged.before - true_value(logging)) < 0.03
    assert abs(judged.after - true_value(other)) < 0.1
    assert judged.gain_low < true_value(other) - true_value(logging) < judged.gain_high
    assert judged.effective < len(data)


def test_a_worse_policy_is_refused_and_so_is_one_of_which_little_is_known() -> None:
    policy, worse, strange = Policy(HIDDEN), Policy(HIDDEN), Policy(HIDDEN)
    with torch.no_grad():
        worse.head.bias[0] += 4.0  # the bare base: worth nothing
        strange.head.bias[BEST[0.0]] += 12.0
    data = ppo.batch(play(policy, 1000, seed=5))
    judged = policy_gate.judge(worse, policy, data, exploration=EXPLORATION)
    assert not judged.passed and judged.gain < 0 and "not better beyond chance" in judged.reason
    same = policy_gate.judge(policy, policy, data, exploration=EXPLORATION)
    assert not same.passed and same.gain == 0
    few = data.pick(torch.arange(60))
    judged = policy_gate.judge(strange, policy, few, exploration=EXPLORATION)
    assert not judged.passed and "too little" in judged.reason


def test_learning_stops_when_the_person_is_back() -> None:
    stop = threading.Event()
    stop.set()
    data = ppo.batch(play(Policy(HIDDEN), 100, seed=1))
    with pytest.raises(Interrupted):
        ppo.improve(Policy(HIDDEN), data, exploration=EXPLORATION, seed=0, stop=stop)


def test_no_document_is_learned_from_and_judged_by() -> None:
    decisions = play(Policy(HIDDEN), 200, seed=1)
    learned_from, judged_by = halves(decisions)
    assert len(learned_from) + len(judged_by) == 200
    assert min(len(learned_from), len(judged_by)) >= 50
    assert not {one.uri for one in learned_from} & {one.uri for one in judged_by}
    one = [decision for decision in decisions if decision.uri == decisions[0].uri]
    assert sorted(map(len, halves(one))) == [0, len(one)]


def test_what_one_night_learned_judges_no_later_night() -> None:
    """Documents come, go and grow between the nights; the policy of the first is the parent of the second's."""
    chance = random.Random(5)
    first = play(Policy(HIDDEN), 300, seed=1)
    learned, _ = halves(first)
    for night in range(2, 12):
        more = [replace(one, uri=f"file:///{chance.randrange(40)}.py") for one in play(Policy(HIDDEN), 300, seed=night)]
        kept = [one for one in first if chance.random() < 0.7]  # the oldest are not read any more
        learned_now, judged_by = halves([*more, *kept])
        assert not {one.uri for one in judged_by} & {one.uri for one in learned}
        learned += learned_now

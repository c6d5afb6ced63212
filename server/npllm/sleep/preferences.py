"""What the person preferred: DPO for pairs (Rafailov et al. 2023, 2305.18290), KTO for the rest (Ethayarajh et al.
2024, 2402.01306).

With r(y) = log pi(y | x) - log pi_ref(y | x) over an answer y and the token that ends it, pi_ref being the
version that is in use as the sleep begins, and weights w whose mean is 1:

    L_DPO = mean of w * -log sigmoid(beta (r(y_w) - r(y_l)))      y_w: what stood there in the end, y_l: the suggestion
    L_KTO = mean of w * (1 - sigmoid(beta (r(y) - z)))            y was accepted, and nothing says what was better
            mean of w * (1 - sigmoid(beta (z - r(y))))            y was refused, and nothing was written instead, or
                                                                  it is to be avoided and there is no L_DPO
    z     = max(0, mean of r over answers that belong to other prompts of the same step), without gradient: an estimate
            of KL(pi || pi_ref)

A pair is what was typed instead of a suggestion, or what it was edited to, unless one text only goes on where the other
ends. Never seen or continued by another suggestion is no label; a deletion and frustration are strong evidence, a
rejection or dismissal weak, a suggestion left alone hardly any. w grows with the characters of the text, up to
`CHARACTERS`, so that short safe suggestions do not win by being many; in KTO the rarer kind counts for more, up to
`BALANCE` times. The likelihood of what the person wrote stays in the objective beside this (`objectives`).
Knows nothing of how the model is trained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from npllm.sleep.interruption import look
from npllm.sleep.objectives import Sample, token_nll
from npllm.types import Decision, Experience, OutcomeKind

CHARACTERS = 200  # a longer text weighs no more
BALANCE = 4.0
OTHERS = 4  # foreign answers, at most, from which a step's z is estimated

NO_LABEL = (OutcomeKind.UNSEEN, OutcomeKind.SUPERSEDED)
TAKEN = (OutcomeKind.ACCEPTED, OutcomeKind.PARTIALLY_ACCEPTED, OutcomeKind.EDITED)
STRENGTH = {
    OutcomeKind.ACCEPTED: 1.0,
    OutcomeKind.EDITED: 1.0,
    OutcomeKind.PARTIALLY_ACCEPTED: 0.5,
    OutcomeKind.DELETED: 1.0,
    OutcomeKind.REJECTED: 0.5,
    OutcomeKind.DISMISSED: 0.4,
    OutcomeKind.IGNORED: 0.2,
}


@dataclass(frozen=True, slots=True)
class Preference:
    """One preference: a pair has both; an accepted suggestion is a `winner`, a refused one a `loser`.

    Attributes:
        foreign: of what is no pair, the answer that belongs to another prompt, after this one's.
        sample: the number of the sample that is learned of the same experience; -1: none is.
    """

    winner: Sample | None
    loser: Sample | None
    weight: float = 1.0
    foreign: Sample | None = None
    sample: int = -1

    @property
    def rows(self) -> tuple[Sample, ...]:
        """All that a forward is needed of, in the order of the reference's columns; see `reference_of`."""
        return tuple(row for row in (self.winner, self.loser, self.foreign) if row is not None)


@dataclass(frozen=True, slots=True)
class Signal:
    """What an experience says about its suggestion, as texts; "" where there is none."""

    better: str
    worse: str
    strength: float


def signal(experience: Experience) -> Signal | None:
    """The preference in an experience; None where there is no label."""
    final, suggested = experience.final_text, experience.suggested
    wanted, offered = " ".join(final.split()), " ".join(suggested.split())
    avoided = experience.decision is Decision.AVOID
    if not offered or (experience.outcome in NO_LABEL and not avoided):
        return None
    strength = 1.0 if avoided else STRENGTH[experience.outcome]
    cut = offered.startswith(wanted) and wanted != offered
    if wanted and not wanted.startswith(offered) and (not cut or experience.outcome is OutcomeKind.EDITED):
        return Signal(final, suggested, strength)
    if avoided or experience.outcome is OutcomeKind.DELETED:
        return Signal("", suggested, strength)
    if experience.outcome in TAKEN:
        return None if wanted and cut else Signal(suggested, "", strength)
    return None if wanted else Signal("", suggested, strength)  # refused, then written by hand: it was right


def gather(
    experiences: Sequence[Experience],
    encode: Callable[[Experience, str], Sample],
    *,
    pairs: bool,
    singles: bool,
    stop: threading.Event,
    learned: int = 0,
) -> list[Preference]:
    """The preferences in some experiences, their weights' mean 1 for pairs and for the others.

    Args:
        encode: a sample of a text at an experience's place.
        pairs, singles: which are wanted. Without pairs the suggestion of one that is to be avoided is a refusal.
        learned: the first so many experiences are learned as samples, too, under the same numbers.

    Raises:
        Interrupted
    """
    both: list[Preference] = []
    one: list[Preference] = []
    for number, item in enumerate(experiences):
        look(stop)
        said = signal(item)
        if said is None:
            continue
        if said.better and said.worse and not pairs:
            if item.decision is not Decision.AVOID:
                continue
            said = Signal("", said.worse, said.strength)  # what is to be avoided is a negative in any case
        winner = encode(item, said.better) if said.better else None
        loser = encode(item, said.worse) if said.worse else None
        weight = said.strength * min(CHARACTERS, len(said.better or said.worse)) / CHARACTERS
        sample = number if number < learned else -1
        if winner is not None and loser is not None:
            both.append(Preference(winner, loser, weight, sample=sample))
        else:
            one.append(Preference(winner, loser, weight, sample=sample))
    most = max((len(row.ids) for item in one for row in item.rows), default=0)
    if len(one) > 1:
        one = [replace(item, foreign=_foreign(item, one[number - 1], most)) for number, item in enumerate(one)]
    return _scaled(both if pairs else []) + _scaled(_balanced(one) if singles else [])


class Objective:
    """The preference terms of one optimizer step.

    Args:
        preferences: all of the training.
        reference: log pi_ref of every preference's rows, [preferences, 3]; see `reference_of`.
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        reference: torch.Tensor,
        *,
        dpo_weight: float,
        kto_weight: float,
        beta: float,
    ) -> None:
        self._preferences = preferences
        self._reference = reference.tolist()
        self._weights = (dpo_weight, kto_weight)
        self._beta = beta

    def add_gradients(self, model: Any, indices: Sequence[int], stop: threading.Event) -> float:
        """Backpropagate the terms of some preferences, a row at a time; returns their loss.

        Raises:
            Interrupted: the gradients are then incomplete.
        """
        pairs = [index for index in indices if self._pair(index)]
        singles = [index for index in indices if not self._pair(index)]
        z = self._z(model, singles, stop)
        total = 0.0
        for index in pairs:
            total += self._pair_loss(model, index, self._weights[0] / len(pairs), stop)
        for index in singles:
            total += self._single_loss(model, index, self._weights[1] / len(singles), z, stop)
        return total

    def _pair(self, index: int) -> bool:
        return self._preferences[index].winner is not None and self._preferences[index].loser is not None

    def _pair_loss(self, model: Any, index: int, weight: float, stop: threading.Event) -> float:
        preference = self._preferences[index]
        assert preference.winner is not None
        assert preference.loser is not None
        rows = []
        for sample in (preference.winner, preference.loser):
            look(stop)
            rows.append(log_p(model, sample))
        # The loss is differentiated by the two log-probabilities first, then each of them by the weights.
        leaves = [row.detach().requires_grad_() for row in rows]
        better, worse = (leaf - ref for leaf, ref in zip(leaves, self._reference[index], strict=False))
        loss = weight * preference.weight * -logsigmoid(self._beta * (better - worse))
        torch.autograd.backward(loss)
        for row, leaf in zip(rows, leaves, strict=True):
            look(stop)
            torch.autograd.backward(row, leaf.grad)
        return float(loss.detach())

    def _single_loss(self, model: Any, index: int, weight: float, z: float, stop: threading.Event) -> float:
        preference = self._preferences[index]
        sample = preference.winner or preference.loser
        assert sample is not None
        sign = 1.0 if preference.winner is not None else -1.0
        look(stop)
        margin = log_p(model, sample) - self._reference[index][0] - z
        loss = weight * preference.weight * (1.0 - torch.sigmoid(self._beta * sign * margin))
        torch.autograd.backward(loss)
        return float(loss.detach())

    def _z(self, model: Any, singles: Sequence[int], stop: threading.Event) -> float:
        """The step's estimate of KL(pi || pi_ref)."""
        found = []
        for index in singles[:OTHERS]:
            foreign = self._preferences[index].foreign
            if foreign is not None:
                look(stop)
                with torch.no_grad():
                    found.append(float(log_p(model, foreign)) - self._reference[index][1])
        return max(0.0, sum(found) / len(found)) if found else 0.0


def log_p(model: Any, sample: Sample) -> torch.Tensor:
    """log pi(answer | prompt) in nats, a differentiable scalar."""
    ids = torch.tensor([sample.ids], device=next(model.parameters()).device)
    return -token_nll(model, ids, sample.loss_start - 1).sum()


@torch.no_grad()
def reference_of(
    model: Any, preferences: Sequence[Preference], stop: threading.Event, found: list[list[float]]
) -> torch.Tensor:
    """log pi_ref of every preference's rows, [preferences, 3], 0 where there is no such row, under the model as it is.

    Args: found: what an interrupted call had found already; it grows.

    Raises:
        Interrupted
    """
    for preference in preferences[len(found) :]:
        row = []
        for sample in preference.rows:
            look(stop)
            row.append(float(log_p(model, sample)))
        found.append(row + [0.0] * (3 - len(row)))
    return torch.tensor(found, dtype=torch.float64).reshape(-1, 3)


def spread(count: int, *, epochs: int, step: int, total: int, seed: int) -> list[int]:
    """Which of `count` preferences belong to a step: each once a pass, evenly over all steps, in a seeded order."""
    begin, end = (count * epochs * at // total for at in (step, step + 1))
    orders: dict[int, list[int]] = {}
    for epoch in {at // count for at in range(begin, end)}:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + 500_000 + epoch)
        orders[epoch] = torch.randperm(count, generator=generator).tolist()
    return [orders[at // count][at % count] for at in range(begin, end)]


def _foreign(item: Preference, other: Preference, most: int) -> Sample:
    """The other's answer after this one's prompt, cut to `most` tokens in all."""
    mine, theirs = item.winner or item.loser, other.winner or other.loser
    assert mine is not None
    assert theirs is not None
    return Sample((*mine.ids[: mine.loss_start], *theirs.ids[theirs.loss_start :])[:most], mine.loss_start)


def _balanced(items: Sequence[Preference]) -> list[Preference]:
    accepted = sum(item.weight for item in items if item.winner is not None)
    refused = sum(item.weight for item in items if item.winner is None)
    if not accepted or not refused:
        return list(items)
    up = min(BALANCE, max(1.0, refused / accepted)), min(BALANCE, max(1.0, accepted / refused))
    return [replace(item, weight=item.weight * up[item.winner is None]) for item in items]


def _scaled(items: Sequence[Preference]) -> list[Preference]:
    mean = sum(item.weight for item in items) / len(items) if items else 1.0
    return [replace(item, weight=item.weight / mean) for item in items]

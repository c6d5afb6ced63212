"""Prioritised experience replay (Schaul et al., 1511.05952): which old experiences are learned again, and how much.

    p_i  = (s_i + eps) * d_i * (1/2 + max(relevance_i, (1 + emotional_i) / 2) / 2)       priority
    P(i) = p_i^alpha / sum_j p_j^alpha                                                   chance to be drawn first
    w_i  = (N P(i))^-beta, divided by their mean                                         importance weight

s_i, the surprise, is the loss of the text in nats per UTF-8 byte under the version in use, measured at the end of the
sleep that learned it (`Learner.surprise`) and kept in PostgreSQL; what was never measured has the highest priority of
all. d_i is the decision: a suggestion kept at low priority or discarded makes it a half, never nothing, since it is
what the person wrote that is learned; emotional_i counts where something was said. alpha = 0.6; "uniform" is alpha = 0.
beta goes from 0.4 to 1 over the first `BETA_VERSIONS` versions that a context has had on this base: a young adapter may
learn with a bias, an old one should not.

The database draws, without putting back: those with the smallest keys e_i = -ln(u_i) / p_i^alpha (Efraimidis & Spirakis
2006), in memory/queries/replay.sql, so that a million experiences cost one pass there and nothing here. When most of a
small memory is drawn, P(i) no longer says how often i is: for N P(i) stands N pi_i / k, where
pi_i = 1 - exp(-p_i^alpha tau) is its chance to be among the k drawn, and tau the first key that was not (Cohen & Kaplan
2007). For k << N both are the same; for k = N every weight is 1, as it must be. `choose` goes down the drawn ones with
its caps and leaves out what it is told to. Knows no model and no database.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from npllm.memory.replay import Drawn
from npllm.types import Decision, Experience

ALPHA = 0.6
EPSILON = 0.01  # nats per byte: what is known by heart is drawn again some day
BETA = 0.4  # at first
BETA_VERSIONS = 10
DECISION = {Decision.KEEP: 1.0, Decision.LOW: 0.5, Decision.DISCARD: 0.5, Decision.AVOID: 1.0}
PAUSE_S = 1800.0  # without an experience for so long, a session is over
MANY = 3  # times as many as wanted are drawn, since some are left out
MOST = 4000  # that are drawn at all
FAIR = 2.0  # times its even share, so much may one file or one session give
AT_LEAST = 5  # and so many it always may


def alpha(mode: str) -> float:
    """The exponent for `sleep.replay`."""
    return 0.0 if mode == "uniform" else ALPHA


def priority(experience: Experience, surprise: float) -> float:
    """p_i; the same as in SQL."""
    said = (1.0 + experience.emotional) / 2.0 if experience.emotional is not None else 0.0
    satisfied = 0.5 + 0.5 * min(1.0, max(0.0, experience.relevance, said))
    return (surprise + EPSILON) * DECISION[experience.decision] * satisfied


def beta(versions: int) -> float:
    """The exponent of the importance weights after so many published versions."""
    return BETA + (1.0 - BETA) * min(1.0, versions / BETA_VERSIONS)


def importance(chosen: Sequence[Drawn], tau: float, exponent: float) -> dict[UUID, float]:
    """w_i by id, with mean 1.

    Args:
        tau: the key of the first that was not drawn; infinite where all were.
    """
    weights = {}
    for item in chosen:
        inclusion = -math.expm1(-item.mass * tau)
        weights[item.experience.id] = max(item.size * inclusion / len(chosen), 1e-9) ** -exponent
    mean = sum(weights.values()) / len(weights) if weights else 1.0
    return {id: value / mean for id, value in weights.items()}


def choose(
    drawn: Sequence[Drawn], count: int, *, exponent: float, refused: Callable[[Experience], bool] = lambda _: False
) -> tuple[list[Experience], Mapping[UUID, float]]:
    """`count` experiences in the order in which they were drawn, and their importance weights.

    No file and no session gives more than `FAIR` times its even share (or `AT_LEAST`), unless there is nothing else.

    Args:
        exponent: beta.
        refused: asked once of each that the caps let through, in order; what it is true of is left out.
    """
    files = Counter(_file(item) for item in drawn)
    sessions = Counter(item.session for item in drawn)
    most_of_file = max(AT_LEAST, math.ceil(FAIR * count / max(1, len(files))))
    most_of_session = max(AT_LEAST, math.ceil(FAIR * count / max(1, len(sessions))))
    from_file: Counter[str] = Counter()
    from_session: Counter[int] = Counter()
    chosen: list[Drawn] = []
    spare: list[Drawn] = []
    last = -1
    for number, item in enumerate(drawn):
        if len(chosen) >= count:
            break
        if from_file[_file(item)] >= most_of_file or from_session[item.session] >= most_of_session:
            spare.append(item)
            continue
        if refused(item.experience):
            continue
        chosen.append(item)
        from_file[_file(item)] += 1
        from_session[item.session] += 1
        last = number
    for item in spare:
        if len(chosen) >= count:
            break
        if not refused(item.experience):
            chosen.append(item)
            last = len(drawn) - 1
    tau = math.inf
    if chosen and last + 1 < len(drawn):
        tau = drawn[last + 1].key
    elif chosen and drawn[0].size > len(drawn):
        tau = drawn[last].key  # there are more, whose keys are not known: the last one's is the nearest
    return [item.experience for item in chosen], importance(chosen, tau, exponent)


def _file(item: Drawn) -> str:
    return f"{item.experience.place.project}\0{item.experience.place.path}"

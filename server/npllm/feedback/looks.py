"""When to look at what stands there: times after an acceptance, and milestones."""

from __future__ import annotations

LAST_LOOK_S = 600.0
EARLY_LOOK_S = 15.0
LOOKS_S = (120.0, 300.0, LAST_LOOK_S)  # at an accepted text, after those at `EARLY_LOOK_S` and `settle_s`
COMMIT_S = 4 * 3600.0  # so long an accepted text in a repository is followed until it is committed
MILESTONES = ("save", "commit")  # the first of each is told whether or not anything has changed


def waits(settle_s: float, until_commit: bool) -> list[float]:
    """Seconds after an acceptance at which to look; the last is the last.

    Where `settle_s` is longer than all of them, nothing is to be told by the clock before it.
    """
    early = [EARLY_LOOK_S] if EARLY_LOOK_S < settle_s <= LAST_LOOK_S else []
    late = [COMMIT_S] if until_commit and settle_s < COMMIT_S else []
    return [*early, settle_s, *(wait for wait in LOOKS_S if wait > settle_s), *late]


def looked(until_commit: bool, waited_s: float) -> bool:
    """Whether an accepted text has had its looks, and waits for its commit alone."""
    return until_commit and waited_s > LAST_LOOK_S

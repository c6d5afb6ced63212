"""Whether to sleep, from what is known of the person and of earlier sleeps. A pure rule; the machine's is `machine`."""

from __future__ import annotations

from dataclasses import dataclass

from npllm.config import SleepConfig
from npllm.types import ServerState

RETRY_S = 300.0  # after a failure, doubled with each further one
MAX_RETRY_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision is made from. Seconds; counts of experiences."""

    idle_s: float  # since any window was used
    new: int  # experiences since the last sleep that was done
    interrupted: bool  # a sleep waits to be gone on with
    tried: bool  # a sleep ended by itself since any window was last used
    failed_ago_s: float | None = None  # since the last failure, if the last sleep failed
    failures: int = 0  # in a row


def drowsiness(now: Situation, config: SleepConfig) -> ServerState:
    """SLEEPING: begin; DROWSY: soon, if nobody comes back; AWAKE: not now."""
    if not config.enabled or not (now.interrupted or now.new >= config.min_experiences):
        return ServerState.AWAKE
    if now.failed_ago_s is not None:
        wait = min(MAX_RETRY_S, RETRY_S * 2.0 ** max(0, now.failures - 1))
        if now.failed_ago_s < wait:
            return ServerState.AWAKE
    elif now.tried:
        return ServerState.AWAKE
    if now.idle_s >= config.idle_s:
        return ServerState.SLEEPING
    return ServerState.DROWSY if now.idle_s >= config.idle_s / 2 else ServerState.AWAKE

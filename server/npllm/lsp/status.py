"""What the status bar shows, put together from the assistant and the sleep scheduler, sent when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from npllm.types import ServerState


@dataclass(frozen=True, slots=True)
class Status:
    """The parameters of the notification `npllm/status`.

    Attributes:
        progress: of the whole sleep, 0 to 1, or None.
        seconds_left: until the end of the sleep, or None.
        base: the base model's name, "" while none is loaded.
        adapters: ids of the adapter versions in use.
        backlog: journal records that have not reached PostgreSQL.
    """

    state: ServerState
    phase: str = ""
    progress: float | None = None
    seconds_left: float | None = None
    message: str = ""
    base: str = ""
    adapters: tuple[str, ...] = ()
    backlog: int = 0

    def as_params(self) -> dict[str, object]:
        """As JSON goes over the wire; absent means unknown."""
        params: dict[str, object] = {
            "state": self.state.value,
            "base": self.base,
            "adapters": list(self.adapters),
            "backlog": self.backlog,
        }
        if self.phase:
            params["phase"] = self.phase
        if self.progress is not None:
            params["progress"] = round(self.progress, 3)
        if self.seconds_left is not None:
            params["secondsLeft"] = round(self.seconds_left)
        if self.message:
            params["message"] = self.message
        return params


class StatusBoard:
    """Sends the present status when it differs from the last one sent, at most every `interval` seconds."""

    def __init__(self, look: Callable[[], Status], send: Callable[[Status], None], interval: float = 0.05) -> None:
        self._look = look
        self._send = send
        self._interval = interval
        self._sent: Status | None = None
        self._due: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something may have changed. Callable on the event loop only."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(self._interval, self._flush)

    def _flush(self) -> None:
        self._due = None
        status = self._look()
        if status != self._sent:
            self._sent = status
            self._send(status)

"""How every piece of a sleep hears that the person is back."""

from __future__ import annotations

import threading


class Interrupted(Exception):
    """The person is back. What had to be kept is on disk when this is raised."""


def look(stop: threading.Event) -> None:
    """Raise Interrupted if `stop` is set. Called between any two pieces of work."""
    if stop.is_set():
        raise Interrupted

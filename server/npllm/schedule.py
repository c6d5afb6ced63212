"""Times of day in which something may begin, as people write them: "22:00-06:30, 12:00-13:00".

A window may go over midnight. Times are the machine's local ones. Knows nothing of what is scheduled.
"""

from __future__ import annotations

import re
from datetime import time

Window = tuple[time, time]  # from (inclusive) to (exclusive); to < from: over midnight

_WINDOW = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


def windows(text: str) -> tuple[Window, ...]:
    """The windows in `text`; none at all mean any time.

    Raises:
        ValueError: it cannot be read; the message names the part and the form that is wanted.
    """
    return tuple(_window(part.strip()) for part in text.split(",")) if text.strip() else ()


def within(schedule: tuple[Window, ...], now: time) -> bool:
    """Whether `now` lies in a window, or there is none."""
    return not schedule or any(
        begin <= now < end if begin < end else now >= begin or now < end for begin, end in schedule
    )


def _window(text: str) -> Window:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is no time window: write "22:00-06:30", several with commas between them.')
    hour, minute, last_hour, last_minute = (int(number) for number in found.groups())
    if (last_hour, last_minute) == (24, 0):
        last_hour = 0
    try:
        begin, end = time(hour, minute), time(last_hour, last_minute)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time window: hours go from 0 to 23, minutes from 0 to 59.") from error
    if begin == end:
        raise ValueError(f"{text!r} is no time window: it ends when it begins. Leave it empty for any time.")
    return begin, end

"""What the system refuses (memory, permissions, room on the disk, open files), told from what is wrong with a model.

Libraries wrap what the system says, or only spell it out: "... (os error 28)", "... Too many open files (24)".
"""

from __future__ import annotations

import errno
import re

_SPELLED = re.compile(r"\(os error (\d+)\)|: [A-Z][\w ]+ \((\d+)\)$", re.MULTILINE)
_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)

NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NO_MEMORY = frozenset({errno.ENOMEM})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})


def refusal(error: BaseException) -> int | None:
    """The number of the system's error in an exception itself, or None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
        return errno.ENOMEM
    spelled = _SPELLED.search(str(error))
    return int(spelled[1] or spelled[2]) if spelled else None


def mend(error: BaseException, otherwise: str) -> str:
    """What to do about an exception that came of reading a model; `otherwise`, where the system refused nothing."""
    cause: BaseException | None = error
    while cause is not None:
        number = refusal(cause)
        if number in NO_MEMORY:
            return "Close something that takes memory, or choose a smaller base."
        if number in NOT_ALLOWED:
            return "Mend the permissions there."
        if number in NO_ROOM:
            return "Make room on the disk."
        if number in TOO_MANY_FILES:
            return "Too many files are open on this machine: close something, and try again."
        cause = cause.__cause__ or cause.__context__
    return otherwise

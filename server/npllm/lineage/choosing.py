"""Which version a person means: ids are long and begin alike, so any part of one that fits no other will do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from npllm.types import AdapterVersion, CerebellumVersion, NpllmError

AnyVersion = AdapterVersion | CerebellumVersion
Version = TypeVar("Version", AdapterVersion, CerebellumVersion, AdapterVersion | CerebellumVersion)

SHORTEST = 4  # hexadecimal digits that a part must have
SHOWN = 8  # last digits, in tables


class NoSuchVersion(NpllmError):
    """What was said names no version, or several."""


def find(versions: Sequence[Version], part: str) -> Version:
    """The one version whose id is `part`, or else ends with it, or else holds it; hyphens and case do not count.

    Raises:
        NoSuchVersion: none, or several; says which.
    """
    wanted = part.replace("-", "").lower()
    if len(wanted) < SHORTEST or not all(digit in "0123456789abcdef" for digit in wanted):
        raise NoSuchVersion(
            f"{part!r} is no part of an id: at least {SHORTEST} hexadecimal digits. `npllm adapters list` shows ids."
        )
    for fits in (str.__eq__, str.endswith, str.__contains__):
        found = [version for version in versions if fits(version.id.hex, wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(str(version.id) for version in found[:6])
            raise NoSuchVersion(f"{part!r} fits {len(found)} versions ({names}): give more digits, best the last ones.")
    raise NoSuchVersion(f"No version has {part!r} in its id. `npllm adapters list` shows which there are.")


def short(version: AnyVersion, among: Iterable[AnyVersion]) -> str:
    """The last digits of its id, as many as tell it from the others."""
    others = [other.id.hex for other in among if other.id != version.id]
    size = SHOWN
    while size < 32 and any(other.endswith(version.id.hex[-size:]) for other in others):
        size += 4
    return version.id.hex[-size:]

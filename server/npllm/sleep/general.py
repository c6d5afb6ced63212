"""General code: lines that are nobody's, on which every version is judged, so that learning one person's code does not
cost what the base could do before.

Of the running Python's standard library as it lies on this machine: always the same files, always the same lines, so
that two versions are compared on the same texts. There is such code for Python alone; for other languages nothing is
judged or rehearsed (`rehearsal`), and the report says so. The starter has read the standard library, so its figures
there are low; what counts is how they change. Knows no model.
"""

from __future__ import annotations

import hashlib
import logging
import random
import sysconfig
from pathlib import Path

from npllm.sleep.project import Passage

log = logging.getLogger(__name__)

FILES = 30
PER_FILE = 2
ABOVE, BELOW = 1200, 300  # characters around the line: what a few seconds can judge
TOP = 20  # lines at the head of a file, licence and imports, are not asked
SHORTEST = 8  # characters of a line


def general(language: str, root: Path | None = None) -> tuple[tuple[Passage, ...], str]:
    """The passages for an LSP language id, and why there are none ("" if there are some).

    Args:
        root: the folder to read instead of the standard library's.
    """
    if language != "python":
        return (
            (),
            f"General code was neither rehearsed nor judged: there is none for {language or 'this context'} here.",
        )
    root = root or Path(sysconfig.get_path("stdlib"))
    made: list[Passage] = []
    files = 0
    for file in sorted(root.glob("*.py"), key=lambda file: hashlib.sha256(file.name.encode()).digest()):
        if files >= FILES:
            break
        cut = _cut(file)
        files += bool(cut)
        made += cut
    if not made:
        return (), f"General code was not judged: {root} has no Python files."
    return tuple(made), ""


def _cut(file: Path) -> list[Passage]:
    """Passages of one file, in order; none where it cannot be read or is too short."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        log.info("%s is not judged on: %s", file, error)
        return []
    worth = [
        number
        for number, line in enumerate(lines)
        if number > TOP and len(line.strip()) >= SHORTEST and not line.lstrip().startswith("#")
    ]
    if len(worth) < 10 * PER_FILE:
        return []
    made = []
    for number in sorted(random.Random(file.name).sample(worth, PER_FILE)):
        line = lines[number]
        indent = line[: len(line) - len(line.lstrip())]
        above = "\n".join([*lines[:number], indent])[-ABOVE:]
        below = "\n".join(["", *lines[number + 1 :]])[:BELOW]
        made.append(Passage(str(file.parent), file.name, above, line.strip(), below))
    return made

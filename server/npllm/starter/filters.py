"""Which files of a package are worth learning from: own code that a person wrote, and nothing else.

Judged from path and text alone. Knows nothing of licences or of duplicates.
"""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import PurePosixPath

from npllm.starter.sources import is_reserved
from npllm.starter.words import words

MIN_BYTES = 200
MAX_BYTES = 150_000

_FOREIGN_PARTS = frozenset(
    words(
        "_vendor _vendored vendor vendored _vendored_packages extern externals _extern third_party thirdparty "
        "site-packages _internal_vendored packages"
    )
)
_DATA_PARTS = frozenset(words("testdata test_data test-data data fixtures fixture snapshots golden migrations locale"))
_GENERATED_NAME = re.compile(r"_pb2(_grpc)?\.py$|_generated\.py$|^_?version\.py$|parsetab\.py$|lextab\.py$")
_GENERATED_TEXT = re.compile(
    r"generated (by|from|file|code|automatically)|auto-?generated|automatically generated|do not (edit|modify)", re.I
)


def is_own_source(path: str, reserved_too: bool = False) -> bool:
    """Whether a path inside a distribution is Python of its own: not vendored, not data, and not reserved unless
    `reserved_too`."""
    parts = PurePosixPath(path).parts
    if not path.endswith(".py") or _GENERATED_NAME.search(parts[-1]):
        return False
    if any(is_foreign_folder(part.lower()) for part in parts[:-1]):
        return False
    return reserved_too or not any(is_reserved(part.removesuffix(".py")) for part in parts)


def is_foreign_folder(name: str) -> bool:
    """Whether a folder of this name (in lower case) holds other people's code or data."""
    return name in _FOREIGN_PARTS or name in _DATA_PARTS or "third_party" in name or "vendor" in name


def has_sound_text(text: str) -> bool:
    """Whether a text, in whatever language, is readable: of a sensible size, not generated, not a table of numbers."""
    size = len(text.encode())
    if not MIN_BYTES <= size <= MAX_BYTES or _GENERATED_TEXT.search(text[:1500]):
        return False
    lines = text.split("\n")
    if max(map(len, lines)) > 400 or size / len(lines) > 100:
        return False
    if sum(c.isdigit() for c in text) > 0.15 * len(text) or sum(map(str.isalnum, text)) < 0.4 * len(text):
        return False
    return text.count("\\x") + text.count("\\u") <= len(lines) / 2


def is_worth_learning(text: str) -> bool:
    """Whether a text is real, readable, present-day Python: sound, and it parses."""
    return has_sound_text(text) and parses(text)


def parses(text: str) -> bool:
    """Whether a text is Python of the version that runs this."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def clean(raw: bytes) -> str | None:
    """The text of a source file with ``\\n`` line ends; None when it is not UTF-8."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\x00" in text:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")

"""Echoes: an earlier version of lines that are about to be written, put in front of them as a snippet.

What a person wrote before and writes again, a little changed, is what the product's memory offers most often. An echo
rewards copying so plainly that a small model learns it early, and its changes (a renamed identifier, a missing line)
teach that copying has to follow the text at hand.
"""

from __future__ import annotations

import random
import re

_NAME = re.compile(r"\b[a-z_][A-Za-z0-9_]{2,}\b")
_KEPT = frozenset(
    [
        *["and", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except"],
        *["False", "finally", "for", "from", "global", "import", "lambda", "None", "not", "pass", "raise", "return"],
        *["case", "catch", "const", "default", "delete", "export", "extends", "function", "interface", "let"],
        *["new", "null", "super", "switch", "this", "throw", "type", "typeof", "undefined", "var", "void", "string"],
        *["self", "True", "try", "while", "with", "yield", "cls", "int", "str", "len", "list", "dict", "isinstance"],
    ]
)


def echo(text: str, begin: int, end: int, rng: random.Random) -> str:
    """Four to twenty lines of `text` around its characters from `begin` to `end`, as an earlier version of them."""
    lines = text.split("\n")
    first, last = text.count("\n", 0, begin), text.count("\n", 0, end)
    last = min(last, first + 15)
    first -= rng.randint(1, 4)
    last += rng.randint(1, 4)
    kept = lines[max(0, first) : last + 1][:20]
    if len(kept) > 4 and rng.random() < 0.3:
        del kept[rng.randrange(len(kept))]
    version = "\n".join(kept).strip("\n")
    names = sorted(set(_NAME.findall(version)) - _KEPT)
    if names and rng.random() < 0.4:
        old, new = rng.choice(names), rng.choice(names) + rng.choice(("", "s", "_id", "_old", "2", "_name"))
        version = re.sub(rf"\b{old}\b", new, version)
    return version

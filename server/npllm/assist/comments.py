"""Whether the cursor is in a comment: by the language's signs, without a parser. A doc string is no comment."""

from __future__ import annotations

import re

_C = ("//",)
LINE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("python", "shellscript", "ruby", "perl", "r", "yaml", "toml", "makefile", "dockerfile", "elixir", "julia"),
        ("#",),
    ),
    **dict.fromkeys(
        ("javascript", "javascriptreact", "typescript", "typescriptreact", "java", "c", "cpp", "csharp", "go", "rust",
         "swift", "kotlin", "scala", "dart", "scss", "less", "jsonc", "zig"), _C,
    ),
    "php": ("//", "#"),
    "sql": ("--",), "lua": ("--",), "haskell": ("--",), "ini": (";", "#"), "clojure": (";",), "lisp": (";",),
    "latex": ("%",), "erlang": ("%",), "vim": ('"',),
}  # fmt: skip
BLOCK: dict[str, tuple[str, str]] = {
    **{name: ("/*", "*/") for name, signs in LINE.items() if "//" in signs},
    "css": ("/*", "*/"), "sql": ("/*", "*/"), "html": ("<!--", "-->"), "xml": ("<!--", "-->"),
    "markdown": ("<!--", "-->"), "haskell": ("{-", "-}"), "lua": ("--[[", "]]"),
}  # fmt: skip
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*(?:\"|$)|'(?:[^'\\\n]|\\.)*(?:'|$)|`(?:[^`\\]|\\.)*(?:`|$)", re.DOTALL)


def in_comment(language: str, prefix: str) -> bool:
    """Whether what is written behind `prefix` belongs to a comment.

    Signs in strings do not count, as far as one line tells: an apostrophe in a block of prose may hide one.
    """
    block = BLOCK.get(language)
    if block is not None:
        begin, end = prefix.rfind(block[0]), prefix.rfind(block[1])
        if begin > end and not _in_string(prefix[prefix.rfind("\n", 0, begin) + 1 : begin]):
            return True
    signs = LINE.get(language, ())
    line = prefix.rpartition("\n")[2]
    if not signs or not any(sign in line for sign in signs):
        return False
    bare = _STRING.sub("", line) if language != "vim" else line
    return any(re.search(sign if sign == "//" else r"(?:^|[\s;{}(),])" + re.escape(sign), bare) for sign in signs)


def _in_string(line: str) -> bool:
    """Whether a string that begins in `line` is open at its end."""
    found = list(_STRING.finditer(line))
    if not found or found[-1].end() < len(line):
        return False
    last = found[-1][0]
    return len(last) < 2 or last[-1] != last[0]

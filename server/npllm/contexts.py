"""Which contexts a place belongs to, by rule: its project, the frameworks its file uses, its language, and all code.

An experience belongs to several at once, and there is one adapter family for each. Rules alone, no model: what a file
imports names its frameworks, what the editor says names its language and project. Pure; every room may use it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from npllm.types import GENERIC_CONTEXT, Place

KINDS = ("project", "framework", "language", GENERIC_CONTEXT)  # the most specific first

# Top module of an import -> framework. The order is that of the contexts: what shapes most of a file's code first.
_PYTHON = {
    "django": "django",
    "rest_framework": "django",
    "flask": "flask",
    "fastapi": "fastapi",
    "starlette": "starlette",
    "aiohttp": "aiohttp",
    "tornado": "tornado",
    "sqlalchemy": "sqlalchemy",
    "pydantic": "pydantic",
    "torch": "pytorch",
    "tensorflow": "tensorflow",
    "keras": "tensorflow",
    "jax": "jax",
    "sklearn": "scikit-learn",
    "pandas": "pandas",
    "numpy": "numpy",
    "click": "click",
    "textual": "textual",
    "pytest": "pytest",
    "unittest": "unittest",
}
_SCRIPT = {
    "next": "next",
    "react": "react",
    "preact": "react",
    "vue": "vue",
    "svelte": "svelte",
    "@angular": "angular",
    "express": "express",
    "@nestjs": "nest",
    "vscode": "vscode",
    "jest": "jest",
    "@jest": "jest",
    "vitest": "vitest",
    "mocha": "mocha",
    "@playwright": "playwright",
}
_FRAMEWORKS: Mapping[str, Mapping[str, str]] = {
    "python": _PYTHON,
    **dict.fromkeys(("javascript", "javascriptreact", "typescript", "typescriptreact", "vue", "svelte"), _SCRIPT),
}
_PYTHON_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([A-Za-z_]\w*)", re.MULTILINE)
_SCRIPT_IMPORT = re.compile(r"""(?:\bfrom|\bimport|\brequire\s*\(|\bimport\s*\()\s*["'](@?[\w-]+)""")
MOST_FRAMEWORKS = 3  # of one file
MOST_TEXT = 20_000  # characters that are looked through: imports stand at the top
SAME = 0.9  # a context with such a share of all experiences is no other than all


def of(place: Place, text: str) -> tuple[str, ...]:
    """The contexts of a place, the most specific first: "project:/w", "framework:pytest", "language:python", "generic".

    Args:
        text: of its file, or what is known of it.
    """
    project = (f"project:{place.project}",) if place.project else ()
    return (*project, *frameworks(place.language, text), language(place.language), GENERIC_CONTEXT)


def language(name: str) -> str:
    """The context of an LSP language id; "plaintext" where the editor names none."""
    return f"language:{name or 'plaintext'}"


def frameworks(language: str, text: str) -> tuple[str, ...]:
    """The frameworks that a file imports, at most `MOST_FRAMEWORKS`."""
    table = _FRAMEWORKS.get(language)
    if table is None:
        return ()
    pattern = _PYTHON_IMPORT if language == "python" else _SCRIPT_IMPORT
    imported = set(pattern.findall(text[:MOST_TEXT]))
    found = dict.fromkeys(name for module, name in table.items() if module in imported)
    return tuple(f"framework:{name}" for name in found)[:MOST_FRAMEWORKS]


def kind(context: str) -> str:
    """One of `KINDS`."""
    return context.partition(":")[0]


def wider(one: str, other: str) -> bool:
    """Whether a context is of a more general kind than another."""
    return KINDS.index(kind(one)) > KINDS.index(kind(other))


def kinds(setting: str) -> tuple[str, ...]:
    """What `sleep.families` names."""
    return KINDS if setting == "all" else tuple(setting.split("+"))


def trained(counts: Mapping[str, int], kinds: Collection[str]) -> tuple[str, ...]:
    """Which contexts deserve an adapter family of their own, the most general first.

    Left out are those of other kinds, and those that would be the same as another: a person with one project needs no
    second adapter for it, and one with one language no second adapter for all code.

    Args:
        counts: experiences by context.
        kinds: those of `KINDS` that are to be trained.
    """
    total = max(counts.values(), default=0)
    most = max((count for name, count in counts.items() if kind(name) == "language"), default=0)

    def deserves(name: str) -> bool:
        if kind(name) == "language":
            return True
        return (most if name == GENERIC_CONTEXT else counts[name]) < SAME * total

    found = [name for name in counts if kind(name) in kinds and deserves(name)]
    return tuple(sorted(found, key=lambda name: (-KINDS.index(kind(name)), -counts[name], name)))

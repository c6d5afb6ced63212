"""Which nodes of a syntax tree are definitions, by language, and the tree-sitter grammars that know them.

A grammar is imported when its language is first met. A language without one here is cut at blank lines (`chunks`).
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser

#: Languages in which code of the one is of use in the other.
FAMILIES = (
    frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact"}),
    frozenset({"c", "cpp"}),
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """Where a grammar is, and its node types that define something."""

    module: str
    definitions: frozenset[str]
    function: str = "language"


def _grammar(module: str, definitions: str, function: str = "language") -> Grammar:
    return Grammar(module, frozenset(definitions.split()), function)


_SCRIPT = "function_declaration generator_function_declaration class_declaration method_definition"
_TYPED = (
    f"{_SCRIPT} abstract_class_declaration interface_declaration type_alias_declaration enum_declaration "
    "method_signature internal_module"
)
_C = "function_definition struct_specifier union_specifier enum_specifier type_definition"
GRAMMARS: dict[str, Grammar] = {
    "python": _grammar("tree_sitter_python", "function_definition class_definition decorated_definition"),
    "javascript": _grammar("tree_sitter_javascript", _SCRIPT),
    "javascriptreact": _grammar("tree_sitter_javascript", _SCRIPT),
    "typescript": _grammar("tree_sitter_typescript", _TYPED, "language_typescript"),
    "typescriptreact": _grammar("tree_sitter_typescript", _TYPED, "language_tsx"),
    "go": _grammar("tree_sitter_go", "function_declaration method_declaration type_declaration"),
    "rust": _grammar(
        "tree_sitter_rust",
        "function_item struct_item enum_item union_item trait_item impl_item mod_item macro_definition",
    ),
    "java": _grammar(
        "tree_sitter_java",
        "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration "
        "method_declaration constructor_declaration",
    ),
    "c": _grammar("tree_sitter_c", _C),
    "cpp": _grammar("tree_sitter_cpp", f"{_C} class_specifier template_declaration namespace_definition"),
}


def family(language: str) -> tuple[str, ...]:
    """The languages whose code is of use in `language`, itself among them."""
    return next((tuple(sorted(one)) for one in FAMILIES if language in one), (language,))


@functools.cache
def parser(language: str) -> Parser | None:
    """A parser, for one thread; None where no grammar is known, or it is not installed."""
    grammar = GRAMMARS.get(language)
    if grammar is None:
        return None
    try:
        from tree_sitter import Language, Parser

        found = getattr(importlib.import_module(grammar.module), grammar.function)()
        return Parser(Language(found))
    except (ImportError, AttributeError, ValueError):  # ValueError: a grammar of another age than the library
        return None

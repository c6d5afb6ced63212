"""Which JavaScript and TypeScript files are worth learning from: what a person wrote, never what a tool put out.

Judged from path and text alone, without a parser. Most npm packages carry compiled, bundled or minified copies of
their sources; those copies are recognised by their folders, their names, and the marks that compilers leave.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from npllm.starter.filters import has_sound_text, is_foreign_folder
from npllm.starter.words import words

_SUFFIXES = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
_DECLARATIONS = (".d.ts", ".d.mts", ".d.cts")
#: Folders that hold what a tool put out, or other people's code.
_OUTPUT_PARTS = frozenset(
    words(
        "amd browser build builds built bundle bundles cjs compiled _cjs _esm commonjs dist dists dist-src "
        "distribution es es5 es6 es2015 esm esnext fesm2015 generated _generated __generated__ gen legacy min "
        "node_modules out output prebuilt public release standalone umd wasm web"
    )
)
_DATA_PARTS = frozenset(words("__fixtures__ __snapshots__ cldr i18n lang languages locale locales l10n mocks"))
_OUTPUT_NAME = re.compile(
    r"[.-](min|bundle|umd|cjs|iife|prod|production|development|generated|esm|es5|es)\.[cm]?[jt]sx?$|^(version|parser\.tab)\.",
    re.I,
)
#: Marks of compilers and bundlers, and of Flow, whose types are no TypeScript.
_OUTPUT_TEXT = re.compile(
    r"sourceMappingURL=|\"__esModule\"|'__esModule'|__webpack_require__|_interopRequire|__importDefault|__awaiter|"
    r"__assign\b|_classCallCheck|_createClass\(|regeneratorRuntime|tslib_1|@babel/runtime|_jsx?s?\(|"
    r"^// (node_modules|src|lib|packages)/|/\*[\s*!]*@flow|^// @flow|Symbol\.toStringTag, \{ value: .Module",
    re.M,
)


def is_own_script(path: str) -> bool:
    """Whether a path inside a package, without the folder `package`, is a script of its own and no tool's output."""
    parts = PurePosixPath(path).parts
    if not parts or not parts[-1].endswith(_SUFFIXES) or _OUTPUT_NAME.search(parts[-1]):
        return False
    folders = {part.lower() for part in parts[:-1]}
    if folders & _OUTPUT_PARTS or folders & _DATA_PARTS:
        return False
    return not any(is_foreign_folder(folder) for folder in folders)


def is_declaration(path: str) -> bool:
    """Whether a file declares types only (`.d.ts`); packages are full of these and they all look alike."""
    return path.endswith(_DECLARATIONS)


def is_typescript(path: str) -> bool:
    """Whether a file is TypeScript."""
    return path.endswith((".ts", ".mts", ".cts", ".tsx"))


def is_script_worth_learning(text: str) -> bool:
    """Whether a text is readable source: no tool's mark in it, lines of a person's length, whitespace between words."""
    if not has_sound_text(text) or _OUTPUT_TEXT.search(text):
        return False
    if sum(map(str.isspace, text)) < 0.1 * len(text) or text.count(";") > 2 * text.count("\n"):
        return False
    return abs(text.count("{") - text.count("}")) <= 2 and ("{" in text or "=>" in text)

"""How an outcome came about: finer states than its kind, for people and for the store. No reward depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npllm.types import OutcomeKind

if TYPE_CHECKING:
    from npllm.feedback.case import Case

TYPED_OUT = "typed out"  # accepted, but written letter by letter
INSERTED = "by other means"  # accepted, but put there by something else: pasted, by another extension
UNDONE = "undone"  # deleted in one go, all of it
MOVED_AWAY = "moved away"  # the person went on elsewhere
TOO_LATE = "too late"  # the document had changed before it could be shown


def detail(case: Case, kind: OutcomeKind) -> str:
    """How `kind` came about; "" where the kind says it all."""
    match kind:
        case OutcomeKind.ACCEPTED if not case.by_key:
            return INSERTED if case.inserted else TYPED_OUT
        case OutcomeKind.PARTIALLY_ACCEPTED:
            return _unit(case)
        case OutcomeKind.DELETED if case.removed or case.part_undone:
            return UNDONE
        case OutcomeKind.REJECTED if case.typed:
            return f"typed through {case.typed} characters"
        case OutcomeKind.IGNORED | OutcomeKind.UNSEEN if case.moved or case.blurred:
            return MOVED_AWAY
        case OutcomeKind.UNSEEN if case.late:
            return TOO_LATE
    return ""


def _unit(case: Case) -> str:
    """What was taken of it: lines, words or characters."""
    head, rest = case.text[: case.taken], case.text[case.taken :]
    if "\n" in head.strip() and (not rest or rest.startswith("\n") or head.endswith("\n")):
        return "lines"
    inside = bool(rest) and _wordlike(head[-1:]) and _wordlike(rest[0])
    return "characters" if inside else "words"


def _wordlike(char: str) -> bool:
    return char.isalnum() or char == "_"

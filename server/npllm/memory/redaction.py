"""Redaction: secrets are replaced before anything is written down, embedded, stored or trained on.

Two passes over the same text: own patterns (`secret_patterns`), then detect-secrets line by line, with its lines'
verdicts kept, as the same lines come again and again. A secret becomes `<secret:KIND>` where it stood: the quotes, the
name before it and the lines around it stay. A record is looked at as one document, what stands before the cursor, what
was written and what follows, for a secret may lie across them; the placeholder goes where most of it lay. Redacting
twice is redacting once. Works in whichever thread calls it; knows no file and no database.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from npllm.memory import second_pass as detect_secrets
from npllm.memory.secret_patterns import KINDS
from npllm.memory.secret_shapes import PLACEHOLDER, half_written
from npllm.types import Experience, Feedback, HeldBack, JournalRecord, Outcome, Sign, Suggestion

log = logging.getLogger(__name__)

CONFIG_LANGUAGES = frozenset(
    "yaml dockercompose dotenv properties ini toml dockerfile shellscript makefile plaintext markdown bat powershell "
    "terraform hcl helm env conf git-commit".split()
)
KNOWN = 2000  # suggestions whose surroundings are known when their outcomes come
AROUND = 2000  # characters of them, before and behind
SHORT = 20_000  # characters of a text whose secrets are remembered for a while, in memory alone
BEFORE = 100  # characters before a value that may name it
_DONE = re.compile(re.escape(PLACEHOLDER) + r"[a-z0-9-]+>")


@dataclass(frozen=True, slots=True)
class Found:
    """A secret at `[start, end)` of a text."""

    start: int
    end: int
    kind: str


def find(text: str, language: str = "", *, second_pass: bool = True) -> tuple[Found, ...]:
    """The secrets in a text, in order, none within another.

    Args:
        language: LSP language id; "" = unknown. In configuration and prose, values without quotes count.
        second_pass: ask detect-secrets, too.
    """
    found = _by_patterns(text, language)
    if second_pass:
        found += [Found(*one) for one in detect_secrets.find(text, _bare(language))]
    if done := [match.span() for match in _DONE.finditer(text)]:
        found = [one for one in found if not any(one.start < end and start < one.end for start, end in done)]
    found.sort(key=lambda one: (one.start, -one.end))
    kept: list[Found] = []
    for one in found:
        if kept and one.start < kept[-1].end:  # of two that overlap, the hull, called as the first
            last = kept[-1]
            kept[-1] = Found(last.start, max(last.end, one.end), last.kind)
        else:
            kept.append(one)
    return tuple(kept)


def redact(text: str, language: str = "", *, second_pass: bool = True) -> str:
    """A text with its secrets replaced."""
    return redact_parts((text,), language, second_pass=second_pass)[0]


def redact_parts(parts: Sequence[str], language: str = "", *, second_pass: bool = True) -> tuple[str, ...]:
    """Texts that follow one another in a document, with its secrets replaced; as many as were given."""
    found = _in_parts(parts, language, second_pass=second_pass)
    return tuple(map(_replaced, parts, found))


@dataclass(frozen=True, slots=True)
class _Share:
    """What of a secret lies in one part. `home`: most of it."""

    start: int
    end: int
    kind: str
    home: bool


# A suggestion, what became of it and its experience lie in the same text, minutes apart at most.
_find_again = functools.lru_cache(maxsize=32)(find)


def _in_parts(parts: Sequence[str], language: str, *, second_pass: bool = True) -> list[list[_Share]]:
    """The shares of each part, by the part's own offsets."""
    whole = "".join(parts)
    look = _find_again if len(whole) < SHORT else find
    found = look(whole, language, second_pass=second_pass)
    shares: list[list[_Share]] = [[] for _ in parts]
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part))
    for one in found:
        sizes = [min(one.end, end) - max(one.start, begin) for begin, end in itertools.pairwise(bounds)]
        home = sizes.index(max(sizes))
        for number, size in enumerate(sizes):
            if size > 0:
                start = max(one.start - bounds[number], 0)
                shares[number].append(_Share(start, start + size, one.kind, number == home))
    return shares


def _replaced(text: str, shares: Sequence[_Share]) -> str:
    pieces: list[str] = []
    at = 0
    placed = -1  # where the last placeholder's secret ends
    for share in sorted(shares, key=lambda share: (share.start, -share.end)):
        if share.start >= at:
            pieces.append(text[at : share.start])
        if share.home and share.start >= placed:
            pieces.append(f"{PLACEHOLDER}{share.kind}>")
            placed = max(share.end, at)
        at = max(at, share.end)
    return "".join([*pieces, text[at:]])


class Redactor:
    """Redacts records. Remembers, in memory alone, what stood around recent suggestions: an outcome is a bare text."""

    def __init__(self) -> None:
        self._around: OrderedDict[UUID, tuple[str, str, str]] = OrderedDict()
        self._mutex = threading.Lock()

    def record(self, record: JournalRecord) -> JournalRecord:
        """A record with its secrets replaced; everything else is as it was."""
        try:
            return self._redacted(record)
        except Exception:  # neither is a record lost, nor a text written down that nobody has looked at
            log.exception("a record could not be looked through; it is written down without its texts")
            return _wordless(record)

    def knows(self, suggestion: UUID) -> bool:
        """Whether it remembers what stood around it."""
        with self._mutex:
            return suggestion in self._around

    def _redacted(self, record: JournalRecord) -> JournalRecord:
        match record:
            case Suggestion():
                self._remember(record)
                prefix, text, suffix = self._document(record, record.text)
                return replace(record, prefix=prefix, text=text, suffix=suffix)
            case Experience():
                prefix, final_text, suffix = self._document(record, record.final_text)
                _, suggested, _ = self._document(record, record.suggested)
                final_text = _without_half(final_text)
                return replace(record, prefix=prefix, final_text=final_text, suggested=suggested, suffix=suffix)
            case Outcome():
                before, after, language = self._around.get(record.suggestion_id, ("", "", ""))
                _, suggested, _ = redact_parts((before, record.suggested, after), language)
                _, final_text, _ = redact_parts((before, record.final_text, after), language)
                return replace(record, suggested=suggested, final_text=_without_half(final_text))
            case Feedback():
                return replace(record, comment=redact(record.comment, "plaintext"))
            case HeldBack() | Sign():  # hold no text
                return record

    def _document(self, record: Suggestion | Experience, written: str) -> tuple[str, str, str]:
        """What stood before the cursor, what was written there, and what stood behind it."""
        language = record.place.language
        before, written_here, behind = _in_parts((record.prefix, written, record.suffix), language)
        # And as it was before anything was written there: a secret may go on behind the cursor.
        also_before, also_behind = _in_parts((record.prefix, record.suffix), language)
        prefix = _replaced(record.prefix, before + also_before)
        suffix = _replaced(record.suffix, behind + also_behind)
        return _without_half(prefix), _replaced(written, written_here), suffix

    def _remember(self, suggestion: Suggestion) -> None:
        with self._mutex:
            around = (suggestion.prefix[-AROUND:], suggestion.suffix[:AROUND], suggestion.place.language)
            self._around[suggestion.id] = around
            while len(self._around) > KNOWN:
                self._around.popitem(last=False)


def _without_half(text: str) -> str:
    """A text without the secret that is only half written at its end."""
    begin = half_written(text)
    return text if begin == len(text) else f"{text[:begin]}{PLACEHOLDER}half>"


def _wordless(record: JournalRecord) -> JournalRecord:
    match record:
        case Suggestion():
            return replace(record, prefix="", text="", suffix="")
        case Experience():
            return replace(record, prefix="", final_text="", suggested="", suffix="")
        case Outcome():
            return replace(record, suggested="", final_text="")
        case Feedback():
            return replace(record, comment="")
        case HeldBack() | Sign():
            return record


def _by_patterns(text: str, language: str) -> list[Found]:
    lowered = text.lower()
    bare = _bare(language)
    found: list[Found] = []
    for kind in KINDS:
        if (kind.config_only and not bare) or not any(hint in lowered for hint in kind.hints or ("",)):
            continue
        for match in kind.pattern.finditer(text):
            group = "s" if "s" in kind.pattern.groupindex else 0
            start, end = match.span(group)
            start += len(match[group]) - len(match[group].lstrip())
            end -= len(match[group]) - len(match[group].rstrip())
            if start >= end or PLACEHOLDER in match[group] or not kind.accepts(match[group]):
                continue
            line = text[max(text.rfind("\n", 0, match.start()) + 1, match.start() - BEFORE) : match.start()]
            if kind.before is None or kind.before.search(line):
                found.append(Found(start, end, kind.name))
    return found


def _bare(language: str) -> bool:
    """Whether values may stand without quotes."""
    return not language or language in CONFIG_LANGUAGES

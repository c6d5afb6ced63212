"""What the person says: emoji, thumbs and comments in English or Portuguese, as three feelings and one reward.

The tables of `npllm.feedback.lexicon` first; VADER (Hutto & Gilbert 2014) for English prose that they do not know.
The reward is satisfaction or confidence in [0.8, 1], or minus frustration in [-1, 0], by intensity. Irony is not
understood.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import emoji as emoji_library

from npllm.feedback.lexicon import (
    ALONE,
    EMOJI,
    FILLERS,
    NEGATION,
    PHRASES,
    PORTUGUESE,
    SIGNS,
    STRONGER,
    WEAKER,
    Feeling,
)

LONGEST_COMMENT = 2000  # characters that are read
VADER_FLOOR = 0.2  # |compound| below which VADER's word counts as silence
REACH = 3  # words before a phrase that may turn it round or change how strong it is
NEGATED_GLAD: Feeling = (0.0, 0.0, 0.6)
NEGATED_WRONG: Feeling = (0.5, 0.2, 0.0)
_WORD = re.compile(r"[\w']+")
_CLAUSE = re.compile(r"[.,;:!?\n()]+|\b(?:but|mas|porem|though)\b")
_LONGEST = max(len(phrase.split()) for phrase in PHRASES)


@dataclass(frozen=True, slots=True)
class Emotion:
    """Feelings in [0, 1] and the emotional reward in [-1, 1]."""

    satisfaction: float
    confidence: float
    frustration: float
    reward: float


def interpret(emoji: str, comment: str, prose: Feeling | None = None) -> Emotion:
    """What an emoji and a comment say together; neutral (reward 0) where they say nothing we know.

    Args:
        prose: what the comment's words say, where that is known better than from the tables here.
    """
    comment = comment[:LONGEST_COMMENT]
    symbols = _symbols(f"{emoji} {comment}")
    said = [_scaled(EMOJI[symbol], 1.2 if symbols.count(symbol) > 2 else 1.0) for symbol in symbols if symbol in EMOJI]
    if prose is not None:
        said.append(prose)
        comment = ""
    plain = _fold(comment)
    loud = 1.2 if "!" in comment or (comment.isupper() and len(plain) > 4) else 1.0
    for clause in _CLAUSE.split(plain):
        said += [_scaled(feeling, loud) for feeling in _clause(_WORD.findall(clause or ""))]
    if not said and plain.strip() and not PORTUGUESE & set(_WORD.findall(plain)):
        said += _prose(comment)
    satisfaction = max((feeling[0] for feeling in said), default=0.0)
    confidence = max((feeling[1] for feeling in said), default=0.0)
    frustration = max((feeling[2] for feeling in said), default=0.0)
    return Emotion(satisfaction, confidence, frustration, _reward(satisfaction, confidence, frustration))


def _reward(satisfaction: float, confidence: float, frustration: float) -> float:
    glad = max(satisfaction, confidence)
    if frustration == 0.0:
        return glad
    return (glad - frustration) / 2.0 if glad else -frustration  # mixed feelings lie between


def _symbols(text: str) -> list[str]:
    """The emoji in a text, also those written as ":thumbsup:" or ":)"."""
    signs = [SIGNS[word] for word in text.lower().split() if word in SIGNS]
    found = emoji_library.emoji_list(emoji_library.emojize(text, language="alias"))
    return signs + [_bare(match["emoji"]) for match in found]


def _bare(symbol: str) -> str:
    """An emoji without variation selectors, skin tones and what is joined to it."""
    symbol = symbol.split("\u200d")[0]
    return "".join(char for char in symbol if char != "\ufe0f" and not "\U0001f3fb" <= char <= "\U0001f3ff")


def _clause(words: list[str]) -> list[Feeling]:
    """The feelings in one clause: phrases, longest first, turned round by "not", strengthened by "very"."""
    rest = [word for word in words if word not in FILLERS]
    if rest and rest[-1] in ALONE and NEGATION.issuperset(rest[:-1]):
        return [_in_context(ALONE[rest[-1]], rest[:-1], [])]
    found: list[Feeling] = []
    at = 0
    while at < len(words):
        for size in range(min(_LONGEST, len(words) - at), 0, -1):
            feeling = PHRASES.get(" ".join(words[at : at + size]))
            if feeling is not None:
                found.append(_in_context(feeling, words[max(0, at - REACH) : at], words[at + size : at + size + 1]))
                at += size - 1
                break
        at += 1
    return found


def _in_context(feeling: Feeling, before: list[str], after: list[str]) -> Feeling:
    around = {*before, *after}
    if NEGATION & set(before):
        feeling = NEGATED_GLAD if feeling[2] == 0.0 else NEGATED_WRONG
    elif STRONGER & around:
        feeling = _scaled(feeling, 1.2)
    return _scaled(feeling, 0.6, only_frustration=True) if WEAKER & around else feeling


def _scaled(feeling: Feeling, factor: float, *, only_frustration: bool = False) -> Feeling:
    glad = 1.0 if only_frustration else factor
    return min(1.0, feeling[0] * glad), min(1.0, feeling[1] * glad), min(1.0, feeling[2] * factor)


def _fold(text: str) -> str:
    """Lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
    return "".join(char for char in plain if not unicodedata.combining(char))


def _prose(comment: str) -> list[Feeling]:
    compound = float(_vader().polarity_scores(comment)["compound"])
    if compound >= VADER_FLOOR:
        return [(0.6 + 0.4 * compound, 0.3 * compound, 0.0)]
    return [(0.0, 0.0, -compound)] if compound <= -VADER_FLOOR else []


@functools.cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()

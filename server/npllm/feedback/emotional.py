"""What the person says: emoji, thumbs and comments in English or Portuguese, as three feelings and one reward.

Own tables first, since sentiment lexicons know neither "LGTM" nor thumbs; VADER as the fallback for English prose.
The reward is (satisfaction or confidence) in [0.8, 1], or minus frustration in [-1, 0], by intensity.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import emoji as emoji_library

# (satisfaction, confidence, frustration), each in [0, 1]
EMOJI: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys("👍 🙂 😊 😀 😃 😄 😁 ☺ 👌 🆗 💚 💙 🧡 💛 🤗 😌 🙏 👋 ✔ ☑".split(), (0.8, 0.3, 0.0)),
    **dict.fromkeys("❤ 😍 🥰 🤩 🎉 🥳 🔥 ⭐ 🌟 ✨ 👏 🙌 💯 🏆 🚀 😻 💖 🤯".split(), (1.0, 0.6, 0.0)),
    **dict.fromkeys("🎯 💪 ✅ 😎 🧠 💡 🤝 🥇 🫡".split(), (0.8, 1.0, 0.0)),
    **dict.fromkeys("😐 😶 🤷 😑 🫤 🤨".split(), (0.0, 0.0, 0.2)),
    **dict.fromkeys("🤔 😕 🙁 ☹ 😟 😬 🙄 😒 ❓ ⁉".split(), (0.0, 0.0, 0.4)),
    **dict.fromkeys("👎 😞 😔 😩 😫 😖 😣 🤦 ❌ ✖ 🚫 😓 💔 😢".split(), (0.0, 0.0, 0.7)),
    **dict.fromkeys("😡 😠 🤬 💩 🤮 😤 👿 🗑 😭 ☠ 🖕 💢".split(), (0.0, 0.0, 1.0)),
}

PHRASES: dict[str, tuple[float, float, float]] = {
    # English
    **dict.fromkeys(
        (
            "lgtm|looks good|nice|good|good one|great|thanks|thank you|thx|helpful|useful|works|it works|that works|"
            "well done|good job|neat|cool|like it|better|ok|okay|fine|yes"
        ).split("|"),
        (0.8, 0.3, 0.0),
    ),
    **dict.fromkeys(
        (
            "perfect|excellent|awesome|amazing|brilliant|love it|love this|fantastic|wonderful|wow|"
            "exactly what i wanted|"
            "saved me|best"
        ).split("|"),
        (1.0, 0.8, 0.0),
    ),
    **dict.fromkeys(
        "exactly|correct|right|spot on|precisely|as expected|that's it|thats it|ship it|on point|nailed it".split("|"),
        (0.85, 1.0, 0.0),
    ),
    **dict.fromkeys(
        "meh|so so|not sure|maybe|confusing|unclear|odd|strange|almost|close|not quite".split("|"), (0, 0, 0.3)
    ),
    **dict.fromkeys(
        (
            "bad|wrong|incorrect|not good|not right|no|nope|does not work|doesn't work|doesnt work|not working|broken|"
            "buggy|useless|not helpful|worse|annoying|nonsense|outdated|deprecated|irrelevant|"
            "not what i wanted|wrong again"
        ).split("|"),
        (0, 0, 0.7),
    ),
    **dict.fromkeys(
        (
            "terrible|horrible|awful|hate it|hate this|garbage|rubbish|stupid|wtf|stop it|stop this|never again|worst|"
            "crap|shit"
        ).split("|"),
        (0, 0, 1.0),
    ),
    # Portuguese
    **dict.fromkeys(
        (
            "bom|boa|legal|bacana|gostei|obrigado|obrigada|valeu|funciona|funcionou|ajudou|util|beleza|show|"
            "certo demais|"
            "melhor|sim|muito bom|muito boa|fixe|porreiro"
        ).split("|"),
        (0.8, 0.3, 0.0),
    ),
    **dict.fromkeys(
        "otimo|otima|perfeito|perfeita|excelente|maravilha|incrivel|adorei|amei|fantastico|genial|espetacular|sensacional".split(
            "|"
        ),
        (1.0, 0.8, 0.0),
    ),
    **dict.fromkeys(
        "exato|exatamente|correto|certo|isso mesmo|isso ai|na mosca|como esperado".split("|"), (0.85, 1.0, 0.0)
    ),
    **dict.fromkeys("mais ou menos|talvez|confuso|estranho|quase|nao sei|esquisito".split("|"), (0, 0, 0.3)),
    **dict.fromkeys(
        (
            "ruim|errado|errada|incorreto|nao|nao funciona|nao funcionou|nao gostei|nao presta|nao ajudou|nao e isso|"
            "quebrado|"
            "inutil|pior|chato|nada a ver|mau|ma ideia"
        ).split("|"),
        (0, 0, 0.7),
    ),
    **dict.fromkeys(
        (
            "pessimo|pessima|horrivel|terrivel|odiei|odeio|lixo|que raiva|merda|porcaria|droga|para com isso|nunca mais"
        ).split("|"),
        (0, 0, 1.0),
    ),
}

_STRONGER = {"very", "really", "so", "totally", "absolutely", "extremely", "muito", "demais", "super", "totalmente"}
_NEGATION = {"not", "never", "isn't", "isnt", "wasn't", "don't", "dont", "nao", "nunca", "nem", "no"}
_WORD = re.compile(r"[\w']+")
_LONGEST = max(len(phrase.split()) for phrase in PHRASES)
VADER_FLOOR = 0.2  # |compound| below which VADER's word counts as silence


@dataclass(frozen=True, slots=True)
class Emotion:
    """Feelings in [0, 1] and the emotional reward in [-1, 1]."""

    satisfaction: float
    confidence: float
    frustration: float
    reward: float


def interpret(emoji: str, comment: str) -> Emotion:
    """What an emoji and a comment say together; neutral (reward 0) where they say nothing we know."""
    said = [feeling for symbol in _symbols(f"{emoji} {comment}") if (feeling := EMOJI.get(symbol)) is not None]
    said += _phrases(comment)
    if not said and comment.strip():
        said += _prose(comment)
    satisfaction = max((feeling[0] for feeling in said), default=0.0)
    confidence = max((feeling[1] for feeling in said), default=0.0)
    frustration = max((feeling[2] for feeling in said), default=0.0)
    return Emotion(satisfaction, confidence, frustration, _reward(satisfaction, confidence, frustration))


def _reward(satisfaction: float, confidence: float, frustration: float) -> float:
    glad = max(satisfaction, confidence)
    if frustration == 0.0:
        return glad
    if glad == 0.0:
        return -frustration
    return (glad - frustration) / 2.0  # mixed feelings


def _symbols(text: str) -> list[str]:
    return [_bare(match["emoji"]) for match in emoji_library.emoji_list(text)]


def _bare(symbol: str) -> str:
    """An emoji without variation selectors, skin tones and what is joined to it."""
    symbol = symbol.split("\u200d")[0]
    return "".join(char for char in symbol if char != "\ufe0f" and not "\U0001f3fb" <= char <= "\U0001f3ff")


def _phrases(comment: str) -> list[tuple[float, float, float]]:
    """Phrases of the tables, longest first; "not" before one turns it round, "very" makes it stronger."""
    words = _WORD.findall(_fold(comment))
    found: list[tuple[float, float, float]] = []
    at = 0
    while at < len(words):
        for size in range(min(_LONGEST, len(words) - at), 0, -1):
            feeling = PHRASES.get(" ".join(words[at : at + size]))
            if feeling is None:
                continue
            # A lone "no" or "nao" before a word that is known belongs to that word.
            if size == 1 and words[at] in _NEGATION and any(word in PHRASES for word in words[at + 1 : at + 4]):
                continue
            before = words[max(0, at - 2) : at]
            if any(word in _NEGATION for word in before):
                feeling = (0.0, 0.0, 0.6) if feeling[2] == 0.0 else (0.5, 0.2, 0.0)
            elif any(word in _STRONGER for word in before) or "!" in comment:
                feeling = tuple(min(1.0, value * 1.2) for value in feeling)  # type: ignore[assignment]
            found.append(feeling)
            at += size - 1
            break
        at += 1
    return found


def _fold(text: str) -> str:
    """Lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
    return "".join(char for char in plain if not unicodedata.combining(char))


def _prose(comment: str) -> list[tuple[float, float, float]]:
    compound = float(_vader().polarity_scores(comment)["compound"])
    if compound >= VADER_FLOOR:
        return [(0.6 + 0.4 * compound, 0.3 * compound, 0.0)]
    return [(0.0, 0.0, -compound)] if compound <= -VADER_FLOOR else []


@functools.cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()

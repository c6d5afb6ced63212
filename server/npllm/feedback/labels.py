"""What the labels of text classifiers mean: polarity in English or Portuguese, stars, emotions (Ekman's, GoEmotions').

With p(l) the probability of label l and f(l) what it means as (satisfaction, confidence, frustration), a text means

    sum_l p(l) f(l),   the weaker of gladness and frustration left out where it is below a quarter of the stronger,

and nothing where half or more of the probability lies on labels that mean nothing (neutral, surprise). GoEmotions:
Demszky et al. 2020, 2005.00547.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from npllm.feedback.lexicon import Feeling

NOTHING: Feeling = (0.0, 0.0, 0.0)
RESIDUE = 0.25  # of the stronger side, below which the weaker one is noise
_STARS = re.compile(r"([1-5]) ?(?:stars?|estrelas?)")
_BY_STARS: tuple[Feeling, ...] = ((0.0, 0.0, 1.0), (0.0, 0.0, 0.7), NOTHING, (0.8, 0.3, 0.0), (1.0, 0.5, 0.0))


def _all(names: str, feeling: Feeling) -> dict[str, Feeling]:
    return dict.fromkeys(names.split(), feeling)


_MEANING: dict[str, Feeling] = {
    **_all("positive pos positivo positiva satisfaction satisfied satisfeito satisfeita", (1.0, 0.3, 0.0)),
    **_all("admiration gratitude joy love alegria amor gratidao admiracao", (1.0, 0.5, 0.0)),
    **_all("amusement caring excitement optimism pride relief happiness felicidade", (0.9, 0.3, 0.0)),
    **_all("approval trust confidence confident aprovacao confianca", (0.8, 0.9, 0.0)),
    **_all("negative neg negativo negativa", (0.0, 0.0, 0.8)),
    **_all("anger disgust frustration frustrated raiva nojo frustracao furia", (0.0, 0.0, 1.0)),
    **_all("annoyance irritacao grief remorse", (0.0, 0.0, 0.8)),
    **_all("disappointment disapproval sadness decepcao desaprovacao tristeza", (0.0, 0.0, 0.7)),
    **_all("fear nervousness embarrassment medo", (0.0, 0.0, 0.5)),
    **_all("confusion confusao", (0.0, 0.0, 0.3)),
    **_all("neutral neu neutro neutra curiosity desire realization surprise surpresa curiosidade", NOTHING),
}


def meaning(label: str) -> Feeling | None:
    """What a label means; None where that is not known."""
    plain = label.strip().lower().replace("_", " ")
    for accented, bare in (("ã", "a"), ("ç", "c"), ("ú", "u")):
        plain = plain.replace(accented, bare)
    stars = _STARS.fullmatch(plain)
    return _BY_STARS[int(stars[1]) - 1] if stars else _MEANING.get(plain)


def unknown(labels: Iterable[str]) -> list[str]:
    """Those that mean nothing to us."""
    return [label for label in labels if meaning(label) is None]


def feeling(probabilities: Mapping[str, float]) -> Feeling | None:
    """What a text means by the probabilities of its labels; None where it means nothing in particular."""
    said = [(share, meaning(label) or NOTHING) for label, share in probabilities.items()]
    whole = sum(share for share, _ in said)
    if whole <= 0.0 or sum(share for share, means in said if means != NOTHING) < whole / 2:
        return None
    scale = max(1.0, whole)  # where several labels may hold at once
    satisfaction, confidence, frustration = (
        sum(share * means[side] for share, means in said) / scale for side in range(3)
    )
    glad = max(satisfaction, confidence)
    if frustration < RESIDUE * glad:
        frustration = 0.0
    elif glad < RESIDUE * frustration:
        satisfaction = confidence = 0.0
    return min(1.0, satisfaction), min(1.0, confidence), min(1.0, frustration)

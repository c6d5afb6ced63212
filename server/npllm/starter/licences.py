"""Whether a distribution's licence is permissive, judged from its own metadata.

An SPDX expression (`License-Expression`, PEP 639) is believed first; then the trove classifiers; then the free
`License` field, if it is short enough to be a name. What cannot be read is not permissive.
"""

from __future__ import annotations

import re
from email.message import Message

from npllm.starter.words import words

#: SPDX identifiers, in lower case, that allow training and redistribution with little more than attribution.
PERMISSIVE: frozenset[str] = frozenset(
    words(
        "0bsd afl-2.1 apache-2.0 blueoak-1.0.0 bsd-1-clause bsd-2-clause bsd-3-clause bsl-1.0 cc0-1.0 cnri-python "
        "hpnd isc mit mit-0 mit-cmu ncsa postgresql psf-2.0 python-2.0 python-2.0.1 unicode-3.0 unlicense upl-1.0 "
        "wtfpl x11 zlib zpl-2.1"
    )
)

_CLASSIFIERS: dict[str, str] = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "Zope Public License": "ZPL-2.1",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Academic Free License (AFL)": "AFL-2.1",
}

_FREE_TEXT: tuple[tuple[str, str], ...] = (
    (r"(?:the )?mit(?: license| licence)?|expat", "MIT"),
    (
        r"(?:new |modified |revised |3[- ]clause )?bsd(?:[- ]3[- ]clause)?(?: license)?|bsd 3-clause license",
        "BSD-3-Clause",
    ),
    (r"(?:simplified )?bsd[- ]2[- ]clause(?: license)?", "BSD-2-Clause"),
    (r"apache(?:[- ]?(?:software )?license)?,?(?:[- ]?(?:version |v)?2(?:\.0)?)?(?: license)?", "Apache-2.0"),
    (r"isc(?: license)?", "ISC"),
    (r"psf(?:[- ]?2\.0|l)?|python(?: software foundation)?(?: license)?", "PSF-2.0"),
    (r"unlicense|public domain", "Unlicense"),
    (r"hpnd", "HPND"),
    (r"zpl 2\.1", "ZPL-2.1"),
)


def licence_of(metadata: Message) -> str | None:
    """The licence that a distribution's METADATA states, as an SPDX expression; None when it states none we know."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression).strip()
    named = [str(c).split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if str(c).startswith("License ::")]
    named = [name for name in named if name != "OSI Approved"]
    if named:
        return " OR ".join(dict.fromkeys(_CLASSIFIERS.get(name, f"LicenseRef-{name}") for name in named))
    free = str(metadata.get("License") or "").strip()
    return named_licence(free)


def named_licence(free: str) -> str | None:
    """The licence behind a short free text, as an SPDX expression; None when it is no name."""
    if not free or len(free) > 60 or "\n" in free:
        return None
    if is_permissive(free):
        return free
    for pattern, name in _FREE_TEXT:
        if re.fullmatch(pattern, free, re.IGNORECASE):
            return name
    return f"LicenseRef-{free}"


def is_permissive(expression: str | None) -> bool:
    """Whether an SPDX expression is permissive: every part of an AND, and every part of an OR too.

    The OR is read as strictly as the AND, because classifiers do not say which of the two they mean.
    """
    if not expression:
        return False
    parts = re.split(r"\s+(?:AND|OR)\s+", expression.replace("(", " ").replace(")", " ").strip())
    return all(part.strip().lower() in PERMISSIVE for part in parts)

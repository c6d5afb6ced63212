"""What a value looks like that is, or is not, a secret; and where one is only half written. Pure functions of texts."""

from __future__ import annotations

import math
import re
from collections import Counter

PLACEHOLDER = "<secret:"  # + kind + ">"
SHORTEST_RANDOM = 16  # characters of a value that is a secret only if it looks random
RANDOM_BITS = 3.2  # bits per character of such a value


def is_reference(value: str) -> bool:
    """Whether a value only says where the secret is: a variable, a template, a placeholder, nothing."""
    bare = value.strip()
    if not bare or PLACEHOLDER in value or bare[0] in "$<%{[|>&*!(@" or "${" in bare or "{{" in bare or "%(" in bare:
        return True
    if bare.startswith(
        (
            "os.environ",
            "process.env",
            "env.",
            "vault:",
            "arn:",
            "secretKeyRef",
            "file:",
            "...",
            "sha256-",
            "sha384-",
            "sha512-",
        )
    ):
        return True
    if bare.endswith(("...", "…")) or (len(set(bare.lower())) <= 2 and len(bare) < 20):  # "sk-...", "xxxx", "****"
        return True
    return bare.lower() in _NOTHING


_NOTHING = frozenset("null none nil undefined true false yes no on off str string bytes int bool any optional".split())
_KEYWORDS = re.compile(r"pass|pwd|secret|token|key|auth|credential", re.IGNORECASE)


def is_words(value: str) -> bool:
    """Whether a value is a name made of words, with a number here and there: a path, a class, a model."""
    runs = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", value)
    words = [run for run in runs if not run.isdigit()]
    numbers = [run for run in runs if run.isdigit()]
    if not words or sum(map(len, words)) < 3.5 * len(words):
        return False
    return 3 * len(numbers) <= len(words) and all(len(run) <= 2 for run in numbers)


def is_password(value: str) -> bool:
    """Whether a value that is called a password may be one: not a reference, nor a name such as "new_password"."""
    bare = value.strip()
    if is_reference(bare) or len(bare) < 4:
        return False
    return not (_KEYWORDS.search(bare) and not any(c.isdigit() for c in bare) and re.fullmatch(r"[\w\s.:?!,'-]+", bare))


def is_mixed(value: str) -> bool:
    """Whether a value is a password and holds more than letters."""
    return is_password(value) and len(value) >= 6 and any(c.isdigit() for c in value) and not value.isdigit()


def is_random(value: str) -> bool:
    """Whether a value that is called a key or a token looks like one."""
    if is_reference(value) or len(value) < SHORTEST_RANDOM or not re.search(r"\d", value):
        return False
    if not re.search(r"[A-Za-z]", value) or re.search(r"[\s(){}\[\]<>,;\\]", value):
        return False
    if is_words(value):
        return False
    return entropy(value) >= RANDOM_BITS


def entropy(value: str) -> float:
    """Shannon's, in bits per character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values()) if value else 0.0


def is_base64(value: str) -> bool:
    """Whether lines of letters are base64, and not long names."""
    return sum(c.isdigit() for c in value) * 20 > len(value)


def holds_something(value: str) -> bool:
    """Whether there are letters between the lines that enclose a key."""
    return len(re.sub(r"\\[nr]|[^A-Za-z0-9]", "", value)) >= 4


# Where the cursor stands a secret may be half written; these end there. The lengths are too short for anywhere else.
_HEADS = re.compile(
    r"(?:(?:AKIA|ASIA|gh[pousr]_|github_pat_|gl(?:pat|dt|rt)-|xox[a-z]-|xapp-|[sr]k_(?:live|test)_|SG\.|sk-ant-|sk-proj-"
    r"|AIza|GOCSPX-|ya29\.|do[opr]_v1_|shp[a-z]{2}_|sq0[a-z]{3}-|ATATT3|dapi|hv[sbr]\.|pypi-Ag|eyJ|\d{8,10}:AA|AccountKey="
    r"|\$2[aby]\$\d|figd_|dckr_|ntn_|whsec_)[\w+/=.~%:-]{2,}|SK[0-9a-f]{4,}|https://hooks\.slack\.com/[\w/]{12,})$"
)
_WORDY_HEADS = re.compile(r"\b(?:npm_|hf_|sk-|key-|secret_|lin_api_|gsk_)(?P<s>[\w-]{4,})$")
_URL_HALF = re.compile(r"://[^\s/:@\"'`<>]*:(?P<s>[^\s/@\"'`<>]{3,})$")
_NUMBERED = re.compile(r"[a-z]{2,8}\d{1,4}[a-z]{0,4}")  # sha256, float32
_RUN = re.compile(r"[\w+/=.~%-]{8,}$")


def half_written(text: str) -> int:
    """Where what looks like the beginning of a secret starts, at the end of a text; the text's length if nowhere."""
    line = text[max(text.rfind("\n") + 1, len(text) - 400) :]
    begin = len(text) - len(line)
    if match := _HEADS.search(line):
        return begin + match.start()
    if (match := _WORDY_HEADS.search(line)) and not is_words(match["s"]):
        return begin + match.start()
    if (match := _URL_HALF.search(line)) and not match["s"].isdigit():
        return begin + match.start("s")
    match = _RUN.search(line)
    if match and re.search(r"\d", match[0]) and re.search(r"[A-Za-z]", match[0]) and not _is_name(match[0]):
        return begin + match.start()
    return len(text)


def _is_name(value: str) -> bool:
    """Whether a run of letters and digits is code that a person reads: dotted and snake-case names, numbers."""
    words = re.split(r"[_./=~%-]+", value)
    return entropy(value) < 2.5 or all(
        len(word) < 5 or word.isdigit() or is_words(word) or _NUMBERED.fullmatch(word) for word in words
    )

"""detect-secrets over a text, line by line, with each line's verdict kept: the same lines come again and again.

Its detectors and heuristics are called one by one, so that nothing is ever verified online, no file is read, and what
is found has a place in its line. Called from `redaction`, off the request's path.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from npllm.memory.secret_shapes import PLACEHOLDER, is_password, is_reference

log = logging.getLogger(__name__)

LONGEST_LINE = 2000  # characters; longer lines are packed or generated
_WORTH = re.compile(  # what the second pass can find at all; a line without it is not handed over
    r"[\w+/=-]{16}|api_?key|(?:auth|service|account|db|database|priv|private|client)_?key|_?pass|pwd|secret|contrase|://|key_",
    re.IGNORECASE,
)


def find(text: str, config: bool) -> list[tuple[int, int, str]]:
    """Where detect-secrets sees secrets in a text: start, end, kind; in no order, some overlap.

    Args:
        config: values may stand without quotes.
    """
    found: list[tuple[int, int, str]] = []
    begin = 0
    for line in text.split("\n"):
        if len(line) <= LONGEST_LINE and _WORTH.search(line):
            found += [(begin + start, begin + end, kind) for start, end, kind in _line(line, config)]
        begin += len(line) + 1
    return found


@functools.lru_cache(maxsize=20_000)
def _line(line: str, config: bool) -> tuple[tuple[int, int, str], ...]:
    """The secrets that detect-secrets sees in a line: start, end, kind."""
    found = []
    for name, plugin in _plugins():
        for value in _values(plugin, line, config):
            if PLACEHOLDER in value or not _counts(plugin, value, line):
                continue
            start = line.find(value)
            while start >= 0:
                found.append((start, start + len(value), name))
                start = line.find(value, start + len(value))
    return tuple(found)


def _values(plugin: Any, line: str, config: bool) -> list[str]:
    from detect_secrets.plugins import keyword
    from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin

    if isinstance(plugin, keyword.KeywordDetector):
        groups = keyword.CONFIG_DENYLIST_REGEX_TO_GROUP if config else keyword.QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP
        return [value for value in plugin.analyze_string(line, groups) if value]
    values = [value for value in plugin.analyze_string(line) if value]
    if isinstance(plugin, HighEntropyStringsPlugin):
        return [value for value in values if plugin.calculate_shannon_entropy(value) > plugin.entropy_limit]
    return values


def _counts(plugin: Any, value: str, line: str) -> bool:
    """Its own heuristics, as `detect-secrets scan` applies them, and ours for what is called a password."""
    from detect_secrets.filters import heuristic
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.keyword import KeywordDetector

    if (
        heuristic.is_sequential_string(value)
        or heuristic.is_templated_secret(value)
        or heuristic.is_not_alphanumeric_string(value)
    ):
        return False
    if isinstance(plugin, RegexBasedDetector):
        return not is_reference(value)
    if heuristic.is_potential_uuid(value) or heuristic.is_likely_id_string(value, line, plugin):
        return False
    if isinstance(plugin, KeywordDetector):
        return is_password(value) and not heuristic.is_indirect_reference(line)
    return not is_reference(value)


@functools.cache
def _plugins() -> tuple[tuple[str, Any], ...]:
    """Its detectors with their names; none, said once, where it cannot be loaded. Nothing is ever verified online."""
    try:
        return _load_plugins()
    except Exception:
        log.exception("detect-secrets cannot be loaded; secrets are found by our own patterns alone")
        return ()


def _load_plugins() -> tuple[tuple[str, Any], ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    made: list[tuple[str, Any]] = []
    plugin: Any
    for secret_type, plugin in get_mapping_from_secret_type_to_class().items():
        if secret_type in ("Public IP (ipv4)", "Private Key"):  # no secret; only the line above a key
            continue
        limit = {"Base64 High Entropy String": 4.5, "Hex High Entropy String": 3.0}.get(secret_type)
        name = {
            "Base64 High Entropy String": "random",
            "Hex High Entropy String": "random",
            "Secret Keyword": "password",
        }
        slug = name.get(secret_type, re.sub(r"[^a-z0-9]+", "-", secret_type.lower()).strip("-"))
        made.append((slug, plugin() if limit is None else plugin(limit)))
    return tuple(made)

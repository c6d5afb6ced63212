"""Settings that the editor sends, over those of the config file.

What is valid is taken; for each wrong key there is one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npllm.config import Config, merge_leniently


def plain(value: Any) -> Any:
    """Nested mappings and sequences as pygls hands them over (attribute objects, too) as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def from_initialize(config: Config, options: Any) -> tuple[Config, list[str]]:
    """`config` with `initializationOptions.settings` over it, and what was wrong."""
    data = plain(options)
    return (config, []) if data is None else _merged(config, data, "initializationOptions")


def reports_acceptance(options: Any) -> bool:
    """Whether the client says whenever one of its keys takes a suggestion (the item's command) or a part of it
    (`textDocument/didPartiallyAcceptCompletion`).

    A client that does so puts `reportsAcceptance: true` beside its settings.
    """
    data = plain(options)
    return isinstance(data, dict) and data.get("reportsAcceptance") is True


def from_change(config: Config, settings: Any) -> tuple[Config, list[str]] | None:
    """`config` with `workspace/didChangeConfiguration` settings (`npllm.settings`) over it, and what was wrong.

    None when the message says nothing about npllm: some editors send an empty one, or one about everything else.
    """
    data = plain(settings)
    if isinstance(data, dict):
        if "npllm" not in data and "settings" not in data:
            return None
        data = data.get("npllm", data)
    elif data is None:
        return None
    return _merged(config, {} if data is None else data, "the editor's settings")


def _merged(config: Config, data: Any, source: str) -> tuple[Config, list[str]]:
    if not isinstance(data, dict):
        return config, [f"{source} must be an object, not {data!r}."]
    sections = data.get("settings") or {}
    if not isinstance(sections, dict):
        return config, [f"{source}: settings must be an object of sections, not {sections!r}."]
    nested: dict[str, Any] = {}
    for key, value in sections.items():
        section, dot, name = key.partition(".")
        if dot:  # "sleep.idle_s": 60, as people write it in VS Code
            value = {name: value}
        known = nested.get(section)
        nested[section] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return merge_leniently(config, nested, source=source)

"""Settings that the editor sends, over those of the config file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npllm.config import Config, merge
from npllm.types import ConfigError


def plain(value: Any) -> Any:
    """Nested mappings and sequences as pygls hands them over (attribute objects, too) as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def from_initialize(config: Config, options: Any) -> Config:
    """`config` with `initializationOptions.settings` over it.

    Raises:
        ConfigError: a setting is wrong.
    """
    return _merged(config, plain(options), "initializationOptions")


def from_change(config: Config, settings: Any) -> Config:
    """`config` with `workspace/didChangeConfiguration` settings (`npllm.settings`) over it.

    Raises:
        ConfigError: a setting is wrong.
    """
    data = plain(settings)
    if isinstance(data, dict):
        data = data.get("npllm", data)
    return _merged(config, data, "the editor's settings")


def _merged(config: Config, data: Any, source: str) -> Config:
    if data is None:
        return config
    if not isinstance(data, dict):
        raise ConfigError(f"{source} must be an object, not {data!r}.")
    sections = data.get("settings") or {}
    if not isinstance(sections, dict):
        raise ConfigError(f"{source}: settings must be an object of sections, not {sections!r}.")
    nested: dict[str, Any] = {}
    for key, value in sections.items():
        section, dot, name = key.partition(".")
        if dot:  # "sleep.idle_s": 60, as people write it in VS Code
            nested.setdefault(section, {})[name] = value
        else:
            nested.setdefault(key, {})
            nested[key] = {**nested[key], **value} if isinstance(value, dict) else value
    return merge(config, nested, source=source)

"""`base.model` in the data folder's `config.toml`, written so that everything else in the file stays as it is.

Comments, order and other keys are kept (tomlkit); the file is replaced at once, and a link to it stays a link.
"""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import MutableMapping
from pathlib import Path

import tomlkit
import tomlkit.exceptions

from npllm.config import BaseConfig
from npllm.types import ConfigError


def check(home: Path) -> None:
    """Whether the setting could be written.

    Raises:
        ConfigError: as `write_model`.
    """
    file = home / "config.toml"
    _with_model(file, _read(file), "starter")


def read_model(home: Path) -> str:
    """`base.model` as the file has it, whatever the environment says.

    Raises:
        ConfigError: as `write_model`.
    """
    file = home / "config.toml"
    try:
        section = tomllib.loads(_read(file)).get("base")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} cannot be read: {error}. Mend or remove the file; it was not changed.") from error
    model = section.get("model") if isinstance(section, dict) else None
    return model if isinstance(model, str) else BaseConfig().model


def write_model(home: Path, model: str) -> Path:
    """Set `base.model`; returns the file.

    Raises:
        ConfigError: the file is not TOML, its `base` is no table, or it cannot be written; it is as it was.
    """
    file = home / "config.toml"
    before = _read(file)
    after = _with_model(file, before, model)
    if after != before:
        try:
            _replace(file.resolve(), after)
        except (OSError, ValueError) as error:  # ValueError: a name that is no text
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"{file} cannot be written: {reason}. It was not changed; mend that, or set NPLLM_BASE_MODEL."
            ) from error
    return file


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Mend or remove the file; it was not changed.") from error


def _with_model(file: Path, text: str, model: str) -> str:
    try:
        document = tomlkit.parse(text)
        wanted = tomllib.loads(text)
    except (tomlkit.exceptions.TOMLKitError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Mend or remove the file; it was not changed.") from error
    section = document.get("base")
    if section is None:
        section = document["base"] = tomlkit.table()
    if not isinstance(section, MutableMapping):
        raise ConfigError(f"{file}: base must be a table of settings ([base]). Mend it; the file was not changed.")
    section["model"] = model
    after = tomlkit.dumps(document)
    wanted.setdefault("base", {})["model"] = model
    if tomllib.loads(after) != wanted:
        raise ConfigError(f'{file} is written in a way that npllm cannot change: set model = "{model}" in its [base].')
    return after


def _replace(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            temporary.chmod(file.stat().st_mode & 0o777)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

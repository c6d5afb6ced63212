"""Writing `base.model` into config.toml: nothing else in the file changes, and it is never half-written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from npllm import config
from npllm.bases.setting import check, read_model, write_model
from npllm.types import ConfigError

FULL = """# mine, all mine
title_is_not_known = 1  # told, but kept

[sleep]      # how I sleep
idle_s = 900.0   # a quarter of an hour

[base]
# the first one was too slow
model = "starter"   # for now
threads = 2

[memory]
snippets = 4
"""


def test_only_the_value_changes(home: Path) -> None:
    file = home / "config.toml"
    file.write_text(FULL)
    assert write_model(home, "Qwen/Qwen2.5-Coder-1.5B") == file
    assert file.read_text() == FULL.replace('"starter"', '"Qwen/Qwen2.5-Coder-1.5B"')
    settings, problems = config.load_leniently(home)
    assert settings.base.model == "Qwen/Qwen2.5-Coder-1.5B" and settings.base.threads == 2
    assert settings.sleep.idle_s == 900 and len(problems) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[base]\nmodel = "x"\n'),
        ("# only a remark\n", '# only a remark\n\n[base]\nmodel = "x"\n'),
        ("[base]\nthreads = 2\n", '[base]\nthreads = 2\nmodel = "x"\n'),
        ('base.model = "y" # dotted\n', 'base.model = "x" # dotted\n'),
        ('base = { model = "y", threads = 2 }\n', 'base = { model = "x", threads = 2 }\n'),
        ('[base]\r\nmodel = "y"\r\n[sleep]\r\n', '[base]\r\nmodel = "x"\r\n[sleep]\r\n'),
        ("[base]\nmodel = 3\n", '[base]\nmodel = "x"\n'),
    ],
)
def test_however_it_was_written(home: Path, before: str, after: str) -> None:
    (home / "config.toml").write_bytes(before.encode())
    write_model(home, "x")
    assert (home / "config.toml").read_bytes().decode() == after
    assert config.load(home).base.model == "x"


@pytest.mark.parametrize("model", ['C:\\models\\"mine"', "/models/é ü/x", "a\nb"])
def test_any_name_is_read_as_it_was_meant(home: Path, model: str) -> None:
    write_model(home, model)
    assert config.load(home).base.model == model


def test_a_data_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    write_model(tmp_path / "new", "x")
    assert config.load(tmp_path / "new").base.model == "x"


@pytest.mark.parametrize("text", ["[base\nmodel = 1", "base = 3\n", "\udcff"])
def test_what_cannot_be_changed_is_said_and_left(home: Path, text: str) -> None:
    content = text.encode("utf-8", "surrogateescape")
    (home / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml.*(not changed|Mend)"):
        check(home)
    with pytest.raises(ConfigError, match=r"config\.toml.*(not changed|Mend)"):
        write_model(home, "x")
    assert (home / "config.toml").read_bytes() == content


def test_a_name_that_is_no_text_is_said_and_nothing_is_written(home: Path) -> None:
    (home / "config.toml").write_text(FULL)
    with pytest.raises(ConfigError, match=r"config\.toml cannot be written.*It was not changed"):
        write_model(home, "/models/\udcff")
    assert [file.name for file in home.iterdir()] == ["config.toml"]
    assert (home / "config.toml").read_text() == FULL


def test_the_file_is_read_without_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPLLM_BASE_MODEL", "other")
    assert read_model(home) == "starter", "where there is no file, the default"
    (home / "config.toml").write_text('[base]\nmodel = "mine"\n')
    assert read_model(home) == "mine"
    (home / "config.toml").write_text("base = 3\n")
    assert read_model(home) == "starter"
    (home / "config.toml").write_text("[base")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_model(home)


def test_a_link_stays_a_link_and_a_mode_a_mode(home: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text(FULL)
    real.chmod(0o640)
    (home / "config.toml").symlink_to(real)
    write_model(home, "x")
    assert (home / "config.toml").is_symlink() and 'model = "x"' in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_leaves_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text(FULL)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left"):
        write_model(home, "x")
    assert [file.name for file in home.iterdir()] == ["config.toml"]
    assert (home / "config.toml").read_text() == FULL

"""Settings: what is wrong costs itself alone, and never what the person forbade."""

from __future__ import annotations

from pathlib import Path

import pytest

from npllm import config
from npllm.types import ConfigError


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_a_wrong_key_costs_only_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, '[memory]\nrecord = false\nsnippetz = 2\n[sleep]\nidle_s = "soon"\nrank = 8\n[slep]\nrank = 1\n')
    monkeypatch.setenv("NPLLM_BASE_MODEL", "/a/model")
    found, problems = config.load_leniently(home)
    assert not found.memory.record
    assert (found.sleep.rank, found.sleep.idle_s) == (8, config.SleepConfig().idle_s)
    assert found.base.model == "/a/model"
    assert len(problems) == 3 and all("config.toml" in problem for problem in problems)
    assert "unknown setting memory.snippetz" in problems[0]
    assert "sleep.idle_s must be float" in problems[1]
    assert "unknown section [slep]" in problems[2]
    with pytest.raises(ConfigError, match="snippetz"):
        config.load(home)


@pytest.mark.parametrize("text", ["[memory\nrecord = false", "\x00", "[memory]\nrecord = 'off'\n[sleep]\nenabled = 0"])
def test_in_doubt_nothing_is_recorded(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    write(home, text)
    monkeypatch.setenv("NPLLM_DATABASE_URL", "postgresql://me@host/mine")
    found, problems = config.load_leniently(home)
    assert not found.memory.record
    assert found.database.url == "postgresql://me@host/mine"
    assert "config.toml" in problems[0]


def test_a_file_that_cannot_be_read_stops_sleep_and_says_so(home: Path) -> None:
    write(home, "[sleep\n")
    found, problems = config.load_leniently(home)
    assert not found.sleep.enabled
    assert len(problems) == 1 and "cannot be read" in problems[0] and "nothing is recorded" in problems[0]


def test_two_keys_that_contradict_each_other_are_both_left_out(home: Path) -> None:
    write(home, "[feedback]\nkeep_above = 0.2\ndiscard_below = 0.6\nsettle_s = 5\n")
    found, problems = config.load_leniently(home)
    assert found.feedback == config.FeedbackConfig(settle_s=5.0)
    assert len(problems) == 1
    write(home, "[feedback]\ndiscard_below = 0.8\nkeep_above = 0.9\n")
    assert config.load(home).feedback.discard_below == 0.8


def test_a_choice_that_there_is_not_names_those_that_there_are(home: Path) -> None:
    write(home, '[sleep]\nlayers = "head"\nrank = 8\n')
    found, problems = config.load_leniently(home)
    assert (found.sleep.layers, found.sleep.rank) == ("auto", 8)
    assert len(problems) == 1
    assert "sleep.layers must be one of auto, output, all, not 'head'" in problems[0]


def test_without_a_file_there_are_no_problems(home: Path) -> None:
    assert config.load_leniently(home) == (config.Config(home=home), [])

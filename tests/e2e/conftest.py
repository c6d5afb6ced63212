"""A real VS Code with the packed extension, for every test here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.desk import Play
from tests.e2e.workbench import Installation, install_extension

SLOW = pytest.StashKey[list[str]]()
VSIX = Path(__file__).parents[2] / "client-vscode" / "npllm.vsix"


@pytest.fixture(scope="session")
def installation() -> Installation:
    return Installation()


@pytest.fixture(scope="session")
def installed(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder with the extension in it, and what VS Code says is installed."""
    assert VSIX.exists(), f"There is no {VSIX}: run `make client` first."
    folder = tmp_path_factory.mktemp("extensions")
    return folder, install_extension(installation, VSIX, folder, tmp_path_factory.mktemp("home"))


@pytest.fixture
def play(installation: Installation, installed: tuple[Path, list[str]], pytestconfig: pytest.Config) -> Play:
    """Plays flows."""
    return Play(installation, installed[0], pytestconfig.stash.setdefault(SLOW, []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the attempts that were made again, also where the last one succeeded."""
    for line in config.stash.get(SLOW, []):
        terminalreporter.write_line(f"TOO SLOW {line}")

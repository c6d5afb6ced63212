"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from npllm.config import Config
from npllm.memory.postgres import destroy
from npllm.memory.store import Store
from npllm.types import StoreError
from tests.tiny import make_practised_model, make_tiny_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A data folder for tests that name none: what they leave behind is not the person's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NPLLM_HOME", str(tmp_path_factory.mktemp("nobodys-home")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a randomly initialised two-layer Llama that has the starter's special tokens."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def practised_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained for seconds on a few lines of code, so that it always has something to suggest."""
    return make_practised_model(tmp_path_factory.mktemp("practised-model"))


@pytest.fixture
async def store(config: Config) -> AsyncIterator[Store]:
    """A connected Store by the settings that the test module names `config`."""
    made = await Store.connect(config)
    yield made
    await made.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh data folder, also in NPLLM_HOME for subprocesses; no settings leak in from outside."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("NPLLM_HOME", str(folder))
    for name in ("NPLLM_DATABASE_URL", "NPLLM_BASE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    _destroy(folder)


def _destroy(folder: Path) -> None:
    """As root, the embedded database lies outside of the data folder; a server may still be on its way out."""
    for _ in range(100):
        try:
            return destroy(folder)
        except StoreError:
            time.sleep(0.1)
    destroy(folder)

"""A version's folder stands under its name whole, or not at all."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from npllm.models.manifest import TEMPORARY, whole_folder
from npllm.types import ModelError


@contextmanager
def little_room() -> Iterator[None]:
    """No file of this process grows beyond a kilobyte."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


def test_a_folder_stands_under_its_name_when_it_is_filled(tmp_path: Path) -> None:
    final = tmp_path / "adapters" / "one"
    with whole_folder(final) as folder:
        (folder / "weights").write_text("all of them")
        assert not final.exists()
    assert (final / "weights").read_text() == "all of them"
    assert [path.name for path in final.parent.iterdir()] == ["one"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    final = tmp_path / "one"
    with whole_folder(final) as folder:
        (folder / "weights").write_text("former")
    with pytest.raises(ModelError, match="Is there room on the disk"), whole_folder(final) as folder:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(ModelError, match="Is there room on the disk"), whole_folder(final) as folder, little_room():
        safetensors.torch.save_file({"weight": torch.zeros(100_000)}, folder / "model.safetensors")
    assert (final / "weights").read_text() == "former"


def test_what_a_killed_process_left_is_written_anew(tmp_path: Path) -> None:
    final = tmp_path / "one"
    for left in (tmp_path / (TEMPORARY + "one"), final):
        left.mkdir()
        (left / "from before").write_text("")
    with whole_folder(final) as folder:
        (folder / "weights").write_text("new")
    assert [path.name for path in final.iterdir()] == ["weights"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]

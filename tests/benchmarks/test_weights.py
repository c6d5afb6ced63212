"""Loading a base over the shared copy of its weights, against loading it with weights of its own, in one run.

`pytest -s tests/benchmarks` prints the figures. Only the ratio is asserted, and generously: machines differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from npllm.models import network
from npllm.models.base import Base
from npllm.models.folder import quiet
from tests.tiny import make_tiny_model

ROUNDS = 7


def fastest(job: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the fastest of some rounds of each, taken in turns so that both meet the same machine."""
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for place, one in enumerate((job, other)):
            start = time.perf_counter()
            kept = one()
            best[place] = min(best[place], time.perf_counter() - start)
            del kept
    return best[0], best[1]


def measure(spec: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """The ratio of a whole `Base.load` with the shared copy to one without."""
    first = time.perf_counter()
    base = Base.load(spec, device="cpu", threads=1, cache=cache)
    first = time.perf_counter() - first
    digest, parameters = base.digest(), base.info.parameters
    assert len(list((cache / "weights").glob("*.safetensors"))) == 1

    def without() -> Base:
        with monkeypatch.context() as patch, quiet():
            patch.setattr(network, "share", lambda folder, config, *_: network.load(folder, config, torch.float32))
            return Base.load(spec, device="cpu", threads=1, cache=cache)

    def shared() -> Base:
        return Base.load(spec, device="cpu", threads=1, cache=cache)

    assert without().digest() == shared().digest() == digest
    cached, uncached = fastest(shared, without)
    print(
        f"\n{parameters / 1e6:.1f}M parameters: first load, which writes the copy, {first:.3f} s; then {cached:.3f} s; "
        f"without a copy {uncached:.3f} s; ratio {cached / uncached:.2f}"
    )
    return cached / uncached


def test_the_shipped_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure("starter", tmp_path, monkeypatch) < 1.25, "sharing must not cost the start"


@pytest.mark.slow
def test_a_larger_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny_model(tmp_path / "base", hidden=768, layers=8)
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert measure(str(folder), tmp_path / "cache", monkeypatch) < 1.25

"""Comments that are for npllm."""

from __future__ import annotations

import time

import pytest

from npllm.lsp.opinions import noted


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("    # npllm: wrong again\n", "wrong again"),
        ("// NPLLM:good\r\n", "good"),
        ("/* npllm: too long */", "too long"),
        ("<!-- npllm: too long -->\n", "too long"),
        ("(* npllm: x *)", "x"),
        ("--- npllm: */ stays -- inside", "*/ stays -- inside"),
        ("# npllm: ends twice */ */", "ends twice */"),
        ("# npllm:   ", ""),
        ("/* npllm: */", ""),
        ("# about npllm: this", ""),
        ("npllm: no comment", ""),
        ("x = 1  # npllm: behind code", ""),
    ],
)
def test_what_a_comment_says(line: str, says: str) -> None:
    assert noted(line) == says


def test_a_long_line_takes_time_in_proportion() -> None:
    def takes(size: int) -> float:
        lines = [f"# npllm: a{' ' * size}b", f"#{' ' * size}x", f"{' ' * size}x", f"#{';' * size} npllm"]
        began = time.perf_counter()
        for _ in range(20):
            for line in lines:
                noted(line)
        return time.perf_counter() - began

    takes(1000)
    short, long = (min(takes(size) for _ in range(3)) for size in (10_000, 80_000))
    assert long < 40 * short, "8 times as long; a square would take 64 times, a cube 512"

"""Values on their way into the tables."""

from __future__ import annotations

import math

import pytest

from npllm.memory import rows
from npllm.types import EMBEDDING_DIM


@pytest.mark.parametrize("number", [math.nan, math.inf, 65504.5, -1e6])
def test_what_a_halfvec_cannot_hold_is_left_out(number: float) -> None:
    assert rows.vector([number] + [0.0] * (EMBEDDING_DIM - 1)) is None
    assert rows.vector([0.0] * (EMBEDDING_DIM - 1)) is None and rows.vector(None) is None


def test_an_embedding_is_stored_in_half_precision() -> None:
    made = rows.vector(tuple([0.1] * EMBEDDING_DIM))
    assert made is not None and made.to_list() == pytest.approx([0.1] * EMBEDDING_DIM, rel=1e-3)

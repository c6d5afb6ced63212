"""What the columns of the next morning switch."""

from __future__ import annotations

from npllm.evaluation.measure import COLUMNS, settings


def test_nothing_that_a_sleep_made_takes_part_in_the_first_two_columns() -> None:
    given = {"cerebellum": {"context_tokens": 256}, "memory": {"wait_ms": 7}}
    base, memory, sleep = (settings(given, column) for column in COLUMNS)
    for one in (base, memory):
        assert one["adapters"]["enabled"] is False
        assert one["cerebellum"] == {"context_tokens": 256, "reflex": False, "blend": False}
    assert sleep["adapters"]["enabled"] is True
    assert sleep["cerebellum"] == {"context_tokens": 256}, "as it is set"
    assert [one["memory"]["enabled"] for one in (base, memory, sleep)] == [False, True, True]
    assert not any(one["memory"]["record"] or one["sleep"]["enabled"] for one in (base, memory, sleep))
    assert given == {"cerebellum": {"context_tokens": 256}, "memory": {"wait_ms": 7}}

"""Metrics and reports on values worked out by hand."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from npllm.evaluation import demo, metrics, report
from npllm.evaluation.day import Day, Sleep
from npllm.evaluation.developer import Moment
from npllm.evaluation.metrics import LineResult


def line(
    truth: str,
    offered: str | None,
    *,
    nats: float = 1.0,
    cluster: str = "0:a",
    number: int = 0,
    seen: bool = False,
) -> LineResult:
    return LineResult(cluster, cluster, number, 0, truth, offered, nats, len(truth.encode()), 0, 10.0, seen)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("é😀", "e😀", 1)],
)
def test_levenshtein(one: str, other: str, distance: int) -> None:
    assert metrics.levenshtein(one, other) == metrics.levenshtein(other, one) == distance


@given(one=st.text(max_size=8), other=st.text(max_size=8), third=st.text(max_size=8))
def test_levenshtein_is_a_distance(one: str, other: str, third: str) -> None:
    distance = metrics.levenshtein
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, third) <= distance(one, other) + distance(other, third)


def test_similarity_and_exact() -> None:
    assert metrics.similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert metrics.similarity(None, "x") == 0.0
    assert metrics.similarity("return x  ", "return x") == 1.0
    assert metrics.is_exact("return x ", "return x")
    assert not metrics.is_exact(" return x", "return x")
    assert not metrics.is_exact(None, "")


def test_characters_saved() -> None:
    assert metrics.saved("return value", "return value") == 12
    # similarity 8/9: one character is removed and none typed
    assert metrics.saved("return xy", "return x") == 8 - 0 - 1
    # 4 characters typed and 2 removed of 20
    assert metrics.saved("x = call(one, two)", "x = call(three, two)") == 20 - 4 - 2
    assert metrics.saved("nothing like it", "return x") == 0
    assert metrics.saved(None, "return x") == 0


def test_bits_per_byte_is_a_ratio_of_sums() -> None:
    lines = [line("abcd", None, nats=4 * math.log(2)), line("é", None, nats=8 * math.log(2))]
    assert metrics.overall(lines, metrics.bits_per_byte) == pytest.approx((4 + 8) / (4 + 2))


def test_percentile_interpolates() -> None:
    assert metrics.percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert metrics.percentile([1.0, 2.0, 3.0], 0.95) == pytest.approx(2.9)
    assert metrics.percentile([7.0], 0.95) == 7.0


def test_the_bootstrap_resamples_files_not_lines() -> None:
    # One file all right, one all wrong: with two files only 0, 1/2 and 1 can be drawn.
    lines = [line("abcd", "abcd", cluster="0:a", number=n) for n in range(50)]
    lines += [line("abcd", None, cluster="0:b", number=n) for n in range(50)]
    interval = metrics.bootstrap(lines, metrics.exact_share)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.0, 1.0)
    one_file = metrics.bootstrap(lines[:50], metrics.exact_share)
    assert (one_file.low, one_file.high) == (1.0, 1.0)


def test_a_constant_gain_has_a_certain_difference() -> None:
    """Paired: files differ wildly, the gain does not."""
    earlier = [line("abcd", None, nats=n * math.log(2), cluster=f"0:{n}", number=n) for n in range(4, 40)]
    later = [dataclasses.replace(one, nats=one.nats - math.log(2)) for one in earlier]
    gain = metrics.difference(later, earlier, metrics.bits_per_byte)
    assert (gain.value, gain.low, gain.high) == pytest.approx((-0.25, -0.25, -0.25))


def test_columns_with_other_lines_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same lines"):
        metrics.difference([line("a", None, number=1)], [line("a", None, number=2)], metrics.exact_share)


def day(seed: int, nats: tuple[float, float, float]) -> Day:
    def results(value: float) -> tuple[LineResult, ...]:
        return tuple(
            line("abcd", "abcd" if n == 0 else None, nats=value, cluster=f"{seed}:{n}", number=n, seen=n == 1)
            for n in range(4)
        )

    return Day(
        seed=seed,
        project="proj",
        old="1",
        new="2",
        home="/somewhere",
        base="starter",
        fingerprints=("f", "f"),
        weights=("w", "w"),
        parameters=("p", "p"),
        moments=(Moment("a.py", 1, "x", None, "unaided", 0.0, 0, "", ""),),
        sleep=Sleep(1.0, ("train",), ("id",), (("language:python", "published", "", {"gain": 0.1}),), "done", {}),
        columns={name: results(value) for name, value in zip(report.NAMES, nats, strict=True)},
        counts={"experiences": 1},
        seconds={"morning": 1.0},
        settings={},
    )


def test_the_demo_says_what_the_sleep_put_in_use() -> None:
    made = day(0, (3.0, 2.0, 1.0))
    refused = replace(made.sleep, published=(), versions=(("language:python", "rejected", "no better", {}),))
    small = {"version": "v", "published": True, "reason": "likelier"}
    for report_, published, wanted, told in (
        ({}, (), "nothing", "let nothing through"),
        ({"cerebellum": {"reason": "there is none"}}, ("one",), "adapter one", ""),
        ({"cerebellum": small}, (), "the cerebellum", ""),
        ({"cerebellum": {**small, "published": False}}, (), "nothing", "let nothing through"),
    ):
        one = replace(made, sleep=replace(refused, published=published, report=report_))
        assert f"In use, swapped in without a restart: {wanted}" in demo.closing(one, Path("/h"), 1.0)
        out = io.StringIO()
        assert demo.verdict(Console(file=out, width=200), one) == 0
        assert (told in out.getvalue()) if told else not out.getvalue()
    shown = io.StringIO()
    report.print_to(Console(file=shown, width=300), report.build([one]))
    assert "the cerebellum rejected (likelier)" in shown.getvalue()


def test_the_report_pools_seeds_and_says_what_is_better() -> None:
    bit = 4 * math.log(2)
    made = report.build([day(0, (3 * bit, 2 * bit, bit)), day(1, (3 * bit, 2 * bit, bit))])
    assert made.learned
    assert [made.columns[name].bits_per_byte.value for name in report.NAMES] == pytest.approx([3, 2, 1])
    assert made.columns[report.NAMES[0]].files == 8
    assert made.by_seed[1][report.NAMES[2]] == pytest.approx(1)
    assert made.seen_share == 0.25
    last = made.differences[1]
    assert (last.later, last.earlier) == (report.NAMES[2], report.NAMES[1])
    assert last.metrics["bits_per_byte"].high == pytest.approx(-1)

    out = io.StringIO()
    report.print_to(Console(file=out, width=200), made)
    for text in (out.getvalue(), report.as_markdown(made)):
        assert "bits per byte -1.000 [-1.000, -1.000], better" in text
        assert "exact lines +0.0% [+0.0%, +0.0%] (did not move)" in text
    data = json.loads(json.dumps(report.as_json(made)))
    assert len(data["days"][0]["columns"][report.NAMES[0]]) == 4

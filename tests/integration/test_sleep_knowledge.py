"""What the project says word for word, in sleep: how far the cerebellum trusts it, and what its confidence is worth."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import npllm
from npllm.models.base import Base
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.sleep import confidence
from npllm.sleep.confidence import Unseen
from npllm.sleep.interruption import Interrupted
from npllm.sleep.knowledge import Knowledge, same_tokens

SISTER = Path(npllm.__file__).parent / "starter" / "cerebellum"
LINES = [
    f"gadget_{word}.calibrate(flux_of_{word}, {number})" for number, word in enumerate("oak elm ash fir yew".split())
]


@pytest.fixture(scope="module")
def small() -> Cerebellum:
    return Cerebellum(Base.load(str(SISTER), device="cpu", threads=1, shared=False), context_tokens=256)


def written(root: Path) -> list[Unseen]:
    """A project in which each line stands in another file, and the places where they are written again."""
    for number in range(3):
        body = "".join(f"def use_{index}():\n    {line}\n\n" for index, line in enumerate(LINES))
        (root / f"user_{number}.py").write_text(body)
    (root / "now.py").write_text("".join(LINES))
    return [
        Unseen(str(root), "python", "now.py", f"def use_{index}():\n    {line[:cut]}", "\n", line[cut:])
        for index, line in enumerate(LINES)
        for cut in [line.index("(")]
    ]


def knowledge(small: Cerebellum, *, off_limits: tuple[str, ...] = ()) -> Knowledge:
    return Knowledge(small.builder.codec, small.vocabulary, off_limits, threading.Event())


def test_it_trusts_what_the_project_says_and_is_then_right_where_it_was_not(small: Cerebellum, tmp_path: Path) -> None:
    places, stop = written(tmp_path), threading.Event()
    alone = confidence.calibrated(small, places, None, 0.5, stop)
    with_it = confidence.calibrated(small, places, knowledge(small), 0.5, stop)
    assert alone.trust == 0 and with_it.trust > 0
    assert alone.threshold is None and with_it.threshold is not None and with_it.right > len(places) / 2
    assert with_it.alone == alone.threshold == alone.alone
    assert Calibration.from_json(with_it.to_json()) == with_it


def test_the_file_itself_and_what_is_off_limits_say_nothing(small: Cerebellum, tmp_path: Path) -> None:
    places = written(tmp_path)
    limits = tuple(str(tmp_path / f"user_{number}.py") for number in range(3))
    assert confidence.calibrated(small, places, knowledge(small, off_limits=limits), 0.5, threading.Event()).right == 0


def test_the_person_comes_back_while_it_reads(small: Cerebellum, tmp_path: Path) -> None:
    places, stop = written(tmp_path), threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        Knowledge(small.builder.codec, small.vocabulary, (), stop).at(*places[0][:3], places[0][3:5], 1.0)


def test_another_base_s_tokens_are_told_apart(tiny_model: Path, tmp_path: Path) -> None:
    assert same_tokens(SISTER, "starter")
    assert not same_tokens(SISTER, str(tiny_model)) and not same_tokens(SISTER, str(tmp_path))

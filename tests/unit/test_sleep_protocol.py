"""The child's words: what is encoded is decoded, and what is no message is told from one."""

from __future__ import annotations

import json
import math

import pytest
import torch

from npllm.sleep.child import failure
from npllm.sleep.protocol import Ending, Failed, Finished, NotAMessage, Phase, Progress, decode, encode
from npllm.sleep.report import ContextReport, Report, SliceKind, SliceReport, Verdict
from npllm.sleep.supervisor import describe

PART = ContextReport(
    "language:python",
    Verdict.PUBLISHED,
    "Likelier than before.",
    version="v",
    new=40,
    old=17,
    files=5,
    held_out=10,
    held_out_files=3,
    nll_before=1.4,
    nll_after=1.2,
    gain=1 / 7,
    gain_low=0.02,
    gain_high=0.2,
    seconds=61.0,
    slices=(SliceReport(SliceKind.NEW, "new", texts=10, gain=1 / 7), SliceReport(SliceKind.OLD, "v0", "2026-03-02")),
    notes=("General code was not judged.",),
)
REPORT = Report("starter", "f" * 64, (PART,), seconds=70.0, parts=2)


@pytest.mark.parametrize(
    "message",
    [
        Progress(Phase.GATHERING),
        Progress(Phase.LEARNING, "language:python", 3, 80, 0.25, 1.75, 900.5, 40.0),
        Finished(Ending.DONE, "two\nlines, \u2028 and ünïcode", REPORT),
        Finished(Ending.NOTHING, "nothing"),
        Finished(Ending.HELD, "somebody else"),
        Failed("No room on the disk."),
    ],
)
def test_a_message_survives_the_wire_on_one_line(message: object) -> None:
    line = encode(message)  # type: ignore[arg-type]
    assert "\n" not in line
    assert decode(line) == message


def test_numbers_that_are_none_become_unknown() -> None:
    message = decode(encode(Progress(Phase.LEARNING, loss=math.nan, seconds_left=math.inf)))
    assert isinstance(message, Progress)
    assert message.loss is None
    assert message.seconds_left is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Downloading 13%",
        "[1, 2]",
        "null",
        '{"kind": "progress"}',
        '{"kind": "dance"}',
        '{"kind": "finished", "ending": 3}',
    ],
)
def test_junk_is_told_from_messages(line: str) -> None:
    with pytest.raises(NotAMessage):
        decode(line)


def test_exit_statuses_tell_how_it_ended() -> None:
    told = {ending: ending.exit_code for ending in Ending}
    assert told == {Ending.DONE: 0, Ending.FAILED: 1, Ending.INTERRUPTED: 3, Ending.NOTHING: 4, Ending.HELD: 5}
    assert Ending.of_exit_code(3) is Ending.INTERRUPTED
    assert Ending.of_exit_code(-9) is Ending.FAILED


def test_a_report_is_plain_json_and_ignores_what_it_does_not_know() -> None:
    data = json.loads(json.dumps(REPORT.to_json()))
    assert Report.from_json(data) == REPORT
    data["contexts"][0]["slices"][0]["mood"] = data["contexts"][0]["mood"] = data["weather"] = "later versions say more"
    assert Report.from_json(data) == REPORT


def test_a_report_says_what_was_gained_and_how_sure_that_is() -> None:
    text = REPORT.text
    assert "40 new and 17 old experiences in 5 files" in text
    assert "-14.3%" in text
    assert "-20.0% to -2.0%" in text


def test_progress_in_words() -> None:
    assert describe(Progress(Phase.LEARNING, "language:go", 3, 80, 0.2, 1.754, 900.4, 39.6)) == (
        "learning language:go 3/80, 1.75 nats a token, 900 tokens/s, 40 s left"
    )
    assert describe(Progress(Phase.GATHERING)) == "gathering"


def test_what_the_system_refused_is_told_with_its_mend() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 55)
    told = failure(refused.value)
    assert "\n" not in told
    assert "choose a smaller base" in told
    assert "GPU" not in told
    assert "logs/sleep.log" in told
    assert "without the GPU" in failure(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert failure(KeyError("x")) == "KeyError: 'x'. logs/sleep.log has the details."

"""The journal and its codec, without a database."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npllm.memory import codec
from npllm.memory.codec import decode, encode
from npllm.memory.journal import Journal, JournalFull, forget, read_batch, set_aside
from npllm.types import Feedback, JournalRecord, Modulation, StoreError, new_id
from tests.fixtures_memory import make_experience, make_outcome, make_suggestion, unit_vector

ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates and NUL too


def contents(folder: Path) -> list[JournalRecord]:
    found: list[JournalRecord] = []
    for path in sorted(folder.glob("*.jsonl")):
        batch = read_batch(path, 10**6, complete=True)
        found.extend(batch.records if batch else ())
    return found


@settings(max_examples=50, deadline=None)
@given(ANY_TEXT, ANY_TEXT, st.floats(allow_nan=False), st.datetimes(timezones=st.just(UTC)))
def test_what_is_encoded_is_decoded(text: str, other: str, number: float, moment: datetime) -> None:
    suggestion = make_suggestion(
        text=text, prefix=other, mean_logprob=number, created_at=moment, memory_ids=(new_id(), new_id())
    )
    records: list[JournalRecord] = [
        suggestion,
        make_outcome(suggestion, final_text=other, implicit=number),
        make_experience(suggested=text, emotional=number, embedding=unit_vector(3)),
        make_experience(final_text=other),
        Feedback(new_id(), suggestion.id, text, other, 1.0, 0.0, 0.5, number, moment),
    ]
    for record in records:
        line = codec.encode(record)
        assert line.count(b"\n") == 1 and line.endswith(b"\n")
        assert codec.decode(line) == record


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"\x00\x00\n",
        b"[]\n",
        b"nonsense\n",
        b'{"format":1,"kind":"suggestion"}\n',
        b'{"format":2,"kind":"suggestion","data":{}}\n',
        b'{"format":1,"kind":"dream","data":{}}\n',
        codec.encode(make_suggestion()).replace(b'"path":', b'"mystery":'),
        codec.encode(make_suggestion()).replace(b'"offset":0', b'"offset":"0"'),
        codec.encode(make_suggestion())[:-40] + b"\n",
    ],
)
def test_what_is_no_record_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        codec.decode(line)


def test_a_record_of_before_contexts_and_modulation_is_read() -> None:
    made = make_suggestion(
        contexts=("language:python", "generic"),
        modulation=Modulation(new_id(), None, ("language:python",), (0.5,), 0.25, (1.0, -0.5)),
    )
    assert decode(encode(made)) == made
    line = json.loads(encode(made))
    del line["data"]["contexts"], line["data"]["modulation"]
    assert decode(json.dumps(line).encode()) == dataclasses.replace(made, contexts=(), modulation=None)


def test_no_number_is_not_lost_as_nan() -> None:
    decoded = codec.decode(codec.encode(make_suggestion(mean_logprob=math.nan)))
    assert math.isnan(decoded.mean_logprob)  # type: ignore[union-attr]


def test_records_come_back_in_order_across_rotations_and_threads(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", rotate_at=3000)
    made = [[make_suggestion() for _ in range(10)] for _ in range(4)]
    threads = [threading.Thread(target=lambda part=part: [journal.append([r]) for r in part]) for part in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.backlog() == 40
    assert len(list(journal.folder.glob("*.jsonl"))) > 3
    journal.close()
    found = contents(tmp_path / "journal")
    for part in made:
        assert [r for r in found if r in part] == part
    assert len(found) == 40
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0


def test_a_file_that_somebody_writes_is_nobody_elses(tmp_path: Path) -> None:
    mine, theirs = Journal(tmp_path), Journal(tmp_path)
    mine.append([make_suggestion()])
    theirs.append([make_suggestion(), make_suggestion()])
    assert mine.orphans() == [] and mine.backlog() == 1
    left = theirs.path
    theirs.close()
    assert left is not None and mine.orphans() == [left] and mine.backlog() == 3
    forget(left)
    assert mine.backlog() == 1
    mine.close()


def test_a_journal_that_was_carried_leaves_nothing_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([make_suggestion(), make_suggestion()])
    assert journal.path is not None
    batch = read_batch(journal.path, 1, complete=False)
    assert batch is not None and len(batch.records) == 1
    journal.carried(journal.path, batch)
    assert journal.backlog() == 1
    batch = read_batch(journal.path, 10, complete=False)
    assert batch is not None and len(batch.records) == 1
    journal.carried(journal.path, batch)
    assert read_batch(journal.path, 10, complete=False) is None
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_passed_over_and_a_damaged_one_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make_suggestion(), make_suggestion()
    path = tmp_path / "x.jsonl"
    damaged = b'{"format":1,"kind":"sugg\x00\x00\x00\n'
    path.write_bytes(codec.encode(first) + damaged + codec.encode(second) + codec.encode(first)[:50])
    batch = read_batch(path, 100, complete=False)
    assert batch is not None and batch.records == (first, second)
    assert (tmp_path / "x.corrupt").read_bytes() == damaged
    path.with_suffix(".position").write_text(str(batch.end))
    assert read_batch(path, 100, complete=False) is None
    assert "torn line" not in caplog.text
    assert read_batch(path, 100, complete=True) is None
    assert "torn line" in caplog.text and "set aside" in caplog.text


def test_a_disk_that_is_full_is_said_and_leaves_the_journal_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    first, lost, second = (make_suggestion() for _ in range(3))
    journal.append([first])
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:10], offset))  # short writes

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            journal.append([lost])
    journal.append([second])
    journal.close()
    assert contents(tmp_path) == [first, second]


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from npllm.memory.journal import Journal
from tests.fixtures_memory import make_suggestion
journal = Journal(Path(sys.argv[1]))
while True:
    record = make_suggestion()
    journal.append([record])
    print(record.id, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(50)]
    child.send_signal(signal.SIGKILL)
    acknowledged += child.stdout.read().split()
    child.stdout.close()
    child.wait()
    journal = Journal(tmp_path)
    assert len(journal.orphans()) == 1 and journal.backlog() >= 50
    written = {str(r.id) for r in contents(tmp_path)}
    complete = {a for a in acknowledged if len(a) == 36}
    assert complete <= written and len(written) <= len(complete) + 1


def test_at_its_bound_nothing_is_written_until_some_is_carried(tmp_path: Path) -> None:
    mine, theirs = Journal(tmp_path, most=10_000), Journal(tmp_path, most=10_000)
    theirs.append([make_suggestion(prefix="x = 1\n" * 700)])
    mine.append([make_suggestion(prefix="x = 1\n" * 300)])
    before = mine.waiting()
    assert before == theirs.waiting() and 5_000 < before < 10_000
    with pytest.raises(JournalFull, match=r"journal\.max_mb"):
        mine.append([make_suggestion(prefix="x = 1\n" * 700)])
    assert mine.waiting() == before and len(contents(tmp_path)) == 2
    assert theirs.path is not None
    batch = read_batch(theirs.path, 10, complete=False)
    assert batch is not None
    theirs.carried(theirs.path, batch)
    assert mine.waiting() < before
    mine.append([make_suggestion(prefix="x = 1\n" * 700)])
    with pytest.raises(JournalFull):
        mine.append([make_suggestion(prefix="x = 1\n" * 700)])
    mine.most = 0
    mine.append([make_suggestion(prefix="x = 1\n" * 700)])


def test_its_files_are_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = tmp_path / "home" / "journal"
        journal = Journal(folder)
        journal.append([make_suggestion(), make_suggestion()])
        assert journal.path is not None
        batch = read_batch(journal.path, 1, complete=False)
        assert batch is not None
        journal.carried(journal.path, batch)
        set_aside(journal.path, b"damaged\n", "a test")
    finally:
        os.umask(before)
    assert {path.suffix for path in folder.iterdir()} == {".jsonl", ".position", ".corrupt"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
